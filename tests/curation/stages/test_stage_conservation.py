"""Every picture ends in exactly one place, for exactly one reason, whatever is in the tables and in what order."""

from __future__ import annotations

import pyarrow as pa
import pytest
from decision_tables import (
    detection_row,
    detections_table,
    image_row,
    images_table,
    picture_id,
    pools,
    score_row,
    scores_table,
    shuffled,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.stages import balance, cluster, dedup, export, filter
from curation.stages.balance import BalanceConfig
from curation.stages.cluster import ClusterConfig
from curation.stages.dedup import DedupConfig
from curation.stages.export import ExportConfig
from curation.stages.filter import FilterConfig
from curation.stages.result import StageResult

Pool = tuple[pa.Table, pa.Table, pa.Table]
LOOSE = FilterConfig(
    min_person_px=100,
    min_person_score=0.1,
    min_realism=0.1,
    max_text_ratio=0.9,
    max_text_person_overlap=0.9,
    max_aspect=50.0,
    min_sharpness=0.05,
)


def chain(pool: Pool, target: float | int) -> dict[str, StageResult]:
    """All deciding stages, each on the results of those before."""
    images, detections, scores = pool
    filtered = filter.run(images, detections, scores, LOOSE)
    deduped = dedup.run(images, scores, filtered.tables["data"], DedupConfig(), detections=detections)
    clusters = cluster.run(scores, deduped.tables["data"], ClusterConfig())
    data = deduped.tables["data"], clusters.tables["data"]
    selection = balance.run(images, detections, scores, *data, BalanceConfig(target_size=target))
    return {"filter": filtered, "dedup": deduped, "cluster": clusters, "balance": selection}


def ids(table: pa.Table, *, kept: bool | None = None) -> list[str]:
    rows = table.to_pylist()
    return [row["image_id"] for row in rows if kept is None or row["keep"] is kept]


def assert_conserved(pool: Pool, found: dict[str, StageResult]) -> None:
    entering = sorted(ids(pool[0]))
    for stage in ("filter", "dedup", "balance"):
        table = found[stage].tables["data"]
        assert sorted(ids(table)) == entering, f"{stage} must decide on every row that enters it, once"
        for row in table.to_pylist():
            assert row["keep"] == (row["reason"] is None), row
        metrics = found[stage].metrics
        assert metrics["rows_in"] == len(entering)
        assert metrics["kept"] + sum(metrics["dropped"].values()) == metrics["rows_in"]
        entering = sorted(ids(table, kept=True))
        if stage == "dedup":
            assert sorted(ids(found["cluster"].tables["data"])) == entering


def assert_covered(found: dict[str, StageResult]) -> None:
    """The representative of every picture is kept and joined to it; no two kept pictures are joined."""
    table, edges = found["dedup"].tables["data"].to_pylist(), found["dedup"].tables["edges"].to_pylist()
    kept = {row["image_id"] for row in table if row["keep"]}
    joined = {frozenset((edge["a"], edge["b"])) for edge in edges}
    assert len(joined) == len(edges), "each pair is one edge"
    for row in table:
        assert row["representative_id"] in kept
        if row["keep"]:
            assert row["representative_id"] == row["image_id"]
        else:
            assert frozenset((row["image_id"], row["representative_id"])) in joined
    assert not [pair for pair in joined if pair <= kept]


def assert_exported_once(found: dict[str, StageResult]) -> None:
    selection, deduped = found["balance"].tables["data"], found["dedup"].tables["data"]
    plans = export.plan(selection, deduped, ExportConfig(rows_per_shard=3, val_share=0.3))
    placed = [image_id for plan in plans for image_id in plan.image_ids]
    assert sorted(placed) == sorted(ids(selection, kept=True))
    group = {row["image_id"]: row["group_id"] for row in deduped.to_pylist()}
    sides = {split: {group[i] for p in plans if p.split == split for i in p.image_ids} for split in ("train", "val")}
    assert not sides["train"] & sides["val"], "a duplicate group must not be on both sides"


@settings(max_examples=35, deadline=None, suppress_health_check=list(HealthCheck))
@given(pools(), st.one_of(st.integers(1, 30), st.floats(0.1, 1.0)), st.integers(0, 3))
def test_every_row_ends_once_with_one_reason(pool: Pool, target: float | int, seed: int) -> None:
    found = chain(pool, target)
    assert_conserved(pool, found)
    assert_covered(found)
    assert_exported_once(found)
    again = chain((shuffled(pool[0], seed), shuffled(pool[1], seed + 1), shuffled(pool[2], seed + 2)), target)
    for stage, result in found.items():
        for name, table in result.tables.items():
            assert table.equals(again[stage].tables[name]), f"{stage}/{name} depends on the order of its input"


def pool_of(n: int, **score: object) -> Pool:
    return (
        images_table([image_row(k) for k in range(n)]),
        detections_table([detection_row(k) for k in range(n)]),
        scores_table([score_row(k, **score) for k in range(n)]),
    )


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_small_pools_pass_through(n: int) -> None:
    pool = pool_of(n)
    found = chain(pool, 1.0)
    assert_conserved(pool, found)
    assert_exported_once(found)
    assert found["dedup"].metrics["kept"] == n


def test_identical_pictures_leave_one() -> None:
    images = [image_row(k, phash=2**32 - 1, phash_mirror=7) for k in range(40)]
    pool = images_table(images), *pool_of(40)[1:]
    found = chain(pool, 0.5)
    assert_conserved(pool, found)
    assert_covered(found)
    assert found["dedup"].metrics["kept"] == 1
    assert found["balance"].metrics["kept"] == 1
    assert {row["group_id"] for row in found["dedup"].tables["data"].to_pylist()} == {min(map(picture_id, range(40)))}


def test_target_above_the_supply_takes_all_and_says_so() -> None:
    found = chain(pool_of(6), 100)
    assert found["balance"].metrics["kept"] == 6
    assert any("above the supply of 6" in note for note in found["balance"].metrics["notes"])
