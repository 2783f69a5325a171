"""cluster: hierarchical k-means over the embeddings of the pictures that dedup kept."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from curation.balance.divergence import gini
from curation.balance.hierarchy import Tree, assigned, hierarchical_kmeans, level_sizes
from curation.config import Config, recipe
from curation.stages.filter_report import histogram
from curation.stages.measures import sorted_by_id, vectors_for
from curation.stages.result import StageResult
from curation.tables import CENTROIDS, CLUSTERS, require_columns

__all__ = ["ClusterConfig", "profile_config", "run"]


class ClusterConfig(Config):
    """The shape of the tree."""

    sizes: tuple[int, ...] = recipe((), "clusters per level from the leaves up, as counts; none: from the pictures")
    branching: int = recipe(4, "members of a cluster on average, at every level, as a count", ge=2)
    levels: int = recipe(3, "most levels of the tree, as a count", ge=1, le=8)
    top: int = recipe(4, "a level of so few clusters is the last, as a count", ge=1)
    seed: int = recipe(0, "of the first centroids, no unit", ge=0)
    previous: str = recipe(
        "",
        "version of `clusters` into whose tree pictures are put as it is, VERSION or clusters=NAME; sizes and seed do "
        "not count then",
    )

    @model_validator(mode="after")
    def _sizes_fall(self) -> Self:
        if self.sizes and (min(self.sizes) < 1 or list(self.sizes) != sorted(self.sizes, reverse=True)):
            raise ValueError(f"sizes must be positive and fall from the leaves up, got {list(self.sizes)}")
        return self


def profile_config(profile: str) -> ClusterConfig:
    """The same tree in every profile: it follows the number of pictures."""
    return ClusterConfig()


def run(scores: pa.Table, deduped: pa.Table, config: ClusterConfig, *, previous: pa.Table | None = None) -> StageResult:
    """The cluster of each kept picture at every level, sorted by image_id, and the centroids.

    Pictures without an embedding share one cluster of their own at distance 1. previous: the centroids of an earlier
    run; pictures go to the nearest of its leaves, the tree stays as it is. Raises ValueError for missing columns
    or rows, or embeddings of another width than the earlier ones.
    """
    require_columns(scores, ["image_id", "embedding"], "cluster: scores")
    rows = sorted_by_id(deduped.filter(deduped["keep"]))
    image_ids = rows["image_id"].to_pylist()
    x = vectors_for(scores, image_ids, "cluster: scores", "embedding")
    sizes = list(config.sizes) or level_sizes(len(image_ids), config.branching, config.top, config.levels)
    if previous is not None:
        tree = assigned(x, *_levels_of(previous))
    else:
        tree = hierarchical_kmeans(x, sizes or [1], seed=config.seed)
    paths = tree.paths() if tree.sizes else np.zeros((0, 1), np.int64)
    table = pa.table({"image_id": image_ids, "path": _lists(paths), "distance": tree.distance}, schema=CLUSTERS)
    metrics = _metrics(tree, x)
    return StageResult({"data": table, "centroids": _centroids(tree)}, metrics, _fragment(tree, metrics))


def _lists(rows: NDArray[Any]) -> pa.ListArray:
    """A matrix as a column of lists, int32 or float32."""
    kind = np.int32 if rows.dtype.kind == "i" else np.float32
    starts = pa.array(np.arange(len(rows) + 1) * rows.shape[1], pa.int32())
    return pa.ListArray.from_arrays(starts, pa.array(rows.astype(kind).ravel()))


def _centroids(tree: Tree) -> pa.Table:
    levels = [CENTROIDS.empty_table()]
    for level, vectors_of in enumerate(tree.centroids):
        size = len(vectors_of)
        above = tree.parents[level] if level < len(tree.parents) else None
        columns = {
            "level": np.full(size, level),
            "cluster": np.arange(size),
            "parent": pa.nulls(size) if above is None else above,
            "vector": _lists(vectors_of),
        }
        levels.append(pa.table(columns).cast(CENTROIDS))
    return pa.concat_tables(levels)


def _levels_of(centroids: pa.Table) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int64]]]:
    """Centroids and parents per level of a table as `_centroids` makes it."""
    ordered = centroids.sort_by([("level", "ascending"), ("cluster", "ascending")])
    level = ordered["level"].to_numpy()
    parts = [ordered.filter(pa.array(level == each)) for each in np.unique(level)]
    vectors_of = [np.array(part["vector"].to_pylist(), np.float32) for part in parts]
    return vectors_of, [part["parent"].to_numpy().astype(np.int64) for part in parts[:-1]]


def _metrics(tree: Tree, x: NDArray[np.float32]) -> dict[str, Any]:
    n = len(tree.leaf)
    paths = tree.paths() if n else np.zeros((0, 0), np.int64)
    return {
        "rows_in": n,
        "kept": n,
        "dropped": {},
        "clusters": tree.sizes,
        "gini": [round(gini(np.bincount(paths[:, level])), 4) for level in range(paths.shape[1])],
        "mean_distance": round(float(tree.distance.mean()), 6) if n else 0.0,
        "agreement": round(tree.agreement, 4),
        "without_embedding": int((~x.any(axis=1)).sum()),
    }


def _fragment(tree: Tree, metrics: dict[str, Any]) -> dict[str, Any]:
    n = max(metrics["rows_in"], 1)
    table = {
        "type": "table",
        "title": "Levels",
        "columns": ["level", "clusters", "pictures per cluster", "Gini of the sizes"],
        "rows": [
            [level, size, round(n / size, 2), metrics["gini"][level]] for level, size in enumerate(metrics["clusters"])
        ],
        "note": f"{metrics['without_embedding']} pictures have no embedding. Of a sample of pictures "
        f"{metrics['agreement']:.1%} are in the nearest of all leaves.",
    }
    distance = histogram("Distance to the leaf centroid", tree.distance.astype(np.float64), None, "1 - cosine")
    return {"title": "Clusters", "sections": [table, distance]}
