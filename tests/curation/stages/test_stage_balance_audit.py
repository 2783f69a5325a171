"""Caps by a labelled audit, held against a pool whose true bins are known, enumeration, and numbers by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.audit.confusion import matrix
from curation.balance.allocation import allocate
from curation.balance.hierarchy import Tree
from curation.stages.balance import BalanceConfig
from curation.stages.balance_audit import Confusion, bins_of, mixing, told

BINS = ("frontal", "left", "no_face")
SEEN_AS = np.array([[0.75, 0.05, 0.20], [0.10, 0.80, 0.10], [0.02, 0.03, 0.95]])  # P(measured | true)


def leaves(n: int, rng: Any) -> Tree:
    leaf = rng.integers(0, 20, n)
    parents = [np.zeros(20, np.int64)]
    return Tree([np.zeros((20, 0), np.float32), np.zeros((1, 0), np.float32)], parents, leaf, np.zeros(n, np.float32))


def pool(n: int, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """(true, measured) bins: a fifth of the frontal ones are taken for pictures without a face."""
    true = rng.choice(3, n, p=[0.7, 0.1, 0.2])
    measured = np.array([rng.choice(3, p=SEEN_AS[t]) for t in true])
    return np.array(BINS)[true], np.array(BINS)[measured]


def audited(true: np.ndarray, measured: np.ndarray, each: int, rng: Any) -> Confusion:
    """What a person says of `each` pictures of every measured bin."""
    rows = np.concatenate([rng.permutation(np.flatnonzero(measured == name))[:each] for name in BINS])
    counts = matrix(measured[rows].tolist(), true[rows].tolist(), BINS)
    return Confusion(bins=BINS, counts=tuple(map(tuple, counts.tolist())))


def test_a_cap_holds_for_true_bins_where_one_on_measured_bins_is_broken() -> None:
    rng = np.random.default_rng(0)
    true, measured = pool(12_000, rng)
    confusion = {"head_pose": audited(true, measured, 400, rng)}
    tree, target, cap = leaves(len(true), rng), 4000, 0.5
    request: dict[str, Any] = {"attributes": {"head_pose": measured}, "floors": {}, "quality": np.zeros(12_000)}
    caps = {"head_pose": dict.fromkeys(BINS, int(cap * target))}
    plain = allocate(tree, target, **request, caps=caps, seed=0)
    by_labels = allocate(tree, target, **request, caps=caps, seed=0, mixing=mixing(confusion, request["attributes"]))
    assert plain.keep.sum() == by_labels.keep.sum() == target
    truly = {name: (true[found.keep] == "frontal").mean() for name, found in (("plain", plain), ("by", by_labels))}
    assert truly["plain"] > cap + 0.05, "a fifth of the frontal hide among those without a face"
    assert cap - 0.06 < truly["by"] < cap + 0.03, "and are counted where labels tell of them"
    assert {r for r in by_labels.reason if r} >= {"cap_head_pose"}
    shares = told(confusion, {}, request["attributes"], by_labels.keep, {"head_pose": cap})["head_pose"]
    after = shares["after"]["frontal"]
    assert after["corrected"] <= cap + 1e-3 and after["low"] <= truly["by"] <= after["high"]
    assert shares["above_cap"] == ["frontal"], "four hundred labels do not show that the cap holds"


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], list[list[int]], list[int], list[int], int]:
    """Supply of each measured bin, labels, caps and floors of true bins, places: small enough to enumerate."""
    few, label = st.integers(0, 6), st.integers(0, 5)
    counts = [[draw(label) for _ in range(3)] for _ in range(3)]
    for k, row in enumerate(counts):
        row[k] += 1
    caps = [draw(st.integers(1, 9)) for _ in range(3)]
    floors = [min(draw(st.integers(0, 3)), cap) for cap in caps]
    return [draw(few) for _ in range(3)], counts, caps, floors, draw(st.integers(0, 15))


@settings(max_examples=80, deadline=None)
@given(problems())
def test_as_many_rows_as_caps_on_parts_of_rows_allow(
    problem: tuple[list[int], list[list[int]], list[int], list[int], int],
) -> None:
    supply, counts, caps, floors, target = problem
    measured = np.repeat(BINS, supply)
    share = np.array(counts) / np.sum(counts, axis=1, keepdims=True)
    tree = leaves(len(measured), np.random.default_rng(0))
    audit = Confusion(bins=BINS, counts=tuple(map(tuple, counts)))
    found = allocate(
        tree,
        target,
        attributes={"head_pose": measured},
        caps={"head_pose": dict(zip(BINS, caps, strict=True))},
        floors={"head_pose": dict(zip(BINS, floors, strict=True))},
        quality=np.zeros(len(measured)),
        seed=0,
        mixing={"head_pose": audit.shares()},
    )
    quotas = [np.array(q) for q in product(*(range(s + 1) for s in supply)) if sum(q) <= target]
    allowed = [q for q in quotas if (q @ share <= np.array(caps) + 1e-6).all()]
    most = max(int(q.sum()) for q in allowed)
    short = min(np.maximum(np.array(floors) - q @ share, 0).sum() for q in allowed if q.sum() == most)
    taken = np.array([(measured[found.keep] == name).sum() for name in BINS])
    assert (taken @ share <= np.array(caps) + 1e-6).all(), "a cap is never broken"
    assert taken.sum() == most
    assert np.maximum(np.array(floors) - taken @ share, 0).sum() <= short + 0.02


def test_true_shares_by_hand() -> None:
    audit = Confusion(bins=("a", "b"), counts=((8, 2), (1, 9)))
    assert audit.shares() == {"a": {"a": 0.8, "b": 0.2}, "b": {"a": 0.1, "b": 0.9}}
    found = {s.bin: s for s in audit.true_shares(np.array(["a"] * 30 + ["b"] * 10))}
    assert found["a"].measured == 0.75 and found["a"].corrected == pytest.approx(0.75 * 0.8 + 0.25 * 0.1)
    assert found["a"].low < found["a"].corrected < found["a"].high


def test_only_bins_that_truly_occur_are_limited() -> None:
    audit = Confusion(bins=("frontal", "left", "unknown"), counts=((9, 0, 1), (5, 0, 0), (0, 0, 5)))
    measured = np.array(["frontal", "left", "unknown"])
    assert bins_of("head_pose", measured, {"head_pose": audit}) == ["frontal"], "nobody said left"
    assert bins_of("head_pose", measured, {}) == ["frontal", "left"]


def test_what_was_not_measured_may_be_without_labels_and_other_bins_may_not() -> None:
    audit = {"head_pose": Confusion(bins=("frontal", "left"), counts=((9, 1), (0, 5)))}
    mixed = mixing(audit, {"head_pose": np.array(["frontal", "unknown"])})
    assert mixed["head_pose"]["frontal"]["left"] == 0.1 and "unknown" not in mixed["head_pose"]
    with pytest.raises(ValueError, match=r"balance\.confusion of head_pose: no picture of \['right'\] was labelled"):
        mixing(audit, {"head_pose": np.array(["frontal", "right"])})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"counts": ((1, 0),)}, "needs a row and a column of counts"),
        ({"bins": ("a", "a")}, "needs a row and a column of counts"),
        ({"counts": ((0, 0), (0, 0))}, "no label at all"),
        ({"counts": ((-1, 1), (0, 1))}, "counts below zero"),
    ],
)
def test_counts_that_are_none_are_refused(changes: dict[str, Any], said: str) -> None:
    fields = {"bins": ("a", "b"), "counts": ((1, 0), (0, 1))} | changes
    with pytest.raises(ValueError, match=said):
        BalanceConfig.model_validate({"confusion": {"head_pose": fields}})
    with pytest.raises(ValueError, match=r"confusion names the axes \['hats'\]"):
        BalanceConfig.model_validate({"confusion": {"hats": {"bins": ["a"], "counts": [[1]]}}})
