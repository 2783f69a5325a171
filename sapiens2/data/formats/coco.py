"""Keypoint annotations in COCO's JSON, of any layout of the table, to rows of the index.

One JSON object: images (id, file_name, width, height) and annotations (image_id, bbox x y w h, keypoints as a flat
list of x, y, v). COCO-WholeBody's own keys (foot_kpts, face_kpts, lefthand_kpts, righthand_kpts) are appended in that
order where present. [cocodataset.org, data format; COCO-WholeBody, arXiv 2007.11858]
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sapiens2.data.formats.vocabularies import OWN, Layout, layout
from sapiens2.data.labelled.layout import LabelError, Row

Array = np.ndarray
WHOLEBODY_KEYS = (("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21))
BODY_POINTS = 26  # visibility is 0, 1 or 2 up to here in every layout; beyond it is a confidence


@dataclass
class Converted:
    """Rows of the index, and what was left out, by reason."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read_coco(path: str | Path, name: str, *, images: str = "images", split: str = "train") -> Converted:
    """The people of a COCO-like file whose points are in the layout `name`.

    images: what file names are relative to, as seen from the folder of the index. Crowds and people without a mapped
    point are left out and counted; points outside the picture lose their label and are counted. Raises LabelError for a
    file that is not of this format, ValueError for an unknown layout.
    """
    which, where = layout(name), str(path)
    content = load_coco(where)
    pictures = {image["id"]: image for image in content["images"]}
    out = Converted()
    for number, annotation in enumerate(content["annotations"], 1):
        here = f"{where} annotation {annotation.get('id', number)}"
        if annotation.get("image_id") not in pictures:
            raise LabelError(here, f"names the image {annotation.get('image_id')}", "list that image in `images`")
        if annotation.get("iscrowd"):
            out.left_out["crowds"] += 1
            continue
        row = _row(here, annotation, pictures[annotation["image_id"]], which, out.left_out)
        if row is None:
            out.left_out["people without a mapped keypoint"] += 1
            continue
        image = f"{images}/{row.image}" if images else row.image
        out.rows.append(replace(row, image=image, split=split, where=here))
    return out


def load_coco(path: str | Path) -> dict[str, Any]:
    """The object of a COCO file; LabelError when it is missing or none."""
    where = str(path)
    try:
        content = json.loads(Path(where).read_bytes())
    except FileNotFoundError as error:
        raise LabelError(where, "is not there", "give the JSON file of the annotations") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LabelError(where, "is not JSON", "give the JSON file of the annotations") from error
    if not isinstance(content, dict) or not {"images", "annotations"} <= set(content):
        raise LabelError(where, "has no `images` and `annotations`", "give annotations in COCO's format")
    return content


def _row(
    where: str, annotation: dict[str, Any], picture: dict[str, Any], which: Layout, left_out: Counter[str]
) -> Row | None:
    points = _points(where, annotation, which)
    size = np.array([picture["width"], picture["height"]], float)
    outside = (points[:, 2] > 0) & ((points[:, :2] < -0.5) | (points[:, :2] > size - 0.5)).any(1)
    left_out["points outside the picture"] += int((outside & (which.reads >= 0)).sum())
    points[outside, 2] = 0
    mapped = which.to_308(points)
    if not (mapped[:, 2] > 0).any():
        return None
    box = None
    if annotation.get("bbox"):
        x, y, w, h = (float(v) for v in annotation["bbox"])
        # COCO's boxes are in pixel edges; here the centre of the first pixel is 0.
        box = (x - 0.5, y - 0.5, x + w - 0.5, y + h - 0.5) if w > 0 and h > 0 else None
    area = float(annotation.get("area") or 0)
    return Row(image=picture["file_name"], box=box, area=area if area > 0 else None, keypoints=mapped)


def _points(where: str, annotation: dict[str, Any], which: Layout) -> Array:
    flat = list(annotation.get("keypoints") or [])
    if len(flat) < 3 * len(which):
        for key, count in WHOLEBODY_KEYS if which.name == "wholebody133" else ():
            flat += annotation.get(key) or [0.0] * (3 * count)
    if len(flat) != 3 * len(which):
        raise LabelError(
            where,
            f"has {len(flat) / 3:g} keypoints, {which.name} has {len(which)}",
            "name the layout that the file is in",
        )
    points = np.array(flat, float).reshape(-1, 3)
    seen = points[:, 2]
    certain = np.arange(len(points)) < (len(points) if which.name == OWN else BODY_POINTS)
    # A point labelled under cover is 1 in COCO; a confidence of 1 among face and hands is a point that was seen.
    points[:, 2] = np.where(seen <= 0, 0, np.where((seen == 1) & certain, 1, 2))
    return points
