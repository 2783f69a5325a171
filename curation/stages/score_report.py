"""What the report shows of `scores`: how each measurement is distributed, and the pictures at its ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.audit.contact_sheet import BLUR_NSFW, blurred, sheet, sheet_item, thumbnail
from curation.tables import SCORE_COLUMNS

Fetch = Callable[[list[str]], dict[str, bytes]]

_UNITS = {
    "exposure": "mean luminance, 0..1",
    "noise": "grey levels",
    "colour_count": "of 4096 colours",
    "text_ratio": "share of the picture",
    "text_person_overlap": "share of the person box",
    "yaw_deg": "degrees, positive to the image's right",
    "pitch_deg": "degrees, positive up",
    "roll_deg": "degrees, positive clockwise",
}
_SHEETS = ("realism", "text_ratio", "sharpness", "aesthetic")
_ENDS = 6
_THUMBNAIL_PX = 240
_BINS = 30


def fragment(
    scores: pa.Table,
    detections: pa.Table | None = None,
    *,
    images: pa.Table | None = None,
    fetch: Fetch | None = None,
    config: Any = None,
) -> dict[str, Any]:
    """Sections for the report: a table of what was measured, a histogram per column, contact sheets of the extremes.

    fetch: encoded bytes by image_id; without it there are no pictures. detections, images and config are not needed.
    Pictures whose nsfw score is at least 0.5 are blurred before they are shown.
    """
    sections: list[dict[str, Any]] = [_summary(scores)]
    for name in _numeric():
        values = _values(scores, name)
        if len(values) > 1:
            sections.append(_histogram(name, values))
    if fetch is not None:
        sections += [sheet for name in _SHEETS if (sheet := _ends(scores, name, fetch)) is not None]
    return {"title": "Scores", "sections": sections}


def _numeric() -> list[str]:
    return [name for name, kind in SCORE_COLUMNS if not pa.types.is_fixed_size_list(kind)]


def _values(scores: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return np.asarray(scores[name].drop_null().to_numpy(), dtype=np.float64)


def _summary(scores: pa.Table) -> dict[str, Any]:
    """Rows, rows behind the gate, and the quartiles of every column."""
    scored = pc.sum(scores["scored"]).as_py() or 0
    rows: list[list[Any]] = []
    for name in _numeric():
        values = _values(scores, name)
        if len(values):
            quartiles = [round(float(q), 4) for q in np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0))]
            rows.append([name, len(values), *quartiles])
        else:
            rows.append([name, 0, None, None, None, None, None])
    note = f"{scores.num_rows} pictures, of which {scored} passed the gate to the expensive scorers"
    columns = ["column", "measured", "least", "lower quartile", "median", "upper quartile", "greatest"]
    return {"type": "table", "title": "What was measured", "columns": columns, "rows": rows, "note": note}


def _histogram(name: str, values: np.ndarray[Any, Any]) -> dict[str, Any]:
    counts, edges = np.histogram(values, bins=_BINS)
    return {
        "type": "histogram",
        "title": name,
        "edges": [float(e) for e in edges],
        "counts": [int(c) for c in counts],
        "threshold": None,
        "unit": _UNITS.get(name, name),
    }


def _ends(scores: pa.Table, name: str, fetch: Fetch) -> dict[str, Any] | None:
    """The pictures with the least and the greatest values of a column."""
    measured = scores.filter(pc.is_valid(scores[name])).select(["image_id", name, "nsfw"])
    if measured.num_rows < 2:
        return None
    rows = measured.sort_by([(name, "ascending"), ("image_id", "ascending")]).to_pylist()
    count = min(_ENDS, len(rows) // 2)
    chosen = rows[:count] + rows[-count:]
    encoded = fetch([row["image_id"] for row in chosen])
    items = []
    for row in chosen:
        jpeg = thumbnail(encoded[row["image_id"]], max_side=_THUMBNAIL_PX)
        if jpeg is not None:
            image_id, caption = row["image_id"], f"{name} {row[name]:.3f}"
            shown = blurred(jpeg) if (row["nsfw"] or 0.0) >= BLUR_NSFW else jpeg
            items.append(sheet_item(shown, caption, image_id[:12], image_id=image_id))
    return sheet(f"Least and greatest {name}", items)
