"""What the report shows of `detections`: how many persons, how large, and pictures with their boxes drawn."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

Fetch = Callable[[list[str]], dict[str, bytes]]

_SHOWN = 8
_THUMBNAIL_PX = 300
_MOST_PERSONS = 8
_COLOURS = {True: (60, 200, 90), False: (250, 170, 40)}  # refined, measured once


def fragment(
    detections: pa.Table, *, images: pa.Table | None = None, fetch: Fetch | None = None, config: Any = None
) -> dict[str, Any]:
    """Sections for the report: a summary, persons per picture, short sides, scores, a contact sheet of detections.

    fetch: encoded bytes by image_id; without it there are no pictures. images is not needed.
    """
    boxes: list[list[list[float]]] = detections["boxes"].to_pylist()
    sizes = np.array([min(b[2] - b[0], b[3] - b[1]) for row in boxes for b in row])
    largest = np.array([max(min(b[2] - b[0], b[3] - b[1]) for b in row) for row in boxes if row])
    sections = [_summary(detections, boxes, config), _counts(boxes)]
    if len(sizes):
        sections += [
            _sizes("Short side of every person box", sizes),
            _sizes("Short side of each picture's largest person", largest),
            _scores(detections),
        ]
    if fetch is not None and len(sizes):
        sections.append(_sheet(detections, fetch))
    return {"title": "Detections", "sections": sections}


def _summary(detections: pa.Table, boxes: list[list[list[float]]], config: Any) -> dict[str, Any]:
    persons = sum(len(row) for row in boxes)
    refined = sum(sum(row) for row in detections["refined"].to_pylist())
    rows: list[list[str | int]] = [
        ["pictures", len(boxes)],
        ["with a person", sum(bool(row) for row in boxes)],
        ["persons", persons],
        ["measured again at full resolution", refined],
    ]
    if config is not None:
        rows.insert(0, ["detector", config.model])
        rows.append(["lowest score stored", config.score_floor])
    return {"type": "table", "title": "What was found", "columns": ["", "value"], "rows": rows}


def _counts(boxes: list[list[list[float]]]) -> dict[str, Any]:
    counts = Counter(min(len(row), _MOST_PERSONS) for row in boxes)
    labels = [str(n) for n in range(_MOST_PERSONS)] + [f"{_MOST_PERSONS}+"]
    values = [counts[n] for n in range(_MOST_PERSONS + 1)]
    series = [{"name": "pictures", "values": values}]
    return {"type": "bars", "title": "Persons per picture", "labels": labels, "series": series}


def _sizes(title: str, sizes: np.ndarray[Any, Any]) -> dict[str, Any]:
    edges = np.unique(np.round(np.geomspace(max(1.0, sizes.min()), max(sizes.max() + 1, 2.0), 25)))
    edges[0] = min(edges[0], sizes.min())
    edges[-1] = max(edges[-1], sizes.max())
    counts = np.histogram(sizes, bins=edges)[0]
    return {
        "type": "histogram",
        "title": title,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "threshold": None,
        "unit": "px of the original",
    }


def _scores(detections: pa.Table) -> dict[str, Any]:
    best = [row[0] for row in detections["box_scores"].to_pylist() if row]
    counts, edges = np.histogram(best, bins=20, range=(0, 1))
    return {
        "type": "histogram",
        "title": "Score of each picture's best box",
        "edges": np.round(edges, 3).tolist(),
        "counts": counts.tolist(),
        "threshold": None,
        "unit": "detector score",
    }


def _sheet(detections: pa.Table, fetch: Fetch) -> dict[str, Any]:
    """Pictures spread evenly over the scores of their best box, so that the doubtful end is seen as well."""
    found = [row for row in detections.to_pylist() if row["boxes"]]
    found.sort(key=lambda row: (-row["box_scores"][0], row["image_id"]))
    picked = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(_SHOWN, len(found))).astype(int))]
    encoded = fetch([row["image_id"] for row in picked])
    items = [item for row in picked if (item := _item(row, encoded[row["image_id"]])) is not None]
    note = "Green: measured again at full resolution. Amber: measured once."
    return {"type": "images", "title": "Detections, from the surest to the most doubtful", "items": items, "note": note}


def _item(row: dict[str, Any], data: bytes) -> dict[str, Any] | None:
    import cv2
    import simplejpeg

    from curation.images.decode import Image, decode

    image = decode(data, min_side=_THUMBNAIL_PX)
    if not isinstance(image, Image):
        return None
    factor = min(1.0, _THUMBNAIL_PX / max(image.pixels.shape[:2]))
    size = [max(1, round(side * factor)) for side in image.pixels.shape[1::-1]]
    small = np.ascontiguousarray(cv2.resize(image.pixels, size, interpolation=cv2.INTER_AREA))
    per_px = max(small.shape[:2]) / max(image.width, image.height)
    for box, refined in zip(row["boxes"], row["refined"], strict=True):
        x0, y0, x1, y1 = (round(value * per_px) for value in box)
        cv2.rectangle(small, (x0, y0), (x1, y1), _COLOURS[bool(refined)], 2)
    jpeg = simplejpeg.encode_jpeg(small, quality=80, colorspace="RGB")
    caption = f"best score {row['box_scores'][0]:.2f}, {len(row['boxes'])} found"
    shown = {"jpeg": base64.b64encode(jpeg).decode(), "caption": caption, "sub": row["image_id"][:12]}
    return shown | {"image_id": row["image_id"]}  # so that a page made after the NSFW scores can blur it
