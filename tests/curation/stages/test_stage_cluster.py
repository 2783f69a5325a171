"""cluster: the shape of the tree follows the pictures and the configuration."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from decision_tables import picture_id, score_row, scores_table

from curation.stages import cluster
from curation.stages.cluster import ClusterConfig
from curation.tables import CENTROIDS, CLUSTERS, DEDUPED, from_rows


def tables(n: int, kept: int | None = None) -> tuple[pa.Table, pa.Table]:
    limit = n if kept is None else kept
    deduped = [{"image_id": picture_id(k), "keep": k < limit} for k in range(n)]
    return scores_table([score_row(k) for k in range(n)]), from_rows(deduped, DEDUPED)


@pytest.mark.parametrize(("n", "sizes"), [(200, [50, 12, 3]), (16, [4]), (1, [1]), (0, [])])
def test_sizes_follow_the_number_of_pictures(n: int, sizes: list[int]) -> None:
    result = cluster.run(*tables(n), ClusterConfig())
    assert result.metrics["clusters"] == sizes
    assert result.tables["data"].schema == CLUSTERS and result.tables["centroids"].schema == CENTROIDS
    assert result.tables["centroids"].num_rows == sum(sizes)
    assert result.tables["data"].num_rows == n == result.metrics["kept"]


def test_configured_sizes_shrink_to_the_pictures() -> None:
    result = cluster.run(*tables(6), ClusterConfig(sizes=(100, 20, 4)))
    assert all(size <= 6 for size in result.metrics["clusters"])
    assert len(result.metrics["clusters"]) == 3


def test_only_pictures_that_dedup_kept_are_clustered() -> None:
    result = cluster.run(*tables(30, kept=12), ClusterConfig())
    assert set(result.tables["data"]["image_id"].to_pylist()) == {picture_id(k) for k in range(12)}


def test_a_seed_makes_the_tree() -> None:
    first, again = (cluster.run(*tables(100), ClusterConfig(seed=2)).tables for _ in range(2))
    assert first["data"].equals(again["data"]) and first["centroids"].equals(again["centroids"])


def test_more_pictures_are_put_into_the_tree_of_an_earlier_run() -> None:
    scores, deduped = tables(120)
    first = cluster.run(scores, deduped.slice(0, 80), ClusterConfig(seed=3)).tables
    more = cluster.run(scores, deduped, ClusterConfig(seed=9), previous=first["centroids"]).tables
    assert more["centroids"].equals(first["centroids"])
    rows = {row["image_id"]: row for row in more["data"].to_pylist()}
    assert all(rows[row["image_id"]] == row for row in first["data"].to_pylist()), "what it had stays where it was"
    leaves = np.array(first["centroids"].filter(pc.equal(first["centroids"]["level"], 0))["vector"].to_pylist())
    x = np.array(scores["embedding"].to_pylist())[80:]
    nearest = (x @ leaves.T).argmax(axis=1)
    paths = [rows[image_id]["path"] for image_id in scores["image_id"].to_pylist()[80:]]
    assert [path[0] for path in paths] == nearest.tolist()
    parents = {(r["level"], r["cluster"]): r["parent"] for r in first["centroids"].to_pylist()}
    assert all(parents[level, path[level]] == path[level + 1] for path in paths for level in range(len(path) - 1))


def test_a_tree_of_another_width_is_refused() -> None:
    scores, deduped = tables(20)
    first = cluster.run(scores, deduped, ClusterConfig()).tables["centroids"]
    short = [vector[:3] for vector in first["vector"].to_pylist()]
    narrow = first.set_column(3, "vector", pa.array(short, pa.list_(pa.float32())))
    with pytest.raises(ValueError, match=r"centroids of 3 numbers, the embeddings \[\d+\]: use its embedding"):
        cluster.run(scores, deduped, ClusterConfig(), previous=narrow)


def test_sizes_must_fall() -> None:
    with pytest.raises(ValueError, match="fall from the leaves up"):
        ClusterConfig(sizes=(4, 8))
