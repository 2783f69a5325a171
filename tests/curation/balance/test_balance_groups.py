"""The nearest centroids by groups, held against every row times every centroid."""

from __future__ import annotations

import numpy as np
import pytest

from curation.balance import groups as module
from curation.balance.groups import Groups, by_label, cut, nearest, nearest_in_groups
from curation.balance.kmeans import grouped


def unit(n: int, dim: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(9).standard_normal((30, dim))
    x = 2 * centre[rng.integers(0, 30, n)] + rng.standard_normal((n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def best(rows: np.ndarray, centroids: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(rows.astype(np.float64) @ centroids.T.astype(np.float64)), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("k", [1, 3])
def test_all_groups_asked_is_every_centroid(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HELD", 400)  # many blocks, the last of them not full
    rows, centroids = unit(331), unit(90, seed=1)
    groups = grouped(centroids, 9, seed=0)
    assert len(groups.held) > 5 and sorted(np.concatenate(groups.held).tolist()) == list(range(90))
    found = nearest_in_groups(rows, centroids, groups, len(groups.held), k)
    np.testing.assert_array_equal(found, best(rows, centroids, k))
    np.testing.assert_array_equal(nearest(rows, centroids, k), best(rows, centroids, k))


def test_a_few_near_groups_find_nearly_all() -> None:
    rows, centroids = unit(2000), unit(400, seed=1)
    groups = grouped(centroids, 20, seed=0)
    found = nearest_in_groups(rows, centroids, groups, 5, 2)
    right = found == best(rows, centroids, 2)
    assert right[:, 0].mean() > 0.97 and right[:, 1].mean() > 0.95
    one = nearest_in_groups(rows, centroids, groups, 1, 1)[:, 0]
    assert (one == best(rows, centroids, 1)[:, 0]).mean() < right[:, 0].mean(), "one group is not enough"


def test_only_the_groups_nearest_to_a_row_are_asked() -> None:
    centroids = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    rows = np.array([[1, 0], [0.1, 1]], np.float32)
    groups = Groups(np.array([[1, 0], [0, 1]], np.float32), [np.array([1, 2]), np.array([0])])
    assert nearest_in_groups(rows, centroids, groups, 1).tolist() == [[1], [0]]
    assert nearest_in_groups(rows, centroids, groups, 2).tolist() == [[0], [2]]


def test_more_groups_are_asked_where_few_hold_too_little() -> None:
    rows, centroids = unit(50), unit(40, seed=1)
    groups = Groups(centroids[:4].copy(), [np.array([k]) for k in range(3)] + [np.arange(3, 40)])
    found = nearest_in_groups(rows, centroids, groups, 1, 4)
    np.testing.assert_array_equal(found, best(rows, centroids, 4))


def test_ties_go_to_the_first_centroid() -> None:
    centroids = np.ones((6, 3), np.float32)
    groups = Groups(np.ones((2, 3), np.float32), [np.array([1, 3, 5]), np.array([0, 2, 4])])
    rows = np.ones((4, 3), np.float32)
    assert nearest_in_groups(rows, centroids, groups, 2).tolist() == [[0]] * 4
    assert nearest_in_groups(rows, centroids, groups, 2, 6).tolist() == [[0, 1, 2, 3, 4, 5]] * 4


def test_a_group_too_large_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGEST", 4)
    groups = cut(np.eye(2, dtype=np.float32), np.array([0] * 9 + [1]))
    assert [members.tolist() for members in groups.held] == [[0, 1, 2, 3], [4, 5, 6, 7], [8], [9]]
    assert groups.of.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 3]
    np.testing.assert_array_equal(groups.centres, [[1, 0], [1, 0], [1, 0], [0, 1]])


def test_positions_of_labels() -> None:
    assert [part.tolist() for part in by_label(np.array([2, 0, 2, 0]), 4)] == [[1, 3], [], [0, 2], []]
