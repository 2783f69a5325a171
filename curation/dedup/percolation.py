"""The guard against hashes that merge by chance: when pairs are many because codes are many, not because of copies.

Random codes collide. Once the mean number of chance neighbours nears one, duplicates chain through strangers and the
whole collection becomes one component. Copies leave another trace than chance: they sit at distance 0, 2, 4, and the
number of pairs hardly grows with the radius, whereas the ball of random codes grows fifty- to hundredfold per step.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from curation.dedup.representatives import adjacency, groups

_BITS, _ONES = 64, 32
RADII = (2, 4, 6, 8)
MAX_MEAN_DEGREE = 0.1  # chance neighbours per code: far below the percolation threshold of 1
CHANCE_GROWTH = 10.0  # pairs at radius r + 2 over pairs at r: copies give 1 to 3, random codes 50 to 250
MIN_CHAIN_CODES = 100  # smaller components cannot be worth a refusal


@dataclass(frozen=True)
class Percolation:
    """What was found on distinct codes. `refusal` says why merging at `radius` is unsafe, None when it is safe."""

    n_codes: int
    radius: int
    mean_degree: dict[int, float]  # observed, by radius
    chance_degree: dict[int, float]  # of as many random codes
    largest_component: int
    chain_hops: int  # a lower bound of the largest component's diameter
    refusal: str | None


def chance_degree(n_codes: int, radius: int, *, constant_weight: bool) -> float:
    """Expected neighbours within `radius` of one of `n_codes` random 64-bit codes.

    constant_weight: every code has 32 ones, as imagehash.phash makes them; then C(32, k)^2 of C(64, 32) codes lie at
    distance 2k. Otherwise C(64, d) of 2^64 lie at distance d.
    """
    if constant_weight:
        share = sum(comb(_ONES, k) ** 2 for k in range(radius // 2 + 1)) / comb(_BITS, _ONES)
    else:
        share = sum(comb(_BITS, d) for d in range(radius + 1)) / 2**_BITS
    return share * max(n_codes - 1, 0)


def examine(
    codes: NDArray[np.uint64],
    pairs: NDArray[np.int64],
    distance: NDArray[np.int64],
    *,
    radius: int,
    max_chain_hops: int,
) -> Percolation:
    """Judge the pairs [E, 2] of *distinct* codes, found up to distance 8, that are to be merged up to `radius`."""
    n = len(codes)
    constant = bool((np.bitwise_count(codes) == _ONES).all())
    degree = {r: 2 * int((distance <= r).sum()) / max(n, 1) for r in RADII}
    chance = {r: chance_degree(n, r, constant_weight=constant) for r in RADII}
    merged = pairs[distance <= radius]
    largest, hops = _largest_chain(merged, n)
    refusal = _chance_refusal(degree, chance, radius) or _chain_refusal(largest, hops, radius, max_chain_hops)
    return Percolation(n, radius, degree, chance, largest, hops, refusal)


def _chance_refusal(degree: dict[int, float], chance: dict[int, float], radius: int) -> str | None:
    within = max(r for r in RADII if r <= max(radius, RADII[0]))
    wider = min(within + 2, RADII[-1])
    narrower = wider - 2
    growth = degree[wider] / degree[narrower] if degree[narrower] > 0 else float("inf")
    if chance[within] > MAX_MEAN_DEGREE:
        return f"{chance[within]:.2f} strangers are expected within {radius} bits of each hash; lower dedup.hash_radius"
    if degree[within] > MAX_MEAN_DEGREE and growth > CHANCE_GROWTH:
        return (
            f"each hash has {degree[within]:.2f} neighbours within {radius} bits and {growth:.0f} times as many two "
            f"bits further out, as chance makes them and copies do not; lower dedup.hash_radius or raise "
            f"dedup.min_hash_quality"
        )
    return None


def _chain_refusal(largest: int, hops: int, radius: int, max_chain_hops: int) -> str | None:
    if largest < MIN_CHAIN_CODES or hops <= max_chain_hops:
        return None
    return (
        f"{largest} different hashes chain together within {radius} bits over at least {hops} steps; lower "
        f"dedup.hash_radius, raise dedup.min_hash_quality, or allow it with dedup.max_chain_hops"
    )


def _largest_chain(edges: NDArray[np.int64], n: int) -> tuple[int, int]:
    """(size, hops) of the largest component: hops between the ends of a double breadth-first sweep."""
    if len(edges) == 0:
        return min(n, 1), 0
    label = groups(edges, n)
    root, size = np.unique(label, return_counts=True)
    start = int(root[np.argmax(size)])
    starts, neighbours = adjacency(edges, n)
    far, _ = _furthest(start, starts, neighbours)
    _, hops = _furthest(far, starts, neighbours)
    return int(size.max()), hops


def _furthest(start: int, starts: NDArray[np.int64], neighbours: NDArray[np.int64]) -> tuple[int, int]:
    seen = {start}
    front, hops, last = [start], 0, start
    while front:
        reached = {int(k) for row in front for k in neighbours[starts[row] : starts[row + 1]]} - seen
        seen |= reached
        front = sorted(reached)
        if front:
            hops, last = hops + 1, front[0]
    return last, hops
