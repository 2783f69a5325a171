"""What the rules of filter look at: one float column per measurement, one row per image, NaN where not measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curation.tables import SCORE_COLUMNS, require_columns

Floats = NDArray[np.float64]


class PersonBounds(Protocol):
    """The part of FilterConfig that decides what is measured rather than what it is held against."""

    min_person_score: float
    blocked_licences: tuple[str, ...]
    allowed_licences: tuple[str, ...]


@dataclass(frozen=True)
class Measures:
    """`columns[name]` is float64 [N] in the order of `image_ids`, which are sorted."""

    image_ids: list[str]
    columns: dict[str, Floats]


def sorted_by_id(table: pa.Table) -> pa.Table:
    """The table in the order of image_id, so that no decision depends on the order of its input rows."""
    return table.sort_by("image_id")


def rows_for(table: pa.Table, image_ids: list[str], where: str) -> pa.Table:
    """The rows of `table` that belong to `image_ids`, in that order; ValueError when one is missing."""
    position = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
    missing = [image_id for image_id in image_ids if image_id not in position]
    if missing:
        raise ValueError(f"{where}: {len(missing)} images have no row, the first is {missing[0]}; rerun the stage")
    return table.take(pa.array([position[image_id] for image_id in image_ids], pa.int64()))


def floats(column: pa.ChunkedArray) -> Floats:
    """A column as float64, null as NaN."""
    return np.array([np.nan if value is None else float(value) for value in column.to_pylist()], dtype=np.float64)


def largest_person_px(detections: pa.Table, min_score: float) -> Floats:
    """Short side in px of the largest box with at least `min_score`, 0 without one; in the order of the table."""
    sizes = []
    for boxes, scores in zip(detections["boxes"].to_pylist(), detections["box_scores"].to_pylist(), strict=True):
        accepted = [b for b, s in zip(boxes or [], scores or [], strict=True) if s >= min_score]
        sizes.append(max((min(x1 - x0, y1 - y0) for x0, y0, x1, y1 in accepted), default=0.0))
    return np.array(sizes, dtype=np.float64)


def measure(images: pa.Table, detections: pa.Table, scores: pa.Table, config: PersonBounds) -> Measures:
    """All columns that rules may name. Raises ValueError for missing columns or rows."""
    require_columns(detections, ["image_id", "boxes", "box_scores"], "filter: detections")
    require_columns(scores, ["image_id", "scored", *(name for name, _ in SCORE_COLUMNS)], "filter: scores")
    images = sorted_by_id(images)
    image_ids = images["image_id"].to_pylist()
    found = rows_for(detections, image_ids, "filter: detections")
    scored = rows_for(scores, image_ids, "filter: scores")
    columns = {name: floats(scored[name]) for name, kind in SCORE_COLUMNS if not pa.types.is_fixed_size_list(kind)}
    columns["unscored"] = np.array([not value for value in scored["scored"].to_pylist()], dtype=np.float64)
    columns["person_px"] = largest_person_px(found, config.min_person_score)
    best = [max(values or [0.0]) for values in found["box_scores"].to_pylist()]
    columns["person_score"] = np.array(best, dtype=np.float64)
    sides = np.stack([floats(images["width"]), floats(images["height"])])
    columns["aspect"] = sides.max(axis=0) / np.maximum(sides.min(axis=0), 1.0)
    columns["licence_refused"] = _refused(images["licence"].to_pylist(), config)
    return Measures(image_ids, columns)


def _refused(licences: Iterable[str | None], config: PersonBounds) -> Floats:
    """1 for a licence that the lists refuse, 0 for one that they do not, NaN where no licence is known."""
    blocked = {name.casefold() for name in config.blocked_licences}
    allowed = {name.casefold() for name in config.allowed_licences}
    out = []
    for licence in licences:
        if licence is None or not licence.strip():
            out.append(np.nan)
            continue
        name = licence.strip().casefold()
        out.append(float(name in blocked or (bool(allowed) and name not in allowed)))
    return np.array(out, dtype=np.float64)
