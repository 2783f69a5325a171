"""k-means of very many clusters: about as tight as of few, the same for any number of threads, always at an end."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from curation.balance import kmeans as module
from curation.balance.kmeans import FLAT, kmeans


def scattered(n: int, dim: int = 16, centres: int = 300, noise: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((centres, dim))[rng.integers(0, centres, n)] + noise * rng.standard_normal((n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def inertia(x: np.ndarray, found: module.Clustering) -> float:
    return float((1 - (x * found.centroids[found.member]).sum(axis=1)).sum())


def test_many_clusters_are_as_tight_as_when_every_row_meets_every_centroid() -> None:
    x, k = scattered(9000), FLAT + 252
    found = kmeans(x, k, seed=0)
    flat = module._flat(x, k, seed=0)
    assert 0.97 * k <= len(found.centroids) <= k
    assert set(found.member.tolist()) == set(range(len(found.centroids))), "no cluster is empty"
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-4)
    assert inertia(x, found) <= 1.01 * inertia(x, flat)
    best = (x @ found.centroids.T).max(axis=1)
    nearest = (x * found.centroids[found.member]).sum(axis=1) >= best - 1e-5
    assert nearest.mean() >= 0.95
    assert found.agreement == pytest.approx(nearest.mean(), abs=0.03)


def test_threads_do_not_change_it() -> None:
    x, before = scattered(5000), faiss.omp_get_max_threads()
    made = []
    try:
        for threads in (1, 2, 4):
            faiss.omp_set_num_threads(threads)
            made.append(kmeans(x, FLAT + 100, seed=3))
    finally:
        faiss.omp_set_num_threads(before)
    for other in made[1:]:
        np.testing.assert_array_equal(made[0].member, other.member)
        np.testing.assert_array_equal(made[0].centroids, other.centroids)


def test_rows_that_are_all_alike_are_one_cluster() -> None:
    x = np.zeros((6000, 4), np.float32)
    x[:, 0] = 1
    found = kmeans(x, 5000, seed=0)
    assert len(found.centroids) == 1 and found.agreement == 1


def test_a_crowd_in_one_place_keeps_the_rest_apart() -> None:
    x = scattered(9000)
    x[:6000] = x[0]
    found = kmeans(x, FLAT + 500, seed=0)
    assert len(set(found.member[:6000].tolist())) == 1
    assert len(found.centroids) > 0.5 * FLAT
