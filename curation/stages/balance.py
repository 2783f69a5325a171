"""balance: an even subset of exactly the target size, by clusters and by measured attributes."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from curation.balance.allocation import UNKNOWN, Allocation, allocate
from curation.balance.attributes import AXES, Person, columns
from curation.balance.divergence import gini, kl_to_uniform
from curation.balance.hierarchy import Tree
from curation.config import Config, recipe
from curation.stages.balance_report import fragment
from curation.stages.measures import floats, rows_for, sorted_by_id
from curation.stages.result import StageResult, decision_metrics
from curation.tables import ATTRIBUTES, BALANCE, DECISIONS, require_columns

__all__ = ["BalanceConfig", "people_of", "profile_config", "run"]

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
        crossed = [axis for axis in self.floors if axis in self.caps and self.floors[axis] > self.caps[axis]]
        if crossed:
            raise ValueError(f"on {crossed} the floor is above the cap; lower the floor")
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
    people = people_of(image_ids, images, detections, scores, config.min_person_score)
    attributes = columns(people)
    target = config.target(len(image_ids))
    caps = {axis: _caps(attributes[axis], share, target) for axis, share in config.caps.items()}
    floors = {axis: _floors(attributes[axis], share, target) for axis, share in config.floors.items()}
    representative = rows_for(deduped, image_ids, "balance: deduped")["representative_id"]
    quality = _quality(rows_for(scores, image_ids, "balance: scores"), people)
    found = allocate(
        tree_of(rows), target, attributes=attributes, caps=caps, floors=floors, quality=quality, seed=config.seed
    )
    table = _decisions(image_ids, found, representative.to_pylist())
    counts = _counts(attributes, found.keep, caps, floors)
    metrics = decision_metrics(table) | _metrics(found, attributes, rows, config)
    tables = {"data": table, "attributes": _attribute_table(image_ids, attributes), "balance": counts}
    return StageResult(tables, metrics, fragment(counts, metrics))


def tree_of(clusters: pa.Table) -> Tree:
    """The tree that a table of clusters describes; its centroids are not needed and left empty."""
    paths = clusters["path"].to_pylist()
    if not paths:
        return Tree([], [], np.zeros(0, np.int64), np.zeros(0, np.float32))
    path = np.array(paths, dtype=np.int64)
    sizes = path.max(axis=0) + 1
    parents = []
    for level in range(path.shape[1] - 1):
        parent = np.zeros(sizes[level], np.int64)
        parent[path[:, level]] = path[:, level + 1]
        parents.append(parent)
    empty = [np.zeros((int(size), 0), np.float32) for size in sizes]
    return Tree(empty, parents, path[:, 0], np.array(clusters["distance"].to_pylist(), dtype=np.float32))


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


def _quality(scores: pa.Table, people: list[Person]) -> NDArray[np.float64]:
    """Which of a cluster's pictures are taken first: aesthetic where there is one, then sharpness, then person size.

    The sum of ranks in 0..1, so that no unit outweighs another; a missing measurement counts as the middle.
    """
    px = [max((min(b[2] - b[0], b[3] - b[1]) for b in p.boxes), default=0.0) for p in people]
    parts = [floats(scores["aesthetic"]), floats(scores["sharpness"]), np.array(px, dtype=np.float64)]
    return np.sum([_ranks(part) for part in parts], axis=0) if people else np.zeros(0)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(len(values), 0.5)
    known = np.isfinite(values)
    _, inverse = np.unique(values[known], return_inverse=True)
    out[known] = (inverse + 0.5) / (inverse.max(initial=0) + 1)
    return out


def _caps(bins: Bins, share: float, target: int) -> dict[str, int]:
    return {name: ceil(share * target) for name in np.unique(bins).tolist() if name != UNKNOWN}


def _floors(bins: Bins, share: float, target: int) -> dict[str, int]:
    return {name: int(share * target) for name in np.unique(bins).tolist() if name != UNKNOWN}


def _decisions(image_ids: list[str], found: Allocation, representatives: list[str]) -> pa.Table:
    rows: dict[str, list[Any]] = {
        "image_id": image_ids,
        "keep": found.keep.tolist(),
        "reason": found.reason,
        "value": [None if np.isnan(v) else float(v) for v in found.value],
        "threshold": [None if np.isnan(v) else float(v) for v in found.threshold],
        "representative_id": representatives,
    }
    return pa.table(rows, schema=DECISIONS)


def _attribute_table(image_ids: list[str], attributes: Mapping[str, Bins]) -> pa.Table:
    rows = {
        "image_id": [image_id for image_id in image_ids for _ in attributes],
        "axis": list(attributes) * len(image_ids),
        "bin": [str(bins[row]) for row in range(len(image_ids)) for bins in attributes.values()],
    }
    return pa.table(rows, schema=ATTRIBUTES)


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
    leaf = np.array([path[0] for path in clusters["path"].to_pylist()], dtype=np.int64)
    size = int(leaf.max(initial=-1)) + 1
    return {
        "target": found.target,
        "axes": axes,
        "cluster_gini_before": round(gini(np.bincount(leaf, minlength=size)), 4),
        "cluster_gini_after": round(gini(np.bincount(leaf[found.keep], minlength=size)), 4),
        "notes": found.notes,
    }
