"""Which pictures a person labels: as many from every band, drawn by a key, so that a sample can be made again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stratum:
    """A band of the pool: its name, how many pictures it has, and which were drawn (rows of the pool)."""

    name: str
    population: int
    rows: tuple[int, ...]
    low: float | None = None  # bands of a score hold low <= value < high; null without an end
    high: float | None = None


def band_edges(values: NDArray[np.float64], count: int) -> list[float]:
    """Inner edges [<= count - 1] of bands that hold about equally many values; ties never part. NaN is left out."""
    known = np.sort(values[~np.isnan(values)])
    inner = known[[len(known) * i // count for i in range(1, count)]] if len(known) else known
    return [float(edge) for edge in np.unique(inner) if edge > known[0]]


def by_score(ids: Sequence[str], values: NDArray[np.float64], labels: int, bands: int, seed: int) -> list[Stratum]:
    """`labels` pictures over bands of a score. Raises ValueError when nothing was measured."""
    edges = band_edges(values, bands)
    if np.isnan(values).all():
        raise ValueError("the score was measured on no picture; choose a rule whose column is there")
    limits: list[float | None] = [None, *edges, None]
    number = np.searchsorted(np.array(edges), values, side="right")
    groups = []
    for index, (low, high) in enumerate(pairwise(limits)):
        rows = np.flatnonzero((number == index) & ~np.isnan(values)).tolist()
        groups.append(Stratum(_name(low, high), len(rows), tuple(rows), low, high))
    return _drawn(ids, groups, labels, seed)


def by_name(ids: Sequence[str], names: Sequence[str], labels: int, seed: int) -> list[Stratum]:
    """`labels` pictures over the values of an attribute, in order of the names."""
    groups = []
    for name in sorted(set(names)):
        rows = tuple(row for row, own in enumerate(names) if own == name)
        groups.append(Stratum(name, len(rows), rows))
    return _drawn(ids, groups, labels, seed)


def _drawn(ids: Sequence[str], groups: list[Stratum], labels: int, seed: int) -> list[Stratum]:
    """Each group with its share of the labels: equal shares, what a small group cannot use goes to the others."""
    quota, left, open_groups = [0] * len(groups), labels, [i for i, g in enumerate(groups) if g.population]
    while left and open_groups:
        share = max(1, left // len(open_groups))
        for i in list(open_groups):
            take = min(share, groups[i].population - quota[i], left)
            quota[i] += take
            left -= take
            if quota[i] == groups[i].population:
                open_groups.remove(i)
    drawn = []
    for group, count in zip(groups, quota, strict=True):
        ordered = sorted(group.rows, key=lambda row: hashlib.sha256(f"{seed}/audit/{ids[row]}".encode()).digest())
        drawn.append(Stratum(group.name, group.population, tuple(ordered[:count]), group.low, group.high))
    return drawn


def _name(low: float | None, high: float | None) -> str:
    if low is None:
        return "all" if high is None else f"< {high:.4g}"
    return f">= {low:.4g}" if high is None else f"{low:.4g} .. {high:.4g}"
