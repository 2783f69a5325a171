"""cluster and balance: the tree as a table and back, measured attributes, limits as shares, evenness."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from decision_tables import (
    EMBEDDING_DIM,
    detection_row,
    detections_table,
    image_row,
    images_table,
    picture_id,
    score_row,
    scores_table,
    shuffled,
)

from curation.balance.attributes import Person, measure
from curation.stages import balance, cluster
from curation.stages.balance import BalanceConfig
from curation.stages.cluster import ClusterConfig
from curation.stages.result import StageResult
from curation.tables import DEDUPED, from_rows


def person(**changes: Any) -> Person:
    fields: dict[str, Any] = {
        "width": 1000,
        "height": 1000,
        "boxes": [[300, 100, 600, 900]],
        "face_count": 1,
        "yaw_deg": 0.0,
        "exposure": 0.5,
        "colour_temperature": 0.0,
    }
    return Person(**fields | changes)


@pytest.mark.parametrize(
    ("axis", "changes", "expected"),
    [
        ("head_pose", {"yaw_deg": 24.0}, "frontal"),
        ("head_pose", {"yaw_deg": -25.5}, "left"),
        ("head_pose", {"yaw_deg": 80.0}, "right_profile"),
        ("head_pose", {"yaw_deg": -61.0}, "left_profile"),
        ("head_pose", {"face_count": 0, "yaw_deg": None}, "no_face"),
        ("head_pose", {"face_count": None, "yaw_deg": None}, "unknown"),
        ("extent", {}, "whole"),
        ("extent", {"boxes": [[300, 100, 900, 800]]}, "compact"),
        ("extent", {"boxes": [[300, 100, 600, 995]]}, "lower_cut"),
        ("extent", {"boxes": [[300, 4, 600, 900]]}, "upper_cut"),
        ("extent", {"boxes": [[0, 100, 600, 1000]]}, "cut_sides"),
        ("extent", {"boxes": []}, "unknown"),
        ("person_count", {"boxes": []}, "none"),
        ("person_count", {"boxes": [[0, 0, 9, 9]] * 2}, "two"),
        ("person_count", {"boxes": [[0, 0, 9, 9]] * 5}, "few"),
        ("person_count", {"boxes": [[0, 0, 9, 9]] * 6}, "many"),
        ("person_scale", {"boxes": [[0, 0, 9, 200], [0, 0, 900, 490]]}, "medium"),
        ("person_scale", {}, "filling"),
        ("luminance", {"exposure": 0.1}, "dark"),
        ("luminance", {"exposure": None}, "unknown"),
        ("temperature", {"colour_temperature": 0.19}, "warm"),
        ("temperature", {"colour_temperature": -0.3}, "cold"),
    ],
)
def test_attributes_of_a_picture(axis: str, changes: dict[str, Any], expected: str) -> None:
    assert measure(person(**changes))[axis] == expected


Tables = tuple[pa.Table, pa.Table, pa.Table, pa.Table, pa.Table]


def pool(n: int, scores: Any = lambda k: {}, detections: Any = lambda k: {}) -> Tables:
    """(images, detections, scores, deduped, clusters)."""
    ids = [picture_id(k) for k in range(n)]
    deduped = from_rows([{"image_id": i, "keep": True, "representative_id": i, "group_id": i} for i in ids], DEDUPED)
    measured = scores_table([score_row(k, **scores(k)) for k in range(n)])
    found = cluster.run(measured, deduped, ClusterConfig())
    images = images_table([image_row(k) for k in range(n)])
    boxes = detections_table([detection_row(k, **detections(k)) for k in range(n)])
    return images, boxes, measured, deduped, found.tables["data"]


def count(result: StageResult, axis: str) -> dict[str, dict[str, Any]]:
    return {row["bin"]: row for row in result.tables["balance"].to_pylist() if row["axis"] == axis}


def test_clusters_are_a_tree_that_balance_reads_back() -> None:
    tables = pool(120)
    table = tables[4]
    tree = balance.tree_of(table)
    assert len(set(map(len, table["path"].to_pylist()))) == 1
    np.testing.assert_array_equal(tree.paths(), np.array(table["path"].to_pylist()))
    assert table["image_id"].to_pylist() == sorted(picture_id(k) for k in range(120))


def test_centroids_carry_their_parents() -> None:
    tables = pool(100)
    result = cluster.run(tables[2], tables[3], ClusterConfig(sizes=(10, 3)))
    levels: dict[int, dict[int, int | None]] = {0: {}, 1: {}}
    for row in result.tables["centroids"].to_pylist():
        levels[row["level"]][row["cluster"]] = row["parent"]
        assert np.linalg.norm(row["vector"]) == pytest.approx(1, abs=1e-3)
    assert result.metrics["clusters"] == [10, 3]
    assert set(levels[1].values()) == {None}
    for path in result.tables["data"]["path"].to_pylist():
        assert levels[0][path[0]] == path[1]


def test_pictures_without_an_embedding_are_clustered_too() -> None:
    tables = pool(30, scores=lambda k: {"embedding": None} if k < 10 else {})
    result = cluster.run(tables[2], tables[3], ClusterConfig())
    assert result.metrics["without_embedding"] == 10
    without = {picture_id(k) for k in range(10)}
    rows = {row["image_id"]: row for row in result.tables["data"].to_pylist()}
    assert all(rows[i]["distance"] == pytest.approx(1) for i in without)


@pytest.mark.parametrize(("size", "kept"), [(30, 30), (0.5, 50), (1.0, 100), (1, 1), (250, 100)])
def test_a_target_is_a_count_or_a_share(size: int | float, kept: int) -> None:
    config = BalanceConfig(target_size=size, caps={}, floors={})
    result = balance.run(*pool(100), config)
    assert result.metrics["kept"] == kept
    assert any("above the supply" in note for note in result.metrics["notes"]) == (size == 250)


def test_caps_and_floors_are_shares_of_the_target() -> None:
    yaw = {0: 50.0, 1: -50.0}
    tables = pool(200, scores=lambda k: {"yaw_deg": yaw.get(k % 20, 0.0), "exposure": 0.5 if k % 10 else 0.1})
    config = BalanceConfig(target_size=60, caps={"head_pose": 0.8, "luminance": 0.75}, floors={"head_pose": 0.15})
    result = balance.run(*tables, config)
    pose, light = count(result, "head_pose"), count(result, "luminance")
    assert result.metrics["kept"] == 60 and result.metrics["notes"] == []
    assert (pose["frontal"]["before"], pose["frontal"]["cap"]) == (180, 48)
    assert pose["frontal"]["after"] <= 48 and light["bright"]["after"] <= 45
    assert pose["left"]["after"] >= 9 and pose["right"]["after"] >= 9
    before, after = (result.metrics["axes"]["head_pose"][f"kl_{when}"] for when in ("before", "after"))
    assert after < before
    assert result.metrics["axes"]["luminance"]["gini_after"] < result.metrics["axes"]["luminance"]["gini_before"]


def test_the_labels_of_an_audit_decide_what_a_cap_lets_through() -> None:
    """Half of what looks like no face is frontal: thirty frontal places are then not thirty measured ones."""
    tables = pool(120, scores=lambda k: {} if k % 2 else {"face_count": 0, "yaw_deg": None})
    limits: dict[str, Any] = {"target_size": 60, "caps": {"head_pose": 0.5}, "floors": {}}
    plain = balance.run(*tables, BalanceConfig(**limits))
    measured = {name: row["after"] for name, row in count(plain, "head_pose").items()}
    assert measured == {"frontal": 30, "no_face": 30} and plain.metrics["true_shares"] == {}
    audit = {"head_pose": {"bins": ["frontal", "no_face"], "counts": [[20, 0], [10, 10]]}}
    config = BalanceConfig.model_validate(limits | {"confusion": audit, "provenance": {"head_pose": "audit 7"}})
    told = balance.run(*tables, config)
    after = {name: row["after"] for name, row in count(told, "head_pose").items()}
    assert told.metrics["kept"] == 60 and after == {"frontal": 0, "no_face": 60}, "30 of 60 are frontal by the labels"
    shares = told.metrics["true_shares"]["head_pose"]
    assert shares["after"]["frontal"]["corrected"] == 0.5 and shares["provenance"] == "audit 7"


def test_what_was_not_measured_is_not_capped() -> None:
    tables = pool(50, scores=lambda k: {"yaw_deg": None, "face_count": None})
    result = balance.run(*tables, BalanceConfig(target_size=40, caps={"head_pose": 0.1}, floors={"head_pose": 0.1}))
    assert result.metrics["kept"] == 40
    assert result.metrics["axes"]["head_pose"]["unknown"] == 50
    assert count(result, "head_pose")["unknown"]["cap"] is None


def test_floors_that_cannot_be_met_are_said() -> None:
    tables = pool(50, scores=lambda k: {"yaw_deg": 80.0 if k == 0 else 0.0})
    result = balance.run(*tables, BalanceConfig(target_size=40, caps={}, floors={"head_pose": 0.2}))
    assert result.metrics["notes"] == ["the floor of 8 for head_pose=right_profile cannot be met: 1 selected"]


def test_decisions_keep_the_representative_and_name_the_rule() -> None:
    result = balance.run(*pool(80), BalanceConfig(target_size=20, caps={}, floors={}))
    for row in result.tables["data"].to_pylist():
        assert row["representative_id"] == row["image_id"]
        assert row["keep"] == (row["reason"] is None) == (row["value"] is None)
        assert row["keep"] or (row["reason"] == "cluster_share" and row["value"] > row["threshold"])
    attributes = Counter(result.tables["attributes"]["image_id"].to_pylist())
    assert set(attributes.values()) == {6} and len(attributes) == 80


def test_the_better_picture_of_a_cluster_is_taken() -> None:
    """All in one place of the embedding, so quality alone decides."""
    same = [1.0] + [0.0] * (EMBEDDING_DIM - 1)
    tables = pool(40, scores=lambda k: {"embedding": same, "sharpness": k / 40})
    result = balance.run(*tables, BalanceConfig(target_size=10, caps={}, floors={}))
    kept = {row["image_id"] for row in result.tables["data"].to_pylist() if row["keep"]}
    assert kept == {picture_id(k) for k in range(30, 40)}


def test_order_of_rows_does_not_matter() -> None:
    tables = pool(60, scores=lambda k: {"yaw_deg": float(k * 7 % 120 - 60)})
    first = balance.run(*tables, BalanceConfig(target_size=25))
    again = balance.run(*(shuffled(t, k) for k, t in enumerate(tables)), BalanceConfig(target_size=25))
    for name, table in first.tables.items():
        assert table.equals(again.tables[name])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_size": -5}, "positive count"),
        ({"target_size": -0.5}, "positive count"),
        ({"target_size": 0}, "positive count"),
        ({"target_size": 2.5}, "positive count"),
        ({"caps": {"mood": 0.5}}, "choose among head_pose"),
        ({"caps": {"extent": 1.5}}, "shares in"),
        ({"caps": {"extent": 0.2}, "floors": {"extent": 0.3}}, r"extent \(0\.3 above 0\.2\); lower the floor"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BalanceConfig(**fields)


def test_default_caps_hold_two_axes() -> None:
    assert len(BalanceConfig().caps) >= 2
