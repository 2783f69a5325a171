"""Spherical k-means for few clusters and for very many.

Few clusters are FAISS's own. With many, and more of them the more rows there are, every row against every centroid is
too much: centroids are put into groups, and a row is held against those of the groups nearest to the one it is in
(closure k-means, Wang et al. 2012), so that it costs the same however many there are. It starts as FAISS does, from
rows drawn at random. What the groups miss is measured on a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Unit = NDArray[np.float32]  # [N, D], rows of unit length or zero
_ITERATIONS = 20
_RETRIES, _SMALL = 5, 20_000  # the best of several starts where that is cheap
_SAMPLE_PER_CENTROID = 256  # more rows than this per centroid are not needed to place it (FAISS's own rule)
FLAT = 2048  # up to so many clusters every row is held against every centroid
_PER_GROUP, _LARGEST_GROUP = 128, 2048  # centroids of a group, about and at most
_NEAR_GROUPS = 16
_GROUP_ITERATIONS = 8  # where the borders of groups run matters little
_SETTLING = 2  # rounds in which rows look for their place, and after which centroids are put into groups again
_ALIKE = 1e-6  # cosines that differ by less are one
_BLOCK = 65_536  # rows at a time: bounds memory
_CHECKED = 1024  # rows that are held against all centroids to measure the agreement


@dataclass(frozen=True)
class Clustering:
    """`centroids` float32 [K, D] of unit length, none without members; `member` int64 [N].

    agreement: the share of a sample of rows that have the nearest of all centroids; 1 where all were looked at.
    """

    centroids: Unit
    member: Ints
    agreement: float = 1.0


def kmeans(rows: Unit, k: int, seed: int, iterations: int = _ITERATIONS) -> Clustering:
    """At most `k` clusters of `rows`, the same on every run and for any number of threads."""
    with _one_thread():
        found = _flat(rows, k, seed, iterations) if k <= FLAT else _many(rows, k, seed, iterations)
    used, member = np.unique(found.member, return_inverse=True)
    return Clustering(np.ascontiguousarray(found.centroids[used]), member.astype(np.int64), found.agreement)


def _flat(rows: Unit, k: int, seed: int, iterations: int = _ITERATIONS) -> Clustering:
    import faiss

    trained = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=iterations,
        nredo=_RETRIES if len(rows) <= _SMALL else 1,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLE_PER_CENTROID,
    )
    trained.train(rows)
    centroids = np.asarray(trained.centroids, dtype=np.float32)
    return Clustering(centroids, _nearest(rows, centroids)[:, 0])


@dataclass(frozen=True)
class _Groups:
    centres: Unit  # [G, D]
    of: Ints  # [K], the group of each centroid
    cut: bool  # whether one was too large


def _many(rows: Unit, k: int, seed: int, iterations: int) -> Clustering:
    centroids = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:k])]
    groups = _grouped(centroids, seed)
    member = _placed(rows, centroids, groups)
    for round_ in range(iterations):
        centroids = _means(rows, member, centroids)
        if round_ < _SETTLING:
            centroids = _filled(rows, member, centroids)
        if round_ in (0, _SETTLING):
            groups = _grouped(centroids, seed)
        before = member
        settling = round_ < _SETTLING - 1
        member = _placed(rows, centroids, groups) if settling else _assign(rows, groups.of[member], centroids, groups)
        if np.array_equal(before, member):
            break
    return Clustering(centroids, member, _agreement(rows, member, centroids, seed))


def _grouped(centroids: Unit, seed: int) -> _Groups:
    """Centroids in groups of near ones; a group too large, as of centroids that are all alike, is cut up."""
    found = kmeans(centroids, ceil(len(centroids) / _PER_GROUP), seed, _GROUP_ITERATIONS)
    order = np.argsort(found.member, kind="stable")
    starts = np.searchsorted(found.member[order], np.arange(len(found.centroids)))
    part = np.empty(len(centroids), np.int64)
    part[order] = (np.arange(len(order)) - starts[found.member[order]]) // _LARGEST_GROUP
    cut, of = np.unique(found.member * (len(centroids) + 1) + part, return_inverse=True)
    return _Groups(found.centroids[cut // (len(centroids) + 1)], of, len(cut) > len(found.centroids))


def _placed(rows: Unit, centroids: Unit, groups: _Groups) -> Ints:
    """The nearest centroid of each row among those of the groups nearest to the row itself.

    Dearer than `_assign`, but a row that has no good place yet finds one: started by that, rows settle among strangers.
    """
    import faiss

    if groups.cut:  # an inverted file would put centroids that are alike into one list again
        return _assign(rows, _nearest(rows, groups.centres)[:, 0], centroids, groups)
    quantizer = faiss.IndexFlatIP(rows.shape[1])
    quantizer.add(groups.centres)
    index = faiss.IndexIVFFlat(quantizer, rows.shape[1], len(groups.centres), faiss.METRIC_INNER_PRODUCT)
    index.train(centroids[:1])  # the quantizer is trained
    index.add(centroids)
    index.nprobe = min(_NEAR_GROUPS, len(groups.centres))
    return np.asarray(index.search(rows, 1)[1][:, 0], dtype=np.int64)


def _assign(rows: Unit, place: Ints, centroids: Unit, groups: _Groups) -> Ints:
    """The nearest centroid of each row among those of the groups nearest to its `place`, the group where it is."""
    near = _nearest(groups.centres, groups.centres, min(_NEAR_GROUPS, len(groups.centres)))
    held, asking = (_by(label, len(near)) for label in (groups.of, place))
    member = np.zeros(len(rows), np.int64)
    for group, own in enumerate(asking):
        if len(own):
            candidates = np.concatenate([held[group], *(held[other] for other in near[group] if other != group)])
            member[own] = candidates[_nearest(rows[own], centroids[candidates])[:, 0]]
    return member


def _filled(rows: Unit, member: Ints, centroids: Unit) -> Unit:
    """Centroids without rows moved to the rows that are furthest from theirs, as far as there are such rows."""
    empty = np.flatnonzero(np.bincount(member, minlength=len(centroids)) == 0)
    if not len(empty):
        return centroids
    distance = np.concatenate(
        [
            1 - np.einsum("nd,nd->n", rows[start : start + _BLOCK], centroids[member[start : start + _BLOCK]])
            for start in range(0, len(rows), _BLOCK)
        ]
    )
    far = np.argsort(-distance, kind="stable")[: len(empty)]
    far = far[distance[far] > _ALIKE]
    out = centroids.copy()
    out[empty[: len(far)]] = rows[far]
    return out


def _means(rows: Unit, member: Ints, centroids: Unit) -> Unit:
    """The mean of each cluster's rows, of unit length; a cluster without rows stays where it is."""
    from scipy.sparse import csr_matrix

    n, k = len(rows), len(centroids)
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], np.arange(k + 1))
    sums = csr_matrix((np.ones(n, np.float32), order, starts), shape=(k, n)) @ rows
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centroids).astype(np.float32)


def _agreement(rows: Unit, member: Ints, centroids: Unit, seed: int) -> float:
    sample = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_CHECKED])
    best = centroids[_nearest(rows[sample], centroids)[:, 0]]
    found = centroids[member[sample]]
    return float(((rows[sample] * (best - found)).sum(axis=1) <= _ALIKE).mean())


def _by(label: Ints, n: int) -> list[Ints]:
    """The positions of each label 0..n - 1, rising."""
    order = np.argsort(label, kind="stable")
    return np.split(order, np.searchsorted(label[order], np.arange(1, n)))


def _nearest(rows: Unit, centroids: Unit, k: int = 1) -> Ints:
    """The `k` centroids with the largest inner product, best first: int64 [N, k]."""
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(centroids)
    return np.asarray(index.search(rows, k)[1], dtype=np.int64)


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
