"""Allocation: even down the tree, exact, within caps, floors where they can be met, by comparison with enumeration."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.balance import Allocation, Tree, allocate
from curation.balance.divergence import gini, kl_to_uniform

Limits = dict[str, dict[str, int]]


def tree_of(paths: list[list[int]]) -> Tree:
    """A tree from the cluster of each row at each level, leaf first."""
    path = np.array(paths, dtype=np.int64)
    if not len(path):
        return Tree([], [], np.zeros(0, np.int64), np.zeros(0, np.float32))
    sizes = path.max(axis=0) + 1
    parents = []
    for level in range(path.shape[1] - 1):
        parent = np.zeros(sizes[level], np.int64)
        parent[path[:, level]] = path[:, level + 1]
        parents.append(parent)
    return Tree([np.zeros((s, 1), np.float32) for s in sizes], parents, path[:, 0], np.zeros(len(path), np.float32))


@st.composite
def trees(draw: st.DrawFn, max_rows: int = 40) -> list[list[int]]:
    """Paths of rows in a tree of two levels, every leaf below one parent."""
    parents = draw(st.lists(st.integers(0, 3), min_size=1, max_size=7))
    leaves = draw(st.lists(st.integers(0, len(parents) - 1), max_size=max_rows))
    return [[leaf, parents[leaf]] for leaf in leaves]


def plain(paths: list[list[int]], target: int, seed: int = 0, quality: np.ndarray | None = None) -> Allocation:
    worth = np.zeros(len(paths)) if quality is None else quality
    return allocate(tree_of(paths), target, attributes={}, caps={}, floors={}, quality=worth, seed=seed)


def assert_level(kept: Counter[int], supply: Counter[int]) -> None:
    """A child that got fewer than another by two or more has nothing left."""
    for child, other in product(supply, supply):
        assert kept[child] >= kept[other] - 1 or kept[child] == supply[child], (kept, supply)


@settings(max_examples=150, deadline=None)
@given(trees(), st.integers(0, 45), st.integers(0, 5))
def test_water_level_at_every_node(paths: list[list[int]], target: int, seed: int) -> None:
    found = plain(paths, target, seed)
    assert found.keep.sum() == min(target, len(paths))
    kept = [path for path, keep in zip(paths, found.keep, strict=True) if keep]
    assert_level(Counter(p[1] for p in kept), Counter(p[1] for p in paths))
    for parent in {p[1] for p in paths}:
        own = Counter(p[0] for p in kept if p[1] == parent)
        assert_level(own, Counter(p[0] for p in paths if p[1] == parent))


@settings(max_examples=60, deadline=None)
@given(trees(), st.integers(0, 40))
def test_the_best_of_a_cluster_come_first(paths: list[list[int]], target: int) -> None:
    quality = np.random.default_rng(len(paths)).permutation(len(paths)).astype(float)
    found = plain(paths, target, quality=quality)
    for leaf in {p[0] for p in paths}:
        rows = np.array([k for k, p in enumerate(paths) if p[0] == leaf])
        kept, left = quality[rows[found.keep[rows]]], quality[rows[~found.keep[rows]]]
        assert not len(kept) or not len(left) or kept.min() > left.max()


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 39))
def test_a_larger_target_keeps_what_a_smaller_one_kept(paths: list[list[int]], target: int) -> None:
    assert (plain(paths, target + 1).keep >= plain(paths, target).keep).all()


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[list[int]], dict[str, np.ndarray], Limits, Limits, int]:
    """Few cells, so that all quotas can be enumerated: up to 14 rows on two axes of two and three bins."""
    n = draw(st.integers(0, 14))
    attributes = {
        "a": np.array(draw(st.lists(st.sampled_from("xy"), min_size=n, max_size=n)), dtype=str),
        "b": np.array(draw(st.lists(st.sampled_from("pqr"), min_size=n, max_size=n)), dtype=str),
    }
    bins = {"a": "xy", "b": "pqr"}
    bound = st.integers(0, 12)
    caps = {axis: {b: draw(bound) for b in names if draw(st.booleans())} for axis, names in bins.items()}
    floors = {axis: {b: draw(st.integers(0, 4)) for b in names if draw(st.booleans())} for axis, names in bins.items()}
    for axis, limits in floors.items():
        for name in limits:
            limits[name] = min(limits[name], caps[axis].get(name, 99))
    paths = [[draw(st.integers(0, 3)), 0] for _ in range(n)]
    return paths, attributes, caps, floors, draw(st.integers(0, 16))


def enumerate_best(attributes: dict[str, np.ndarray], caps: Limits, floors: Limits, places: int) -> tuple[int, int]:
    """(most rows within the caps, fewest rows missing to floors among those selections), over all quotas of cells."""
    supply = Counter(zip(attributes["a"].tolist(), attributes["b"].tolist(), strict=True))
    cells = sorted(supply)
    best = (0, -(10**9))
    for quota in product(*(range(supply[cell] + 1) for cell in cells)):
        if sum(quota) > places:
            continue
        got = {
            axis: Counter({b: sum(q for q, c in zip(quota, cells, strict=True) if c[k] == b) for b in "xypqr"})
            for k, axis in enumerate("ab")
        }
        if any(got[axis][b] > bound for axis, limits in caps.items() for b, bound in limits.items()):
            continue
        short = sum(max(0, bound - got[axis][b]) for axis, limits in floors.items() for b, bound in limits.items())
        best = max(best, (sum(quota), -short))
    return best[0], -best[1]


@settings(max_examples=80, deadline=None)
@given(problems())
def test_caps_hold_the_target_is_exact_where_possible_and_floors_are_met_where_possible(
    problem: tuple[list[list[int]], dict[str, np.ndarray], Limits, Limits, int],
) -> None:
    paths, attributes, caps, floors, target = problem
    quality = np.zeros(len(paths))
    found = allocate(tree_of(paths), target, attributes=attributes, caps=caps, floors=floors, quality=quality, seed=1)
    most, short = enumerate_best(attributes, caps, floors, min(target, len(paths)))
    got = {axis: Counter(bins[found.keep].tolist()) for axis, bins in attributes.items()}
    for axis, limits in caps.items():
        for name, bound in limits.items():
            assert got[axis][name] <= bound
    assert found.keep.sum() == most, "as many as the caps allow, never more than the target"
    assert short == sum(max(0, b - got[axis][n]) for axis, limits in floors.items() for n, b in limits.items())
    assert any("cannot be met" in note for note in found.notes) == (short > 0)
    assert any("caps allow only" in note for note in found.notes) == (most < min(target, len(paths)))
    for keep, reason in zip(found.keep.tolist(), found.reason, strict=True):
        assert keep == (reason is None)
        assert keep or reason.partition("_")[0] in ("cap", "floor", "cluster")  # type: ignore[union-attr]


def skewed(n: int = 1000, seed: int = 0) -> tuple[list[list[int]], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    leaves = rng.choice(20, n, p=np.arange(1, 21) / 210)
    attributes = {
        "pose": rng.choice(["front", "side", "back"], n, p=[0.8, 0.15, 0.05]),
        "light": rng.choice(["dim", "bright"], n, p=[0.9, 0.1]),
    }
    return [[int(leaf), int(leaf) // 5] for leaf in leaves], attributes


def test_caps_on_two_axes_bind_and_name_themselves() -> None:
    paths, attributes = skewed()
    caps = {"pose": {"front": 200}, "light": {"dim": 320}}
    found = allocate(tree_of(paths), 400, attributes=attributes, caps=caps, floors={}, quality=np.zeros(1000), seed=0)
    kept = {axis: Counter(bins[found.keep].tolist()) for axis, bins in attributes.items()}
    assert found.keep.sum() == 400 and found.notes == []
    assert kept["pose"]["front"] == 200 and kept["light"]["dim"] <= 320
    front = [r for r, pose in zip(found.reason, attributes["pose"], strict=True) if pose == "front" and r]
    assert Counter(front).most_common(1)[0][0] == "cap_pose"
    row = found.reason.index("cap_pose")
    assert (found.value[row], found.threshold[row]) == (200, 200)


def test_limits_take_a_little_from_every_cell() -> None:
    """The rows that a cap costs are spread over the other axis as they were, not taken from one bin of it."""
    paths, attributes = skewed(4000, 1)
    free = plain(paths, 2000)
    found = allocate(
        tree_of(paths),
        2000,
        attributes=attributes,
        caps={"pose": {"front": 1300}},
        floors={"light": {"bright": 1}},
        quality=np.zeros(4000),
        seed=0,
    )
    front = attributes["pose"] == "front"
    bright = attributes["light"] == "bright"
    before = bright[free.keep & front].mean()
    after = bright[found.keep & front].mean()
    assert found.keep.sum() == 2000 and (found.keep & front).sum() == 1300
    assert abs(before - after) < 0.03


def test_a_floor_brings_in_what_the_clusters_would_not() -> None:
    paths, attributes = skewed()
    before = Counter(attributes["pose"][plain(paths, 100).keep].tolist())["back"]
    found = allocate(
        tree_of(paths),
        100,
        attributes=attributes,
        caps={},
        floors={"pose": {"back": before + 20}},
        quality=np.zeros(1000),
        seed=0,
    )
    assert Counter(attributes["pose"][found.keep].tolist())["back"] == before + 20
    assert found.keep.sum() == 100
    assert "floor_pose" in found.reason


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    paths, _ = skewed()
    assert (plain(paths, 90, 3).keep == plain(paths, 90, 3).keep).all()
    assert (plain(paths, 90, 3).keep != plain(paths, 90, 4).keep).any()


def test_bad_requests_are_refused() -> None:
    tree = tree_of([[0, 0], [0, 0]])
    good = {"attributes": {"a": np.array(["x", "y"])}, "caps": {}, "floors": {}, "quality": np.zeros(2), "seed": 0}
    with pytest.raises(ValueError, match="must not be negative"):
        allocate(tree, -1, **good)
    with pytest.raises(ValueError, match="there are"):
        allocate(tree, 1, **good | {"caps": {"b": {"x": 1}}})
    with pytest.raises(ValueError, match="lower the floor"):
        allocate(tree, 1, **good | {"caps": {"a": {"x": 1}}, "floors": {"a": {"x": 2}}})
    with pytest.raises(ValueError, match="quality has 1 rows"):
        allocate(tree, 1, **good | {"quality": np.zeros(1)})


def test_gini_and_divergence() -> None:
    assert gini([5, 5, 5]) == pytest.approx(0)
    assert gini([0, 0, 0, 8]) == pytest.approx(0.75)
    assert gini([1, 3]) == pytest.approx(0.25)  # mean difference 1 over twice the mean of 2
    assert kl_to_uniform([4, 4]) == pytest.approx(0)
    assert kl_to_uniform([8, 0]) == pytest.approx(np.log(2))
    assert gini([]) == 0 and kl_to_uniform([0, 0]) == 0
    with pytest.raises(ValueError, match="negative"):
        gini([-1, 2])
