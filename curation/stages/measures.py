"""What the rules of filter look at: one float column per measurement, one row per image, NaN where not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.tables import BOX, SCORE_COLUMNS, require_columns

Floats = NDArray[np.float64]
_WIDE_ROWS = 1 << 16  # rows of vectors that are picked out at a time: bounds memory


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
    """The table in the order of image_id, so that no decision depends on the order of its input rows.

    Raises ValueError where a picture has more than one row.
    """
    ordered = table.sort_by("image_id")
    ids = ordered["image_id"].combine_chunks()
    again = ids[1:].filter(pc.equal(ids[1:], ids[:-1]))
    if len(again):
        raise ValueError(_twice(len(again), again[0].as_py()))
    return ordered


def refuse_repeated(table: pa.Table, where: str) -> None:
    """Raises ValueError where a picture has more than one row: which of them counts would be chance."""
    ids = table["image_id"].combine_chunks()
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(ids)
        again = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        raise ValueError(f"{where}: {_twice(len(ids) - len(counts), again[0].as_py())}")


def _twice(count: int, image_id: str) -> str:
    return f"{count} rows repeat an image_id, the first is {image_id}: a picture has one row; rerun the step before"


def rows_for(
    table: pa.Table, image_ids: Sequence[str] | pa.Array, where: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of `table` that belong to `image_ids`, in that order; ValueError when one is missing.

    columns: only these, which spares the copy of wide vectors that are not asked for.
    """
    at = _places(table, image_ids, where)
    chosen = table if columns is None else table.select(list(columns))
    in_order = len(at) == table.num_rows and np.array_equal(at.to_numpy(), np.arange(len(at)))
    return chosen if in_order else chosen.take(at)


def _places(table: pa.Table, image_ids: Sequence[str] | pa.Array, where: str) -> pa.Array:
    wanted = pa.array(image_ids, pa.string())
    at = pc.index_in(wanted, value_set=table["image_id"].cast(pa.string()).combine_chunks())
    if at.null_count:
        first = wanted.filter(at.is_null())[0].as_py()
        raise ValueError(f"{where}: {at.null_count} images have no row, the first is {first}; rerun the stage")
    return at


def vectors_for(table: pa.Table, image_ids: Sequence[str], where: str, column: str) -> NDArray[np.float32]:
    """As `vectors` of the rows that belong to `image_ids`, without a second copy of them: float32 [N, D]."""
    at, wide = _places(table, image_ids, where), table[column]
    if not pa.types.is_fixed_size_list(wide.type):
        return vectors(wide.take(at))
    out = np.empty((len(at), wide.type.list_size), np.float32)
    for start in range(0, len(at), _WIDE_ROWS):
        out[start : start + _WIDE_ROWS] = vectors(wide.take(at[start : start + _WIDE_ROWS]))
    return out


def floats(column: pa.ChunkedArray) -> Floats:
    """A column as float64, null as NaN."""
    filled = pc.fill_null(column.cast(pa.float64(), safe=False), float("nan"))
    return np.asarray(filled.to_numpy(), dtype=np.float64)


def vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """float32 [N, D] of a column of fixed-size lists; rows of zeros for nulls."""
    if not pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(pa.float32(), 1))
    dim = column.type.list_size
    out, start = np.zeros((len(column), dim), np.float32), 0
    for chunk in column.chunks:
        block = out[start : start + len(chunk)]
        block[chunk.is_valid().to_numpy(zero_copy_only=False)] = _flat(chunk).reshape(-1, dim)
        start += len(chunk)
    return out


def _flat(chunk: pa.Array) -> NDArray[np.float32]:
    return np.asarray(chunk.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)


@dataclass(frozen=True)
class Boxes:
    """Every person box of a table of detections: `row` int64 [B] it belongs to, `corners` [B, 4] in px, `score` [B]."""

    row: NDArray[np.int64]
    corners: Floats
    score: Floats

    def at_least(self, min_score: float) -> Boxes:
        """Those of this score and above."""
        chosen = self.score >= min_score
        return Boxes(self.row[chosen], self.corners[chosen], self.score[chosen])

    def short_side_px(self) -> Floats:
        """The smaller of width and height of each box."""
        x0, y0, x1, y1 = self.corners.T
        return np.minimum(x1 - x0, y1 - y0)

    def largest(self, values: Floats, n: int) -> Floats:
        """The largest value of each of `n` rows, 0 for rows without a box."""
        out = np.zeros(n)
        np.maximum.at(out, self.row, values)
        return out


def boxes_of(detections: pa.Table) -> Boxes:
    """All boxes of all rows, in order. Raises ValueError where a row has more boxes than scores, or fewer."""
    corners = detections["boxes"].cast(pa.list_(BOX)).combine_chunks()
    scores = detections["box_scores"].cast(pa.list_(pa.float32())).combine_chunks()
    counts, scored = (pc.fill_null(pc.list_value_length(x), 0).to_numpy() for x in (corners, scores))
    if (counts != scored).any():
        row = int(np.argmax(counts != scored))
        raise ValueError(f"detections: row {row} has {counts[row]} boxes and {scored[row]} scores; rerun detect")
    flat = corners.flatten().flatten().to_numpy(zero_copy_only=False)
    score = scores.flatten().to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(counts)), counts)
    return Boxes(rows, flat.astype(np.float64).reshape(-1, 4), score.astype(np.float64))


def largest_person_px(detections: pa.Table, min_score: float) -> Floats:
    """Short side in px of the largest box with at least `min_score`, 0 without one; in the order of the table."""
    found = boxes_of(detections).at_least(min_score)
    return found.largest(found.short_side_px(), detections.num_rows)


def measure(images: pa.Table, detections: pa.Table, scores: pa.Table, config: PersonBounds) -> Measures:
    """All columns that rules may name. Raises ValueError for missing columns or rows."""
    require_columns(detections, ["image_id", "boxes", "box_scores"], "filter: detections")
    require_columns(scores, ["image_id", "scored", *(name for name, _ in SCORE_COLUMNS)], "filter: scores")
    images = sorted_by_id(images)
    refuse_repeated(detections, "filter: detections")
    refuse_repeated(scores, "filter: scores")
    image_ids = images["image_id"].to_pylist()
    numbers = [name for name, kind in SCORE_COLUMNS if not pa.types.is_fixed_size_list(kind)]
    boxes = boxes_of(rows_for(detections, image_ids, "filter: detections", ["boxes", "box_scores"]))
    scored = rows_for(scores, image_ids, "filter: scores", ["scored", *numbers])
    columns = {name: floats(scored[name]) for name in numbers}
    columns["unscored"] = 1.0 - pc.fill_null(scored["scored"], False).to_numpy().astype(np.float64)
    accepted = boxes.at_least(config.min_person_score)
    columns["person_px"] = accepted.largest(accepted.short_side_px(), len(image_ids))
    columns["person_score"] = boxes.largest(boxes.score, len(image_ids))
    sides = np.stack([floats(images["width"]), floats(images["height"])])
    columns["aspect"] = sides.max(axis=0) / np.maximum(sides.min(axis=0), 1.0)
    columns["licence_refused"] = _refused(images["licence"], config)
    return Measures(image_ids, columns)


def _refused(licences: pa.ChunkedArray, config: PersonBounds) -> Floats:
    """1 for a licence that the lists refuse, 0 for one that they do not, NaN where no licence is known."""
    blocked = {name.casefold() for name in config.blocked_licences}
    allowed = {name.casefold() for name in config.allowed_licences}

    def verdict(licence: str) -> float:
        name = licence.strip().casefold()
        return float(name in blocked or (bool(allowed) and name not in allowed)) if name else np.nan

    named = licences.cast(pa.string()).combine_chunks().dictionary_encode()
    verdicts = np.array([*map(verdict, named.dictionary.to_pylist()), np.nan])
    return verdicts[pc.fill_null(named.indices, len(verdicts) - 1).to_numpy()]
