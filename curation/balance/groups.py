"""The nearest of very many centroids, without holding every row against every centroid.

Centroids are put into groups of near ones, and a row is held against those of the groups nearest to it (closure
k-means, Wang et al. 2012). Rows that ask a group are multiplied with it as one matrix: one row after another reads the
group from memory each time, and takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Unit = NDArray[np.float32]  # [N, D], rows of unit length or zero
_LARGEST = 2048  # centroids of a group
_BLOCK = 262_144  # rows at a time, and
_HELD = 1 << 23  # centroids that were found for them: bounds memory
_ASKING = 512  # of them that ask a group, about: enough for a matrix product, and the rows stay in the cache


@dataclass(frozen=True)
class Groups:
    """`centres` [G, D], and `held`, the centroids of each group; together they are all centroids, each once."""

    centres: Unit
    held: list[Ints]

    @property
    def of(self) -> Ints:
        """The group of each centroid, int64 [K]."""
        label = np.empty(sum(map(len, self.held)), np.int64)
        for group, members in enumerate(self.held):
            label[members] = group
        return label


def cut(centres: Unit, member: Ints) -> Groups:
    """Groups of the clusters of centroids; one too large, as of centroids that are all alike, is cut up."""
    held, kept = [], []
    for group, members in enumerate(by_label(member, len(centres))):
        for start in range(0, len(members), _LARGEST):
            held.append(members[start : start + _LARGEST])
            kept.append(group)
    return Groups(np.ascontiguousarray(centres[kept]), held)


def nearest(rows: Unit, centroids: Unit, k: int = 1) -> Ints:
    """The `k` centroids with the largest inner product, best first: int64 [N, k]."""
    index = _index(centroids)
    blocks = [index.search(rows[s : s + _BLOCK], k)[1] for s in range(0, len(rows), _BLOCK)]
    return np.concatenate([np.zeros((0, k), np.int64), *blocks]).astype(np.int64)


def nearest_in_groups(rows: Unit, centroids: Unit, groups: Groups, near: int, k: int = 1) -> Ints:
    """The `k` nearest centroids of each row, best first, among those of the `near` groups nearest to it: [N, k].

    More groups are asked where so few might not hold `k` centroids. Among the best, the first of
    equals comes first.
    """
    found = np.empty((len(rows), k), np.int64)
    indices = [_index(centroids[members]) for members in groups.held]
    near = min(_enough(groups, near, k), len(groups.held))
    size = max(1, min(_BLOCK, _ASKING * len(groups.held) // near, _HELD // (near * k)))
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        found[start : start + size] = _best(block, groups, indices, nearest(block, groups.centres, near), k)
    return found


def _enough(groups: Groups, near: int, k: int) -> int:
    """How many groups always hold `k` centroids."""
    return max(near, int(np.searchsorted(np.cumsum(sorted(map(len, groups.held))), k)) + 1)


def _best(block: Unit, groups: Groups, indices: list[Any], asked: Ints, k: int) -> Ints:
    """Of each row of the block the best `k` of the groups that it asks."""
    n, near = asked.shape
    value = np.full((n, near, k), -np.inf, np.float32)
    which = np.full((n, near, k), np.iinfo(np.int64).max)
    order = np.argsort(asked.ravel(), kind="stable")
    ends = np.searchsorted(asked.ravel()[order], np.arange(len(indices) + 1))
    for group, members in enumerate(groups.held):
        row, turn = np.divmod(order[ends[group] : ends[group + 1]], near)
        if len(row):
            few = min(k, len(members))
            value[row, turn, :few], at = indices[group].search(block[row], few)
            which[row, turn, :few] = members[at]
    values, names = value.reshape(n, -1), which.reshape(n, -1)
    if k == 1:
        names[values < values.max(axis=1, keepdims=True)] = np.iinfo(np.int64).max
        return names.min(axis=1, keepdims=True)
    best: Ints = np.argpartition(-values, k - 1, axis=1)[:, :k]
    values, names = np.take_along_axis(values, best, axis=1), np.take_along_axis(names, best, axis=1)
    return np.take_along_axis(names, np.lexsort((names, -values), axis=1), axis=1)


def by_label(label: Ints, n: int) -> list[Ints]:
    """The positions of each label 0..n - 1, rising."""
    order = np.argsort(label, kind="stable")
    return np.split(order, np.searchsorted(label[order], np.arange(1, n)))


def _index(centroids: Unit) -> Any:
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids))
    return index


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS on one thread: sums of several threads depend on how many there are."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
