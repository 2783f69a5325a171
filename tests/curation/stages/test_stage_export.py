"""export: order and split are functions of ids, groups and seed; shards hold every selected picture once."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from decision_tables import detection_row, detections_table, image_row, images_table, picture_id, shuffled

from curation.stages import export
from curation.stages.export import ExportConfig, ShardPlan
from curation.tables import ATTRIBUTES, DECISIONS, DEDUPED, SHARDS, from_rows


def tables(n: int, group_size: int = 2) -> tuple[pa.Table, pa.Table]:
    """(selection, deduped) of n pictures in groups of `group_size`; every fifth is not selected."""
    selection = [{"image_id": picture_id(k), "keep": k % 5 != 0} for k in range(n)]
    deduped = [{"image_id": picture_id(k), "keep": True, "group_id": f"g{k // group_size}"} for k in range(n)]
    return from_rows(selection, DECISIONS), from_rows(deduped, DEDUPED)


def ids(plans: list[ShardPlan], split: str) -> list[str]:
    return [image_id for plan in plans if plan.split == split for image_id in plan.image_ids]


def test_every_selected_picture_is_in_one_shard_and_groups_stay_on_one_side() -> None:
    selection, deduped = tables(400)
    plans = export.plan(selection, deduped, ExportConfig(val_share=0.2, rows_per_shard=50))
    selected = {row["image_id"] for row in selection.to_pylist() if row["keep"]}
    train, val = ids(plans, "train"), ids(plans, "val")
    assert sorted(train + val) == sorted(selected)
    group = {row["image_id"]: row["group_id"] for row in deduped.to_pylist()}
    assert not {group[i] for i in train} & {group[i] for i in val}
    assert 0.1 < len(val) / len(selected) < 0.3
    assert all(len(plan.image_ids) <= 50 for plan in plans)
    assert len({plan.pid for plan in plans}) == len(plans)


def test_positions_run_through_each_split_and_can_be_located() -> None:
    plans = export.plan(*tables(200), ExportConfig(val_share=0.3, rows_per_shard=17))
    for split in ("train", "val"):
        order = ids(plans, split)
        for position in (0, 16, 17, len(order) - 1):
            plan, row = export.locate(plans, split, position)
            assert plan.image_ids[row] == order[position]
            assert plan.first_position + row == position
        for outside in (-1, len(order)):
            with pytest.raises(IndexError, match=rf"positions 0\.\.{len(order) - 1}"):
                export.locate(plans, split, outside)


def test_the_order_is_keyed_by_the_seed_and_not_by_the_input() -> None:
    selection, deduped = tables(300)
    config = ExportConfig(seed=4)
    plans = export.plan(selection, deduped, config)
    assert export.plan(shuffled(selection, 1), shuffled(deduped, 2), config) == plans
    expected = sorted(ids(plans, "train"), key=lambda i: hashlib.sha256(f"4/order/{i}".encode()).digest())
    assert ids(plans, "train") == expected
    assert ids(export.plan(selection, deduped, ExportConfig(seed=5)), "train") != ids(plans, "train")


def test_the_order_is_unrelated_to_the_ids() -> None:
    order = ids(export.plan(*tables(2000), ExportConfig(val_share=0.0)), "train")
    rank = {image_id: k for k, image_id in enumerate(sorted(order))}
    correlation = np.corrcoef(np.arange(len(order)), [rank[i] for i in order])[0, 1]
    assert abs(correlation) < 0.08


def test_a_group_keeps_its_side_when_others_come_and_go() -> None:
    few = export.plan(*tables(300), ExportConfig(val_share=0.2))
    many = export.plan(*tables(600), ExportConfig(val_share=0.2))
    assert set(ids(few, "val")) <= set(ids(many, "val"))
    assert set(ids(few, "train")) <= set(ids(many, "train"))


@pytest.mark.parametrize(("groups", "share", "val"), [(2, 0.01, 1), (2, 0.99, 1), (1, 0.5, 0), (5, 0.0, 0)])
def test_each_side_gets_a_group_where_there_are_two(groups: int, share: float, val: int) -> None:
    assert len(export.validation_groups([f"g{k}" for k in range(groups)], share, seed=0)) == val


def test_nothing_selected_gives_no_shards() -> None:
    assert export.plan(*tables(0), ExportConfig()) == []


def shard(rows: list[int], **changes: Any) -> pa.Table:
    _, deduped = tables(20)
    attributes = [
        {"image_id": picture_id(k), "axis": axis, "bin": f"{axis}{k}"} for k in range(20) for axis in ("pose", "light")
    ]
    images = images_table([image_row(k, bytes=bytes([k, 1, 2]), licence="CC0", caption=f"c{k}") for k in range(20)])
    plan = ShardPlan("train-00003", "train", tuple(picture_id(k) for k in rows), 70)
    return export.build_shard(
        plan,
        shuffled(images, 1),
        shuffled(detections_table([detection_row(k, boxes=[[k, 0, k + 9, 9]]) for k in range(20)]), 2),
        from_rows(attributes, ATTRIBUTES),
        shuffled(deduped, 3),
    )


def test_a_shard_joins_everything_in_plan_order() -> None:
    table = shard([7, 2, 19])
    assert table.schema == SHARDS
    rows = table.to_pylist()
    assert [row["image_id"] for row in rows] == [picture_id(k) for k in (7, 2, 19)]
    assert [row["position"] for row in rows] == [70, 71, 72]
    assert [row["bytes"] for row in rows] == [bytes([k, 1, 2]) for k in (7, 2, 19)]
    assert [row["boxes"] for row in rows] == [[[k, 0, k + 9, 9]] for k in (7, 2, 19)]
    assert [row["group_id"] for row in rows] == ["g3", "g1", "g9"]
    assert [json.loads(row["attributes"]) for row in rows] == [
        {"light": f"light{k}", "pose": f"pose{k}"} for k in (7, 2, 19)
    ]
    assert {row["split"] for row in rows} == {"train"} and rows[0]["caption"] == "c7"


def test_a_shard_without_its_pictures_is_an_error() -> None:
    with pytest.raises(ValueError, match=picture_id(33)):
        shard([33])


def test_labelled_test_pictures_and_their_duplicates_are_held_out() -> None:
    """By the groups of this dedup, and by the name that the group had when it was labelled."""
    selection, deduped = tables(40, group_size=4)  # 0, 5, 10, ... are not selected
    rows = [
        {"image_id": picture_id(5), "group_id": "of an older dedup", "split": "test"},  # group 1: 4, 6 and 7 selected
        {"image_id": "gone since", "group_id": "g3", "split": "test"},  # 12, 13, 14
        {"image_id": picture_id(21), "group_id": "g5", "split": "train"},
    ]
    dropped = export.held_out(selection, deduped, pa.Table.from_pylist(rows))
    assert dropped.schema == DECISIONS and set(dropped["reason"].to_pylist()) == {"labelled_test"}
    stand_for = dict(zip(dropped["image_id"].to_pylist(), dropped["representative_id"].to_pylist(), strict=True))
    expected = {picture_id(k): picture_id(5) for k in (4, 6, 7)} | {picture_id(k): "gone since" for k in (12, 13, 14)}
    assert stand_for == expected
    plans = export.plan(selection, deduped, ExportConfig(val_share=0.2), without=list(stand_for))
    written = {i for split in ("train", "val") for i in ids(plans, split)}
    assert written == {row["image_id"] for row in selection.to_pylist() if row["keep"]} - set(stand_for)
