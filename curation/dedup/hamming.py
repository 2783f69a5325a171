"""All pairs of 64-bit codes within a Hamming radius, exactly, by block-permuted sorts (Manku et al. 2007).

Cut a code into n blocks. Two codes that differ in at most r bits differ in at most r blocks, so they agree on n - r of
them: for each choice of n - r blocks, sort the codes by those blocks and compare the neighbours with equal keys. Fewer,
shorter keys mean fewer sorts and more candidates; n is chosen for the number of codes at hand. Recall is 1 by
construction: there is no probing depth to set too low.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint64]
Ints = NDArray[np.int64]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]

Search = Callable[[Codes, int], Pairs]

MAX_RADIUS = 8
_BITS = 64
_CHUNK = 1 << 21  # candidates compared at once: bounds memory, not the result
# Measured on one core, in nanoseconds: permuting and sorting one code, and checking one candidate pair.
_SORT_NS = 60.0
_CHECK_NS = 12.0


def hamming_pairs(codes: Codes, radius: int, search: Search | None = None) -> Pairs:
    """Every pair i < j with Hamming distance <= `radius`, as (i, j, distance), sorted by i then j.

    codes: uint64 [N]. Equal codes are pairs of distance 0, so k copies of one code give k (k - 1) / 2 pairs: collapse
    them first where k may be large. search: what finds the pairs of distinct codes, `distinct_pairs` here by default,
    or a function of its kind that works elsewhere. Raises ValueError for another dtype or shape, or a radius outside
    0..8.
    """
    codes = checked(codes, radius)
    unique, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    a, b, distance = (search or distinct_pairs)(unique, radius)
    members = np.argsort(inverse, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    equal = np.flatnonzero(counts > 1)
    first = np.concatenate([a, equal])
    second = np.concatenate([b, equal])
    d = np.concatenate([distance, np.zeros(len(equal), np.uint8)])
    return _sorted(*_expand(first, second, d, members, starts))


def distinct_pairs(codes: Codes, radius: int) -> Pairs:
    """The same for codes that are strictly increasing: pairs of positions i < j with distance 1..`radius`."""
    tables = search_tables(codes, radius)
    found = [table.near(codes) for table in tables]
    return positions(codes, [a for a, _ in found], [b for _, b in found])


def search_tables(codes: Codes, radius: int) -> list[Table]:
    """The choices of blocks that find every pair of distinct codes; none where there can be no pair."""
    radius = _effective_radius(codes, radius)
    return [] if radius == 0 or len(codes) < 2 else list(tables_of(plan_blocks(len(codes), radius), radius))


def positions(codes: Codes, low: list[Codes], high: list[Codes]) -> Pairs:
    """Pairs of codes, as the tables found them, as pairs of positions in the increasing `codes`, with distances."""
    a, b = np.concatenate([codes[:0], *low]), np.concatenate([codes[:0], *high])
    i, j = np.searchsorted(codes, a), np.searchsorted(codes, b)
    return _sorted(i.astype(np.int64), j.astype(np.int64), np.bitwise_count(a ^ b))


def cross_pairs(left: Codes, right: Codes, radius: int, search: Search | None = None) -> Pairs:
    """Every (i, j) with distance(left[i], right[j]) <= `radius`; the two need not have the same length."""
    checked(left, radius)
    checked(right, radius)
    i, j, distance = hamming_pairs(np.concatenate([left, right]), radius, search)
    across = (i < len(left)) & (j >= len(left))
    return i[across], j[across] - len(left), distance[across]


def plan_blocks(n_codes: int, radius: int) -> int:
    """The number of blocks with the least estimated time for `n_codes` uniform codes."""
    return min(range(radius + 1, radius + 6), key=lambda blocks: _seconds(n_codes, radius, blocks))


def estimate(n_codes: int, radius: int) -> tuple[float, int]:
    """(seconds of one core, tables that every code is sorted into) of a search among so many uniform codes."""
    blocks = plan_blocks(n_codes, radius)
    return _seconds(n_codes, radius, blocks), comb(blocks, radius)


def _seconds(n_codes: int, radius: int, blocks: int) -> float:
    key_bits = _BITS * (blocks - radius) / blocks
    candidates = n_codes**2 / 2 / 2**key_bits
    return comb(blocks, radius) * (n_codes * _SORT_NS + candidates * _CHECK_NS) * 1e-9


def checked(codes: Codes, radius: int) -> Codes:
    """The codes as they are; ValueError for another type or shape, or a radius outside 0..8."""
    if codes.dtype != np.uint64 or codes.ndim != 1:
        raise ValueError(f"codes must be uint64 of shape [N], got {codes.dtype} of shape {list(codes.shape)}")
    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"radius must be 0..{MAX_RADIUS} bits, got {radius}; larger ones merge unrelated pictures")
    return codes


def _effective_radius(codes: Codes, radius: int) -> int:
    """Codes of one parity have even distances only (imagehash.phash: always 32 ones), so an odd radius is one less."""
    parity = np.bitwise_count(codes) & 1
    return radius & ~1 if len(codes) and (parity == parity[0]).all() else radius


@dataclass(frozen=True)
class Table:
    """One choice of blocks that must agree. Masks are uint64 over the bits of a code."""

    radius: int
    order: tuple[tuple[int, int, int], ...]  # (shift down, mask, shift up) of each block: chosen ones to the top
    key_shift: int
    unchosen_before: tuple[int, ...]  # masks of the blocks below the last chosen one that were not chosen

    def near(self, codes: Codes) -> tuple[Codes, Codes]:
        """The pairs of `codes`, lower and higher, that this table is the first to find."""
        found = list(_neighbours(self, codes))
        low = [np.minimum(x, y) for x, y in found]
        high = [np.maximum(x, y) for x, y in found]
        return np.concatenate([codes[:0], *low]), np.concatenate([codes[:0], *high])

    def permute(self, codes: Codes) -> Codes:
        """The codes with the table's blocks on top."""
        return _permute(codes, self)

    def finds_first(self, difference: Codes) -> NDArray[np.bool_]:
        """Whether pairs with these differing bits are found by no earlier table."""
        return _is_first_table(difference, self)

    def part(self, codes: Codes, bits: int) -> NDArray[np.int64]:
        """A number below 2^bits for each code; codes that agree on the table's blocks have the same."""
        return (_permute(codes, self) >> np.uint64(max(self.key_shift, _BITS - bits))).astype(np.int64)


def tables_of(blocks: int, radius: int) -> Iterator[Table]:
    """Every choice of `blocks` - `radius` of so many blocks."""
    bounds = [round(k * _BITS / blocks) for k in range(blocks + 1)]
    spans = list(pairwise(bounds))
    for chosen in combinations(range(blocks), blocks - radius):
        rest = [k for k in range(blocks) if k not in chosen]
        order, top = [], _BITS
        for k in (*chosen, *rest):
            start, end = spans[k]
            top -= end - start
            order.append((start, (1 << (end - start)) - 1, top))
            if k == chosen[-1]:
                key_shift = top
        before = tuple(((1 << (e - s)) - 1) << s for k in rest if k < chosen[-1] for s, e in [spans[k]])
        yield Table(radius, tuple(order), key_shift, before)


def _permute(codes: Codes, table: Table) -> Codes:
    out = np.zeros_like(codes)
    for down, mask, up in table.order:
        out |= ((codes >> np.uint64(down)) & np.uint64(mask)) << np.uint64(up)
    return out


def _restore(permuted: Codes, table: Table) -> Codes:
    out = np.zeros_like(permuted)
    for down, mask, up in table.order:
        out |= ((permuted >> np.uint64(up)) & np.uint64(mask)) << np.uint64(down)
    return out


def _neighbours(table: Table, codes: Codes) -> Iterator[tuple[Codes, Codes]]:
    """Pairs of codes within the radius that agree on the table's blocks, and on no earlier choice of blocks.

    Sorted by the chosen blocks, rows with equal keys are runs. The pair at offset k of a run exists only where the one
    at offset k - 1 did, so the active rows shrink with k and the work is the number of candidates.
    """
    ordered = np.sort(_permute(codes, table))
    key_shift = np.uint64(table.key_shift)
    keys = ordered >> key_shift
    for start in range(0, len(ordered), _CHUNK):
        active = np.arange(start, min(start + _CHUNK, len(ordered)))
        offset = 0
        while len(active):
            offset += 1
            active = active[active + offset < len(ordered)]
            active = active[keys[active] == keys[active + offset]]
            close = active[np.bitwise_count(ordered[active] ^ ordered[active + offset]) <= table.radius]
            if len(close):
                x, y = _restore(ordered[close], table), _restore(ordered[close + offset], table)
                first = _is_first_table(x ^ y, table)
                yield x[first], y[first]


def _is_first_table(difference: Codes, table: Table) -> NDArray[np.bool_]:
    """Whether this is the first choice of blocks on which a pair agrees: all blocks skipped on the way differ."""
    first = np.ones(len(difference), bool)
    for mask in table.unchosen_before:
        first &= (difference & np.uint64(mask)) != 0
    return first


def _expand(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    distance: NDArray[np.uint8],
    members: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> Pairs:
    """Pairs of distinct codes to pairs of rows: every row of the one with every row of the other, i < j."""
    size_a, size_b = starts[a + 1] - starts[a], starts[b + 1] - starts[b]
    repeats = size_a * size_b
    within = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    width = np.repeat(size_b, repeats)
    x = members[np.repeat(starts[a], repeats) + within // width]
    y = members[np.repeat(starts[b], repeats) + within % width]
    d = np.repeat(distance, repeats)
    real = (np.repeat(a != b, repeats)) | (x < y)
    x, y, d = x[real], y[real], d[real]
    return np.minimum(x, y), np.maximum(x, y), d


def _sorted(i: NDArray[np.int64], j: NDArray[np.int64], distance: NDArray[np.uint8]) -> Pairs:
    order = np.lexsort((j, i))
    return i[order], j[order], distance[order]
