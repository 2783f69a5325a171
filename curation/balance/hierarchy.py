"""Hierarchical k-means: clusters of pictures, clusters of clusters, ... (Vo et al. 2024, Automatic Data Curation).

Flat k-means puts centroids where the pictures are, so sampling it evenly still favours the crowded. Clustering the
centroids again flattens them level by level. Spherical (rows and centroids of unit length) and reproducible: a fixed
seed, one thread, the same tree on every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_ITERATIONS = 20
_RETRIES, _SMALL = 5, 20_000  # the best of several starts where that is cheap
_SAMPLE_PER_CENTROID = 256  # more rows than this per centroid are not needed to place it (FAISS's own rule)


@dataclass(frozen=True)
class Tree:
    """Levels from the leaves up. `parents[l][k]` is the cluster of level l + 1 that holds cluster k of level l."""

    centroids: list[NDArray[np.float32]]  # [K_l, D], of unit length
    parents: list[Ints]  # [K_l], one list less than there are levels
    leaf: Ints  # [N]
    distance: NDArray[np.float32]  # [N], 1 - cosine to the leaf's centroid

    @property
    def sizes(self) -> list[int]:
        """Clusters per level, leaves first."""
        return [len(level) for level in self.centroids]

    def paths(self) -> Ints:
        """int64 [N, levels]: the cluster of each row at each level, leaf first."""
        columns = [self.leaf]
        for parent in self.parents:
            columns.append(parent[columns[-1]])
        return np.stack(columns, axis=1)


def hierarchical_kmeans(x: NDArray[np.float32], sizes: Sequence[int], *, seed: int) -> Tree:
    """A tree with at most `sizes` clusters per level, leaves first, from float32 rows [N, D].

    Rows are scaled to unit length, rows of zeros stay zero. A level never has more clusters than the level below has
    members, so few rows give a small tree. Raises ValueError for a shape other than [N, D], numbers that are not
    finite, or sizes that are not falling.
    """
    rows = _unit(_checked(x, sizes))
    if len(rows) == 0:
        return Tree([], [], np.zeros(0, np.int64), np.zeros(0, np.float32))
    centroids: list[NDArray[np.float32]] = []
    members: list[Ints] = []
    level = rows
    for depth, size in enumerate(sizes):
        found, member = _kmeans(level, min(size, len(level)), seed + depth)
        centroids.append(found)
        members.append(member)
        level = found
    leaf = members[0]
    cosine = (rows.astype(np.float64) * centroids[0][leaf]).sum(axis=1)
    return Tree(centroids, members[1:], leaf, (1 - cosine).round(6).astype(np.float32))


def level_sizes(n: int, branching: int, top: int, levels: int) -> list[int]:
    """Clusters per level for `n` rows: each level `branching` times smaller than the one below, down to `top`."""
    sizes: list[int] = []
    size = n
    while len(sizes) < levels:
        size = max(1, round(size / branching))
        sizes.append(size)
        if size <= top:
            break
    return sizes


def _checked(x: NDArray[np.float32], sizes: Sequence[int]) -> NDArray[np.float32]:
    if x.ndim != 2:
        raise ValueError(f"rows must have the shape [N, D], got {list(x.shape)}")
    if not sizes or min(sizes) < 1 or list(sizes) != sorted(sizes, reverse=True):
        raise ValueError(f"sizes must be positive and fall from the leaves to the root, got {list(sizes)}")
    if not np.isfinite(x).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(x).all(axis=1)))} holds numbers that are not finite")
    return x


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return np.ascontiguousarray(x / np.maximum(lengths, 1e-12), dtype=np.float32)


def _kmeans(rows: NDArray[np.float32], k: int, seed: int) -> tuple[NDArray[np.float32], Ints]:
    """(centroids [K, D], member [N]) with K <= k: centroids without members are left out."""
    import faiss

    with _one_thread():
        trained = faiss.Kmeans(
            rows.shape[1],
            k,
            niter=_ITERATIONS,
            nredo=_RETRIES if len(rows) <= _SMALL else 1,
            seed=seed,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=_SAMPLE_PER_CENTROID,
        )
        trained.train(rows)
        centroids = np.asarray(trained.centroids, dtype=np.float32)
        member = _nearest(rows, centroids)
    used, member = np.unique(member, return_inverse=True)
    return np.ascontiguousarray(centroids[used]), member.astype(np.int64)


def _nearest(rows: NDArray[np.float32], centroids: NDArray[np.float32]) -> Ints:
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(centroids)
    return np.asarray(index.search(rows, 1)[1][:, 0], dtype=np.int64)


@contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS on one thread: sums of several threads depend on how many there are."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
