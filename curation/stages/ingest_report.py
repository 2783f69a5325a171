"""What the report shows of ingest: where sources ended, formats, sizes, and examples of every kind of reject."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

_EXAMPLES = 3
_LONGEST_NAME = 80


def fragment(sources: pa.Table, images: pa.Table, rejects: pa.Table, min_side_px: int) -> dict[str, Any]:
    """The fragment of a whole ingest, from its settled tables; `images` needs no bytes."""
    reasons = Counter(rejects["reason"].to_pylist())
    sections = [_outcome(sources, images, rejects), _formats(images), _short_sides(images, min_side_px)]
    if reasons:
        names = [name for name, _ in reasons.most_common()]
        series = [{"name": "sources", "values": [reasons[name] for name in names]}]
        sections.append({"type": "bars", "title": "Rejects by reason", "labels": names, "series": series})
        sections.append(_examples(rejects, names))
    sections.append(_origins(images))
    return {"title": "Ingest", "sections": sections}


def _outcome(sources: pa.Table, images: pa.Table, rejects: pa.Table) -> dict[str, Any]:
    held = sum(images["n_sources"].to_pylist())
    rows = [
        ["sources listed", sources.num_rows],
        ["distinct images", images.num_rows],
        ["exact copies of them", held - images.num_rows],
        ["rejected", rejects.num_rows],
    ]
    return {
        "type": "table",
        "title": "Where every source ended",
        "columns": ["", "sources"],
        "rows": rows,
        "note": "Listed = distinct images + exact copies + rejected.",
    }


def _formats(images: pa.Table) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    turned: Counter[str] = Counter()
    for row in images.select(["format", "n_bytes", "orientation"]).to_pylist():
        counts[row["format"]] += 1
        sizes[row["format"]] += row["n_bytes"]
        turned[row["format"]] += row["orientation"] != 1
    rows = [[name, n, round(sizes[name] / 1e6, 2), turned[name]] for name, n in counts.most_common()]
    return {
        "type": "table",
        "title": "Formats",
        "columns": ["format", "images", "MB", "turned upright (EXIF)"],
        "rows": rows,
        "note": "By magic bytes, not by extension.",
    }


def _short_sides(images: pa.Table, min_side_px: int) -> dict[str, Any]:
    short = np.minimum(images["width"].to_numpy(), images["height"].to_numpy())
    edges = np.unique(np.round(np.geomspace(min_side_px, max(int(short.max(initial=0)) + 1, 2 * min_side_px), 13)))
    counts = np.histogram(short, bins=edges)[0]
    return {
        "type": "histogram",
        "title": "Short side of distinct images",
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "threshold": min_side_px,
        "unit": "px",
        "note": "Smaller pictures were rejected by their header alone.",
    }


def _examples(rejects: pa.Table, names: list[str]) -> dict[str, Any]:
    shown: Counter[str] = Counter()
    rows = []
    for row in rejects.select(["reason", "source", "detail"]).to_pylist():
        if shown[row["reason"]] < _EXAMPLES:
            shown[row["reason"]] += 1
            rows.append([row["reason"], _short(row["source"]), _short(row["detail"])])
    rows.sort(key=lambda row: names.index(row[0]))
    return {
        "type": "table",
        "title": "Examples of rejects",
        "columns": ["reason", "source", "detail"],
        "rows": rows,
        "note": f"The first {_EXAMPLES} of each reason; the table `rejects` holds all.",
    }


def _origins(images: pa.Table) -> dict[str, Any]:
    """How many images say where they are from: what the realism score can read beside the pixels."""
    said: Counter[str] = Counter()
    names = {
        "make": "camera named",
        "exposure_recorded": "exposure recorded",
        "software": "software named",
        "digital_source_type": "IPTC digital source type",
        "c2pa": "content credentials (C2PA)",
        "generator": "generator parameters",
    }
    for text in images["metadata"].to_pylist():
        said.update(key for key in json.loads(text or "{}") if key in names)
    rows = [[title, said[key]] for key, title in names.items()]
    return {"type": "table", "title": "What the files say of their origin", "columns": ["", "images"], "rows": rows}


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME // 2]}…{text[-_LONGEST_NAME // 2 :]}"
