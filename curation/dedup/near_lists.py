"""The nearest neighbours of rows among the rows of the cells they look into, the same however the work is cut.

Cosines are found in float32, cell by cell, and what is near is computed again in float64 and rounded: so the list of a
row depends on the rows alone, not on blocks or threads, and lists of old and new rows can be joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from curation.dedup import near_on_gpu
from curation.dedup.features import SLACK, pair_cosines

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Unit = NDArray[np.float32]
_TILE = 2048  # rows a side of the cosines that are held at a time: bounds memory, and the rows stay in the cache
_CROWD = 64  # neighbours in one cell above which a row's are thinned before they are computed again


@dataclass(frozen=True)
class Lists:
    """Directed: `near` is among the nearest of `row`, at `cosine`. Sorted by row, then best first, ties by index."""

    row: Ints
    near: Ints
    cosine: Floats

    def pairs(self, n: int) -> Ints:
        """Each pair i < j once, int64 [E, 2], where one is in the list of the other."""
        keys = np.unique(np.minimum(self.row, self.near) * n + np.maximum(self.row, self.near))
        return np.stack(np.divmod(keys, max(n, 1)), axis=1).astype(np.int64)

    def lengths(self, n: int) -> Ints:
        """How many neighbours each of `n` rows has."""
        return np.bincount(self.row, minlength=n).astype(np.int64)

    def where(self, chosen: NDArray[np.bool_]) -> Lists:
        """The chosen entries."""
        return Lists(self.row[chosen], self.near[chosen], self.cosine[chosen])


def joined(parts: list[Lists], k: int) -> Lists:
    """The best `k` of each row over all parts, which share no entry."""
    none = np.zeros(0, np.int64)
    row = np.concatenate([none, *(part.row for part in parts)])
    near = np.concatenate([none, *(part.near for part in parts)])
    cosine = np.concatenate([np.zeros(0), *(part.cosine for part in parts)])
    order = np.lexsort((near, -cosine, row))
    row, near, cosine = row[order], near[order], cosine[order]
    starts = np.searchsorted(row, row, "left")
    best = np.arange(len(row)) - starts < k
    return Lists(row[best], near[best], cosine[best])


def look(
    unit: Unit, places: Ints, queries: Ints, members: Ints, k: int, threshold: float, *, first: int = 0
) -> tuple[Lists, int]:
    """(lists, comparisons): of each query its `k` nearest members with a cosine of `threshold`, itself left out.

    unit float32 [N, D]; queries and members are rows of it. places int64 [N, P]: the cells a row looks into, the first
    of which is the cell it lies in. first: how many of them a query leaves out, as it has been there.
    """
    asking = np.repeat(queries, places.shape[1] - first)
    cells = places[queries, first:].ravel()
    by_cell = np.argsort(cells, kind="stable")
    asking, cells = asking[by_cell], cells[by_cell]
    lying = members[np.argsort(places[members, 0], kind="stable")]
    of = places[lying, 0]
    parts, work = [], 0
    for cell in np.unique(of).tolist():
        rows = asking[np.searchsorted(cells, cell, "left") : np.searchsorted(cells, cell, "right")]
        others = lying[np.searchsorted(of, cell, "left") : np.searchsorted(of, cell, "right")]
        work += len(rows) * len(others)
        for row, near in _candidates(unit, rows, others, k, threshold):
            cosine = pair_cosines(unit, row, near)
            close = cosine >= threshold
            parts.append(joined([Lists(row[close], near[close], cosine[close])], k))
    return joined(parts, k), work


def _candidates(unit: Unit, rows: Ints, others: Ints, k: int, threshold: float) -> Iterator[tuple[Ints, Ints]]:
    """As `_near`, on a GPU where there is one and enough to do for it."""
    if len(rows) * len(others) < near_on_gpu.WORTH or not near_on_gpu.usable():
        yield from _near(unit, rows, others, k, threshold)
        return
    for row, near, crowded, shard in near_on_gpu.search(unit, rows, others, _limit(k), threshold - SLACK):
        yield row, near
        yield from _near(unit, crowded, shard, k, threshold)


def _limit(k: int) -> int:
    return max(_CROWD, 4 * k)


def _near(unit: Unit, rows: Ints, others: Ints, k: int, threshold: float) -> Iterator[tuple[Ints, Ints]]:
    """(row, near) of every pair that may reach the threshold, block by block; of crowded rows their best."""
    limit = _limit(k)
    for first, start in product(range(0, len(others), _TILE), range(0, len(rows), _TILE)):
        there, here = others[first : first + _TILE], rows[start : start + _TILE]
        cosine = unit[here] @ unit[there].T
        # Of a flat array nonzero is twenty times as fast: hardly any pair is near.
        at, column = np.divmod(np.flatnonzero(cosine.ravel() >= threshold - SLACK), len(there))
        apart = here[at] != there[column]
        at, column = at[apart], column[apart]
        if (np.bincount(at, minlength=len(here)) > limit).any():
            # Ten thousand blank pictures: float32 noise must not choose, so equal to five digits goes by index.
            order = np.lexsort((there[column], -np.round(cosine[at, column], 5), at))
            at, column = at[order], column[order]
            few = np.arange(len(at)) - np.searchsorted(at, at, "left") < limit
            at, column = at[few], column[few]
        yield here[at], there[column]
