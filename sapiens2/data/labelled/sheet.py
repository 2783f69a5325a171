"""Samples drawn with their labels over them, as one picture and as one page with what the check found."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from sapiens2.data.labelled.check import Report
from sapiens2.tasks.drawing import draw_albedo, draw_depth, draw_keypoints, draw_normals, draw_parts
from sapiens2.tasks.sample import Sample

Array = np.ndarray
TILE_PX = 320  # height of a tile


def draw_labels(task: str, sample: Sample) -> Array:
    """The labels of a sample over, or beside, its picture: uint8 [H, W or 2 W, 3]."""
    image, valid = sample.image, sample.valid
    if task == "pose":
        assert sample.keypoints is not None and sample.labelled is not None
        return _with_box(draw_keypoints(image, sample.keypoints, sample.labelled, thickness=_line(image)), sample.box)
    if task == "segmentation":
        assert sample.mask is not None
        return _hatched(draw_parts(image, sample.mask), sample.mask == 255)
    assert valid is not None
    if task == "normal":
        assert sample.normals is not None
        drawn = draw_normals(sample.normals, valid)
    elif task == "pointmap":
        assert sample.points is not None
        drawn = draw_depth(sample.points, valid)
    else:
        assert sample.albedo is not None
        drawn = draw_albedo(sample.albedo, valid)
    return np.concatenate([image, drawn], 1)


def _line(image: Array) -> int:
    return max(1, round(max(image.shape[:2]) / 400))


def _with_box(image: Array, box: Array | None) -> Array:
    import cv2

    if box is not None:
        x0, y0, x1, y1 = (round(float(v)) for v in box)
        cv2.rectangle(image, (x0, y0), (x1, y1), (255, 255, 255), 1, cv2.LINE_AA)
    return image


def _hatched(image: Array, unknown: Array) -> Array:
    """Unknown pixels under diagonal lines."""
    rows, columns = np.indices(unknown.shape)
    lines = unknown & ((rows + columns) % 6 == 0)
    return np.where(lines[..., None], np.uint8(255), image)


def tile(task: str, sample: Sample, height: int = TILE_PX) -> Array:
    """A drawn sample, cropped to its box where it has one, of `height` pixels."""
    import cv2

    if task == "pose" and sample.box is not None:
        drawn = draw_labels(task, _enlarged(sample, height))
    else:
        drawn = draw_labels(task, sample)
    scale = height / drawn.shape[0]
    size = (max(1, round(drawn.shape[1] * scale)), height)
    return np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))


def _enlarged(sample: Sample, height: int) -> Sample:
    """The person of a sample alone, large enough to see its points."""
    from sapiens2.tasks.affine import region_matrix, warp

    assert sample.box is not None
    x0, y0, x1, y1 = sample.box.astype(float)
    pad = 0.12 * max(x1 - x0, y1 - y0, 1.0)
    region = np.array([x0 - pad, y0 - pad, x1 + pad, y1 + pad])
    width = max(32, round(height * (region[2] - region[0]) / (region[3] - region[1])))
    return warp(sample, region_matrix(region, (height, width)), (height, width))


def contact_sheet(tiles: Sequence[Array], width: int = 1600) -> Array:
    """Tiles of one height in rows of at most `width` pixels, on white: uint8 [H, width, 3]."""
    rows: list[list[Array]] = [[]]
    for each in tiles:
        each = each[:, :width]
        if rows[-1] and sum(t.shape[1] + 4 for t in rows[-1]) + each.shape[1] > width:
            rows.append([])
        rows[-1].append(each)
    strips = []
    for row in rows:
        strip = np.full((max((t.shape[0] for t in row), default=1) + 4, width, 3), 255, np.uint8)
        left = 0
        for each in row:
            strip[: each.shape[0], left : left + each.shape[1]] = each
            left += each.shape[1] + 4
        strips.append(strip)
    return np.concatenate(strips)


def page(report: Report, limit: int = 200) -> str:
    """One self-contained page: what there is, what is wrong, and samples of every task."""
    parts = [f"<h1>{html.escape(report.facts.name or report.folder)}</h1>", f"<p>{html.escape(_summary(report))}</p>"]
    if report.problems:
        items = "".join(f"<li>{html.escape(str(problem))}</li>" for problem in report.problems[:limit])
        more = len(report.problems) - limit
        parts.append(f"<h2>Problems</h2><ul>{items}</ul>" + (f"<p>and {more} more</p>" if more > 0 else ""))
    for task, counts in report.counts.items():
        rows = "".join(f"<tr><td>{html.escape(k)}<td>{html.escape(range_text(v))}" for k, v in counts.items())
        pictures = "".join(_figure(task, row.where, sample) for t, row, sample in report.shown if t == task)
        parts.append(f"<h2>{task}</h2><table>{rows}</table><div>{pictures}</div>")
    return f"<!doctype html><meta charset=utf-8><title>Labelled data</title><style>{_STYLE}</style>{''.join(parts)}"


_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2rem;max-width:1700px}td{padding:.1rem 1rem .1rem 0;vertical-align:top}"
    "figure{display:inline-block;margin:.3rem}figcaption{font-size:12px;color:#555;max-width:30rem;overflow-wrap:anywhere}"
)


def _summary(report: Report) -> str:
    return (
        f"{report.rows} rows, {report.errors} errors, {len(report.problems) - report.errors} warnings. Stored axes: "
        f"{report.facts.axes}. Normals are drawn right red, up green, towards the camera blue; near is warm."
    )


def range_text(value: Any) -> str:
    """A count, a range or a table of counts, for reading."""
    if isinstance(value, list):
        return f"{value[0]:g} to {value[2]:g}, median {value[1]:g}"
    return json.dumps(value).strip("{}").replace('"', "") if isinstance(value, dict) else str(value)


def _figure(task: str, where: str, sample: Sample) -> str:
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(tile(task, sample), cv2.COLOR_RGB2BGR))
    assert done
    encoded = base64.b64encode(data.tobytes()).decode()
    caption = html.escape(where.rsplit("/", 1)[-1])
    return f'<figure><img src="data:image/jpeg;base64,{encoded}"><figcaption>{caption}</figcaption></figure>'
