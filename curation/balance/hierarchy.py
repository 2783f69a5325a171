"""Hierarchical k-means: clusters of pictures, clusters of clusters, ... (Vo et al. 2024, Automatic Data Curation).

Flat k-means puts centroids where the pictures are, so sampling it evenly still favours the crowded. Clustering the
centroids again flattens them level by level. Spherical (rows and centroids of unit length) and reproducible: a fixed
seed, one thread, the same tree on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.balance.groups import nearest, nearest_in_groups, one_thread
from curation.balance.kmeans import FLAT, grouped, kmeans

Ints = NDArray[np.int64]
_PER_GROUP, _NEAR_GROUPS = 128, 16  # leaves of a group, about; groups that a row asks
_BLOCK = 65_536  # rows in float64 at a time: bounds memory


@dataclass(frozen=True)
class Tree:
    """Levels from the leaves up. `parents[l][k]` is the cluster of level l + 1 that holds cluster k of level l."""

    centroids: list[NDArray[np.float32]]  # [K_l, D], of unit length
    parents: list[Ints]  # [K_l], one list less than there are levels
    leaf: Ints  # [N]
    distance: NDArray[np.float32]  # [N], 1 - cosine to the leaf's centroid
    agreement: float = 1.0  # share of a sample of rows that have the nearest of all leaves

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

    Rows are scaled to unit length. Rows of zeros have no direction: they share one cluster of their own, at distance 1,
    on every level of more than one. A level never has more clusters than the level below has members, so few rows give
    a small tree. Raises ValueError for a shape other than [N, D], numbers that are not finite, or sizes that are not
    falling.
    """
    rows = _unit(_checked(x, sizes))
    if len(rows) == 0:
        return Tree([], [], np.zeros(0, np.int64), np.zeros(0, np.float32))
    present: NDArray[np.bool_] = np.asarray(rows.any(axis=1))
    if present.all() or not present.any():
        return _grown(rows, sizes, seed)
    return _with_absent(_grown(rows[present], [max(1, size - 1) for size in sizes], seed), present, sizes)


def _grown(rows: NDArray[np.float32], sizes: Sequence[int], seed: int) -> Tree:
    centroids: list[NDArray[np.float32]] = []
    members: list[Ints] = []
    level, agreement = rows, 1.0
    for depth, size in enumerate(sizes):
        found = kmeans(level, min(size, len(level)), seed + depth)
        agreement = found.agreement if depth == 0 else agreement
        centroids.append(found.centroids)
        members.append(found.member)
        level = found.centroids
    distance = (1 - _cosines(rows, centroids[0], members[0])).round(6).astype(np.float32)
    return Tree(centroids, members[1:], members[0], distance, agreement)


def assigned(x: NDArray[np.float32], centroids: list[NDArray[np.float32]], parents: list[Ints]) -> Tree:
    """The places of rows float32 [N, D] in a tree that is there: each in its nearest leaf, centroids as they are.

    Rows of zeros go to the leaf of zeros, or where the tree has none to leaf 0, at distance 1. Raises ValueError for
    rows of another width than the tree's.
    """
    if not centroids or x.ndim != 2 or x.shape[1] != centroids[0].shape[1]:
        wide = centroids[0].shape[1] if centroids else "no"
        raise ValueError(
            f"the tree has centroids of {wide} numbers, the embeddings {list(x.shape)[1:]}: use its embedding"
        )
    rows, leaves = _unit(_checked(x, [1])), centroids[0]
    present, nothing = rows.any(axis=1), np.flatnonzero(~leaves.any(axis=1))
    leaf = np.full(len(rows), nothing[0] if len(nothing) else 0)
    distance = np.ones(len(rows), np.float32)
    some = np.flatnonzero(leaves.any(axis=1))
    if present.any() and len(some):
        leaf[present] = some[_nearest_leaf(rows[present], np.ascontiguousarray(leaves[some]))]
        distance[present] = (1 - _cosines(rows[present], leaves, leaf[present])).round(6).astype(np.float32)
    return Tree(centroids, parents, leaf, distance)


def _nearest_leaf(rows: NDArray[np.float32], leaves: NDArray[np.float32]) -> Ints:
    with one_thread():
        if len(leaves) <= FLAT:
            return nearest(rows, leaves)[:, 0]
        return nearest_in_groups(rows, leaves, grouped(leaves, _PER_GROUP, 0), _NEAR_GROUPS)[:, 0]


def _with_absent(tree: Tree, present: NDArray[np.bool_], sizes: Sequence[int]) -> Tree:
    """The tree of the rows that are present, and for the others a cluster of zeros on every level of more than one."""
    own = [size > 1 for size in sizes]
    place = [len(level) if apart else 0 for level, apart in zip(tree.centroids, own, strict=True)]
    nothing = np.zeros((1, tree.centroids[0].shape[1]), np.float32)
    centroids = [np.concatenate([c, nothing]) if apart else c for c, apart in zip(tree.centroids, own, strict=True)]
    parents = [
        np.append(parent, place[level + 1]) if own[level] else parent for level, parent in enumerate(tree.parents)
    ]
    leaf = np.full(len(present), place[0])
    distance = np.ones(len(present), np.float32)
    leaf[present], distance[present] = tree.leaf, tree.distance
    return Tree(centroids, parents, leaf, distance, tree.agreement)


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
    out = np.empty(x.shape, np.float32)
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        lengths = np.linalg.norm(block.astype(np.float64), axis=1, keepdims=True)
        out[start : start + _BLOCK] = block / np.maximum(lengths, 1e-12)
    return out


def _cosines(rows: NDArray[np.float32], centroids: NDArray[np.float32], leaf: Ints) -> NDArray[np.float64]:
    out = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        out[block] = (rows[block].astype(np.float64) * centroids[leaf[block]]).sum(axis=1)
    return out
