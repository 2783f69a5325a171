"""Hierarchical k-means: it finds planted groups, nests, repeats itself, and copes with few rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from curation.balance import hierarchical_kmeans
from curation.balance.hierarchy import level_sizes


def planted(n_groups: int = 12, per_group: int = 40, noise: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((n_groups, 24))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    label = np.repeat(np.arange(n_groups), per_group)
    return (centres[label] + noise * rng.standard_normal((len(label), 24)) / 24**0.5).astype(np.float32), label


def test_planted_groups_are_kept_together() -> None:
    x, label = planted()
    tree = hierarchical_kmeans(x, [60, 12], seed=0)
    assert tree.sizes == [60, 12]
    assert adjusted_rand_score(label, tree.paths()[:, 1]) > 0.8


def test_levels_nest_and_rows_go_to_the_nearest_leaf() -> None:
    x, _ = planted()
    tree = hierarchical_kmeans(x, [40, 8, 2], seed=1)
    paths = tree.paths()
    assert paths.shape == (len(x), 3)
    for level in range(2):
        assert (tree.parents[level][paths[:, level]] == paths[:, level + 1]).all()
        assert set(paths[:, level].tolist()) == set(range(tree.sizes[level])), "no cluster is empty"
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ tree.centroids[0].T
    np.testing.assert_allclose(1 - cosine.max(axis=1), tree.distance, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(tree.centroids[0], axis=1), 1, atol=1e-4)


def test_inertia_is_that_of_another_implementation() -> None:
    x, _ = planted(30, 60, 0.8)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    ours = hierarchical_kmeans(x, [30], seed=0).distance.sum()
    other = KMeans(30, n_init=1, random_state=0).fit(unit)
    centres = other.cluster_centers_ / np.linalg.norm(other.cluster_centers_, axis=1, keepdims=True)
    assert ours < (1 - (unit @ centres.T).max(axis=1)).sum() * 1.1


def test_the_same_seed_gives_the_same_tree() -> None:
    x, _ = planted()
    first, again = hierarchical_kmeans(x, [50, 5], seed=3), hierarchical_kmeans(x, [50, 5], seed=3)
    np.testing.assert_array_equal(first.paths(), again.paths())
    for a, b in zip(first.centroids, again.centroids, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_rows_give_a_small_tree(n: int) -> None:
    tree = hierarchical_kmeans(planted()[0][:n], [8, 4], seed=0)
    assert all(size <= max(n, 1) for size in tree.sizes)
    assert len(tree.leaf) == n


def test_identical_and_empty_rows_share_clusters() -> None:
    x = np.zeros((20, 4), np.float32)
    x[:10, 0] = 1
    tree = hierarchical_kmeans(x, [6, 2], seed=0)
    assert len(set(tree.leaf[:10].tolist())) == 1
    np.testing.assert_allclose(tree.distance[:10], 0, atol=1e-6)
    np.testing.assert_allclose(tree.distance[10:], 1, atol=1e-6)


@pytest.mark.parametrize("sizes", [[40, 8], [40, 8, 1], [2, 2], [1]])
def test_rows_of_zeros_share_a_cluster_of_their_own(sizes: list[int]) -> None:
    x, _ = planted()
    x[::7] = 0
    tree = hierarchical_kmeans(x, sizes, seed=0)
    paths, absent = tree.paths(), ~x.any(axis=1)
    assert all(found <= size for found, size in zip(tree.sizes, sizes, strict=True))
    for level, size in enumerate(sizes):
        without, others = set(paths[absent, level].tolist()), set(paths[~absent, level].tolist())
        assert len(without) == 1 and without.isdisjoint(others) == (size > 1)
        assert without | others == set(range(tree.sizes[level]))
    for level, parent in enumerate(tree.parents):
        assert (parent[paths[:, level]] == paths[:, level + 1]).all()
    np.testing.assert_array_equal(tree.distance[absent], 1)
    assert tree.distance[~absent].max() < 1 or sizes[0] < 40


def test_level_sizes_follow_the_rows() -> None:
    assert level_sizes(1000, 4, 4, 3) == [250, 62, 16]
    assert level_sizes(20, 4, 4, 3) == [5, 1]
    assert level_sizes(1, 4, 4, 3) == [1]


def test_bad_input_is_refused() -> None:
    x = planted()[0]
    with pytest.raises(ValueError, match="fall from the leaves"):
        hierarchical_kmeans(x, [4, 8], seed=0)
    with pytest.raises(ValueError, match=r"shape \[N, D\]"):
        hierarchical_kmeans(x[0], [4], seed=0)
    x[3, 1] = np.inf
    with pytest.raises(ValueError, match="row 3"):
        hierarchical_kmeans(x, [4], seed=0)
