"""balance: an even subset of exactly the target size, by clusters and by measured attributes."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import model_validator

from curation.balance.allocation import UNKNOWN, Allocation, allocate
from curation.balance.attributes import AXES, Crowd, Person, columns_of
from curation.balance.divergence import gini, kl_to_uniform
from curation.balance.hierarchy import Tree
from curation.config import Config, execution, recipe
from curation.stages.balance_audit import Confusion, bins_of, mixing, told
from curation.stages.balance_report import fragment
from curation.stages.measures import boxes_of, floats, rows_for, sorted_by_id
from curation.stages.result import StageResult, decision_metrics
from curation.tables import ATTRIBUTES, BALANCE, DECISIONS, require_columns

__all__ = ["BalanceConfig", "crowd_of", "people_of", "profile_config", "run"]

Bins = NDArray[np.str_]


class BalanceConfig(Config):
    """How many pictures, and how even. Shares are of the target; unknown bins are never limited."""

    target_size: int | float = recipe(0.8, "pictures to select: a count, or with a decimal point (0.8) a share of them")
    caps: dict[str, float] = recipe(
        {"head_pose": 0.6, "person_count": 0.8, "luminance": 0.7}, "axis -> most of any bin, as a share of the target"
    )
    floors: dict[str, float] = recipe(
        {"head_pose": 0.05}, "axis -> least of any bin that has pictures, as a share of the target"
    )
    confusion: dict[str, Confusion] = recipe(
        {}, "axis -> labels of an audit, by which caps and floors hold for true bins (`sapiens2 audit calibrate --out`)"
    )
    provenance: dict[str, str] = execution(
        {}, "axis -> where its confusion comes from, as `sapiens2 audit calibrate` writes it"
    )
    min_person_score: float = recipe(0.3, "box score that counts as a person, 0..1", ge=0, le=1)
    seed: int = recipe(0, "of the turns that clusters take, no unit", ge=0)

    @model_validator(mode="after")
    def _limits_make_sense(self) -> Self:
        size = self.target_size
        if size <= 0 or (isinstance(size, float) and size > 1 and not size.is_integer()):
            raise ValueError(
                f"target_size={size} must be a positive count (5000) or a share of the pictures (0.8); choose one"
            )
        for name, limits in (("caps", self.caps), ("floors", self.floors)):
            unknown = sorted(set(limits) - set(AXES))
            if unknown:
                raise ValueError(f"{name} name the axes {unknown}; choose among {', '.join(AXES)}")
            if any(not 0 < share <= 1 for share in limits.values()):
                raise ValueError(f"{name} must be shares in (0, 1], got {limits}")
        strangers = sorted(set(self.confusion) - set(AXES))
        if strangers:
            raise ValueError(f"confusion names the axes {strangers}; choose among {', '.join(AXES)}")
        crossed = [axis for axis in self.floors if axis in self.caps and self.floors[axis] > self.caps[axis]]
        if crossed:
            told = ", ".join(f"{axis} ({self.floors[axis]} above {self.caps[axis]})" for axis in crossed)
            raise ValueError(f"the floor is above the cap on {told}; lower the floor, or raise the cap")
        return self

    def target(self, supply: int) -> int:
        """The number of pictures to select of `supply`: a float up to 1 is a share, rounded to the nearest picture."""
        if isinstance(self.target_size, float) and self.target_size <= 1:
            return max(1, round(self.target_size * supply)) if supply else 0
        return int(self.target_size)


def profile_config(profile: str) -> BalanceConfig:
    """The same limits in every profile; axes that a profile cannot measure are unknown and not limited."""
    return BalanceConfig()


def run(
    images: pa.Table,
    detections: pa.Table,
    scores: pa.Table,
    deduped: pa.Table,
    clusters: pa.Table,
    config: BalanceConfig,
) -> StageResult:
    """One decision per clustered picture, its attributes, and the counts per bin before and after.

    Raises ValueError for missing columns or rows.
    """
    require_columns(images, ["image_id", "width", "height"], "balance: images")
    rows = sorted_by_id(clusters)
    image_ids = rows["image_id"].to_pylist()
    crowd = crowd_of(image_ids, images, detections, scores, config.min_person_score)
    attributes = columns_of(crowd)
    target = config.target(len(image_ids))
    mixed = mixing(config.confusion, attributes)
    limited = {axis: bins_of(axis, attributes[axis], config.confusion) for axis in {**config.caps, **config.floors}}
    caps = {axis: dict.fromkeys(limited[axis], ceil(share * target)) for axis, share in config.caps.items()}
    floors = {axis: dict.fromkeys(limited[axis], int(share * target)) for axis, share in config.floors.items()}
    representative = rows_for(deduped, image_ids, "balance: deduped", ["representative_id"])["representative_id"]
    quality = _quality(rows_for(scores, image_ids, "balance: scores", ["aesthetic", "sharpness"]), crowd)
    found = allocate(
        tree_of(rows),
        target,
        attributes=attributes,
        caps=caps,
        floors=floors,
        quality=quality,
        seed=config.seed,
        mixing=mixed,
    )
    table = _decisions(image_ids, found, representative)
    counts = _counts(attributes, found.keep, caps, floors)
    metrics = decision_metrics(table) | _metrics(found, attributes, rows, config)
    metrics["true_shares"] = told(config.confusion, config.provenance, attributes, found.keep, config.caps)
    tables = {"data": table, "attributes": _attribute_table(image_ids, attributes), "balance": counts}
    return StageResult(tables, metrics, fragment(counts, metrics))


def tree_of(clusters: pa.Table) -> Tree:
    """The tree that a table of clusters describes; its centroids are not needed and left empty."""
    if not clusters.num_rows:
        return Tree([], [], np.zeros(0, np.int64), np.zeros(0, np.float32))
    path = _paths(clusters)
    sizes = path.max(axis=0) + 1
    parents = []
    for level in range(path.shape[1] - 1):
        parent = np.zeros(sizes[level], np.int64)
        parent[path[:, level]] = path[:, level + 1]
        parents.append(parent)
    empty = [np.zeros((int(size), 0), np.float32) for size in sizes]
    return Tree(empty, parents, path[:, 0], floats(clusters["distance"]).astype(np.float32))


def _paths(clusters: pa.Table) -> NDArray[np.int64]:
    """int64 [N, levels] of a table of clusters."""
    flat = pc.list_flatten(clusters["path"]).to_numpy().astype(np.int64)
    return flat.reshape(clusters.num_rows, -1) if clusters.num_rows else np.zeros((0, 1), np.int64)


def crowd_of(
    image_ids: list[str], images: pa.Table, detections: pa.Table, scores: pa.Table, min_person_score: float
) -> Crowd:
    """What the attributes are measured on, as columns in order of the ids. Raises ValueError for missing rows."""
    size = rows_for(images, image_ids, "balance: images", ["width", "height"])
    found = rows_for(detections, image_ids, "balance: detections", ["boxes", "box_scores"])
    boxes = boxes_of(found).at_least(min_person_score)
    names = ["face_count", "yaw_deg", "exposure", "colour_temperature"]
    measured = rows_for(scores, image_ids, "balance: scores", names)
    numbers = {name: floats(measured[name]) for name in names}
    return Crowd(floats(size["width"]), floats(size["height"]), boxes.row, boxes.corners, **numbers)


def people_of(
    image_ids: list[str], images: pa.Table, detections: pa.Table, scores: pa.Table, min_person_score: float
) -> list[Person]:
    """What the attributes of pictures are measured on, in order of the ids. Raises ValueError for missing rows."""
    size = rows_for(images, image_ids, "balance: images").select(["width", "height"]).to_pylist()
    found = rows_for(detections, image_ids, "balance: detections").select(["boxes", "box_scores"]).to_pylist()
    names = ["face_count", "yaw_deg", "exposure", "colour_temperature"]
    measured = rows_for(scores, image_ids, "balance: scores").select(names).to_pylist()
    return [
        Person(
            s["width"],
            s["height"],
            [b for b, p in zip(d["boxes"] or [], d["box_scores"] or [], strict=True) if p >= min_person_score],
            **m,
        )
        for s, d, m in zip(size, found, measured, strict=True)
    ]


def _quality(scores: pa.Table, crowd: Crowd) -> NDArray[np.float64]:
    """Which of a cluster's pictures are taken first: aesthetic where there is one, then sharpness, then person size.

    The sum of ranks in 0..1, so that no unit outweighs another; a missing measurement counts as the middle.
    """
    x0, y0, x1, y1 = crowd.boxes.T
    px = np.zeros(len(crowd.width))
    np.maximum.at(px, crowd.row, np.minimum(x1 - x0, y1 - y0))
    return np.sum([_ranks(part) for part in (floats(scores["aesthetic"]), floats(scores["sharpness"]), px)], axis=0)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(len(values), 0.5)
    known = np.isfinite(values)
    _, inverse = np.unique(values[known], return_inverse=True)
    out[known] = (inverse + 0.5) / (inverse.max(initial=0) + 1)
    return out


def _decisions(image_ids: list[str], found: Allocation, representatives: pa.ChunkedArray) -> pa.Table:
    columns: dict[str, Any] = {
        "image_id": image_ids,
        "keep": found.keep,
        "reason": found.reason,
        "value": pa.array(found.value, mask=np.isnan(found.value)),
        "threshold": pa.array(found.threshold, mask=np.isnan(found.threshold)),
        "representative_id": representatives,
    }
    return pa.table(columns, schema=DECISIONS)


def _attribute_table(image_ids: list[str], attributes: Mapping[str, Bins]) -> pa.Table:
    n = len(image_ids)
    ids, axes = pa.array(image_ids, pa.string()), pa.array(list(attributes))
    columns = {
        "image_id": ids.take(pa.array(np.repeat(np.arange(n), len(attributes)))),
        "axis": axes.take(pa.array(np.tile(np.arange(len(attributes)), n))),
        "bin": pa.array(np.stack(list(attributes.values()), axis=1).ravel(), pa.string()),
    }
    return pa.table(columns, schema=ATTRIBUTES)


def _counts(
    attributes: Mapping[str, Bins],
    keep: NDArray[np.bool_],
    caps: Mapping[str, Mapping[str, int]],
    floors: Mapping[str, Mapping[str, int]],
) -> pa.Table:
    rows: dict[str, list[Any]] = {name: [] for name in BALANCE.names}
    for axis, bins in attributes.items():
        for name in np.unique(bins).tolist():
            rows["axis"].append(axis)
            rows["bin"].append(name)
            rows["before"].append(int((bins == name).sum()))
            rows["after"].append(int((bins[keep] == name).sum()))
            rows["floor"].append(floors.get(axis, {}).get(name))
            rows["cap"].append(caps.get(axis, {}).get(name))
    return pa.table(rows, schema=BALANCE)


def _metrics(
    found: Allocation, attributes: Mapping[str, Bins], clusters: pa.Table, config: BalanceConfig
) -> dict[str, Any]:
    axes = {}
    for axis, bins in attributes.items():
        known = bins != UNKNOWN
        names = np.unique(bins[known])
        before, after = ([int((bins[rows] == n).sum()) for n in names] for rows in (known, known & found.keep))
        axes[axis] = {
            "gini_before": round(gini(before), 4),
            "gini_after": round(gini(after), 4),
            "kl_before": round(kl_to_uniform(before), 4),
            "kl_after": round(kl_to_uniform(after), 4),
            "unknown": int((~known).sum()),
        }
    leaf = _paths(clusters)[:, 0]
    size = int(leaf.max(initial=-1)) + 1
    return {
        "target": found.target,
        "axes": axes,
        "cluster_gini_before": round(gini(np.bincount(leaf, minlength=size)), 4),
        "cluster_gini_after": round(gini(np.bincount(leaf[found.keep], minlength=size)), 4),
        "notes": found.notes,
    }
