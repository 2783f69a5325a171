"""Spherical k-means for few clusters and for very many.

Few clusters are FAISS's own. With many, and more of them the more rows there are, every row against every centroid is
too much: centroids are put into groups, and a row is held against those of the groups nearest to the one it is in
(closure k-means, Wang et al. 2012), so that it costs the same however many there are. It starts as FAISS does, from
rows drawn at random. What the groups miss is measured on a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from curation.balance.groups import Groups, Ints, Unit, by_label, cut, nearest, nearest_in_groups, one_thread

_ITERATIONS = 20
_RETRIES, _SMALL = 5, 20_000  # the best of several starts where that is cheap
_SAMPLE_PER_CENTROID = 256  # more rows than this per centroid are not needed to place it (FAISS's own rule)
FLAT = 2048  # up to so many clusters every row is held against every centroid
_PER_GROUP = 128  # centroids of a group, about
_NEAR_GROUPS = 16
_GROUP_ITERATIONS, _GROUP_SAMPLE = 8, 64  # where the borders of groups run matters little
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


def kmeans(
    rows: Unit,
    k: int,
    seed: int,
    iterations: int = _ITERATIONS,
    *,
    retries: int = _RETRIES,
    sample: int = _SAMPLE_PER_CENTROID,
) -> Clustering:
    """At most `k` clusters of `rows`, the same on every run and for any number of threads.

    retries, sample: how many starts few rows get, and how many rows for each centroid, where clusters are few.
    """
    with one_thread():
        found = _flat(rows, k, seed, iterations, retries, sample) if k <= FLAT else _many(rows, k, seed, iterations)
    used, member = np.unique(found.member, return_inverse=True)
    return Clustering(np.ascontiguousarray(found.centroids[used]), member.astype(np.int64), found.agreement)


def _flat(
    rows: Unit,
    k: int,
    seed: int,
    iterations: int = _ITERATIONS,
    retries: int = _RETRIES,
    sample: int = _SAMPLE_PER_CENTROID,
) -> Clustering:
    import faiss

    trained = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=iterations,
        nredo=retries if len(rows) <= _SMALL else 1,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=sample,
    )
    trained.train(rows)
    centroids = np.asarray(trained.centroids, dtype=np.float32)
    return Clustering(centroids, nearest(rows, centroids)[:, 0])


def _many(rows: Unit, k: int, seed: int, iterations: int) -> Clustering:
    centroids = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:k])]
    groups = grouped(centroids, _PER_GROUP, seed)
    member = nearest_in_groups(rows, centroids, groups, _NEAR_GROUPS)[:, 0]
    for round_ in range(iterations):
        centroids = _means(rows, member, centroids)
        if round_ < _SETTLING:
            centroids = _filled(rows, member, centroids)
        if round_ in (0, _SETTLING):
            groups = grouped(centroids, _PER_GROUP, seed)
        before = member
        settling = round_ < _SETTLING - 1
        if settling:
            member = nearest_in_groups(rows, centroids, groups, _NEAR_GROUPS)[:, 0]
        else:
            member = _assign(rows, groups.of[member], centroids, groups)
        if np.array_equal(before, member):
            break
    return Clustering(centroids, member, _agreement(rows, member, centroids, seed))


def grouped(centroids: Unit, per_group: int, seed: int) -> Groups:
    """Centroids in groups of about `per_group` near ones."""
    found = kmeans(
        centroids, ceil(len(centroids) / per_group), seed, _GROUP_ITERATIONS, retries=1, sample=_GROUP_SAMPLE
    )
    return cut(found.centroids, found.member)


def _assign(rows: Unit, place: Ints, centroids: Unit, groups: Groups) -> Ints:
    """The nearest centroid of each row among those of the groups nearest to its `place`, the group where it is.

    Cheaper than `nearest_in_groups`, but a row that has no good place yet finds none: started by this, rows settle
    among strangers.
    """
    near = nearest(groups.centres, groups.centres, min(_NEAR_GROUPS, len(groups.centres)))
    member = np.zeros(len(rows), np.int64)
    for group, own in enumerate(by_label(place, len(near))):
        if len(own):
            others = (groups.held[other] for other in near[group] if other != group)
            candidates = np.concatenate([groups.held[group], *others])
            member[own] = candidates[nearest(rows[own], centroids[candidates])[:, 0]]
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
    best = centroids[nearest(rows[sample], centroids)[:, 0]]
    found = centroids[member[sample]]
    return float(((rows[sample] * (best - found)).sum(axis=1) <= _ALIKE).mean())
