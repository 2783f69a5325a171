"""Keypoint annotations in COCO's JSON, of any layout of the table, to rows of the index.

One JSON object: images (id, file_name, width, height) and annotations (image_id, bbox x y w h, keypoints as a flat
list of x, y, v). COCO-WholeBody's own keys (foot_kpts, face_kpts, lefthand_kpts, righthand_kpts) are appended in that
order where present; Human-Art's 21 points are in keypoints_21, beside COCO's 17 in keypoints. [cocodataset.org, data
format; COCO-WholeBody, arXiv 2007.11858; Human-Art, arXiv 2303.02760]
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sapiens2.data.formats.upright import fill_size, refuse_other_sizes
from sapiens2.data.formats.vocabularies import OWN, Layout, layout
from sapiens2.data.labelled.layout import LabelError, Row

Array = np.ndarray
WHOLEBODY_KEYS = (("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21))
OWN_KEYS = {"humanart21": "keypoints_21"}  # where a set keeps the points of a layout, if not in `keypoints`
BODY_POINTS = 26  # visibility is 0, 1 or 2 up to here in every set; beyond it is a confidence

_ID = (int, float, str)


@dataclass
class Converted:
    """Rows of the index, and what was left out, by reason."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read_coco(
    path: str | Path,
    name: str,
    *,
    images: str = "images",
    split: str = "train",
    folder: Path | None = None,
    exact: bool = False,
) -> Converted:
    """The people of a COCO-like file whose points are in the layout `name`.

    images: what file names are relative to, as seen from the folder of the index, which they may not leave; "" keeps
    them as they are. folder: where the pictures lie now; with it the pictures of all rows are held against the size
    that the file states, which it may then leave out. exact: every visibility is 0, 1 or 2, as in files made by hand;
    published sets of hands and faces have confidences. Crowds and people without a mapped point are left out and
    counted; points outside the picture lose their label and are counted. Raises LabelError for a file that is not of
    this format, for a picture that is not there or of another size, and ValueError for an unknown layout.
    """
    which, where = layout(name), str(path)
    content = load_coco(where, sized=folder is None)
    pictures = {image["id"]: image for image in content["images"]}
    out, used = Converted(), {}
    for number, annotation in enumerate(content["annotations"], 1):
        here = f"{where} annotation {annotation.get('id', number)}"
        if annotation.get("image_id") not in pictures:
            raise LabelError(here, f"names the image {annotation.get('image_id')}", "list that image in `images`")
        if annotation.get("iscrowd"):
            out.left_out["crowds"] += 1
            continue
        picture = pictures[annotation["image_id"]]
        if folder is not None:
            fill_size(picture, folder / _below(here, picture["file_name"]))
        row = _row(here, annotation, picture, _points(here, annotation, which, exact), which, out.left_out)
        if row is None:
            out.left_out["people without a mapped keypoint"] += 1
            continue
        image = f"{images}/{_below(here, row.image)}" if images else row.image
        used[picture["id"]] = picture
        out.rows.append(replace(row, image=image, split=split, where=here))
    if folder is not None:
        refuse_other_sizes(where, list(used.values()), folder)
    return out


def _below(where: str, name: str) -> str:
    """The file name, if it stays in its folder."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise LabelError(
            where, f"its picture {name!r} is not below the folder of the pictures", "give names relative to it, no `..`"
        )
    return name


def load_coco(path: str | Path, *, sized: bool = True) -> dict[str, Any]:
    """The object of a COCO file, its images with id, name and size; LabelError when it is missing or none.

    sized: whether every image must have a size.
    """
    where = str(path)
    try:
        content = json.loads(Path(where).read_bytes())
    except FileNotFoundError as error:
        raise LabelError(where, "is not there", "give the JSON file of the annotations") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LabelError(where, "is not JSON", "give the JSON file of the annotations") from error
    if not isinstance(content, dict) or not {"images", "annotations"} <= set(content):
        raise LabelError(where, "has no `images` and `annotations`", "give annotations in COCO's format")
    for name in ("images", "annotations"):
        if not isinstance(content[name], list) or not all(isinstance(each, dict) for each in content[name]):
            raise LabelError(where, f"`{name}` is no list of objects", "give annotations in COCO's format")
    for number, image in enumerate(content["images"], 1):
        _check_image(f"{where} image {image.get('id', f'number {number}')}", image, sized)
    twice = [name for name, times in Counter(image["id"] for image in content["images"]).items() if times > 1]
    if twice:
        raise LabelError(f"{where} image {twice[0]}", "is listed more than once", "give each image an id of its own")
    for number, annotation in enumerate(content["annotations"], 1):
        if not isinstance(annotation.get("image_id"), _ID):
            here = f"{where} annotation {annotation.get('id', number)}"
            raise LabelError(here, "has no `image_id`", "give the id of its image")
    return content


def _check_image(where: str, image: dict[str, Any], sized: bool) -> None:
    if not isinstance(image.get("id"), _ID):
        raise LabelError(where, "has no `id`", "give the number that annotations name as `image_id`")
    if not isinstance(image.get("file_name"), str) or not image["file_name"]:
        raise LabelError(where, "has no `file_name`", "give the path of the picture")
    for side in ("width", "height"):
        pixels = image.get(side)
        if pixels is None and not sized:
            continue
        if not isinstance(pixels, int | float) or not 0 < pixels < float("inf"):
            raise LabelError(where, f"has no `{side}`", "give the size of the picture in pixels")


def _row(
    where: str,
    annotation: dict[str, Any],
    picture: dict[str, Any],
    points: Array,  # [N, 3] x, y, visibility
    which: Layout,
    left_out: Counter[str],
) -> Row | None:
    size = np.array([picture["width"], picture["height"]], float)
    outside = (points[:, 2] > 0) & ((points[:, :2] < -0.5) | (points[:, :2] > size - 0.5)).any(1)
    left_out["points outside the picture"] += int((outside & (which.reads >= 0)).sum())
    points[outside, 2] = 0
    mapped = which.to_308(points)
    if not (mapped[:, 2] > 0).any():
        return None
    box = None
    if annotation.get("bbox"):
        say = "x, y, width and height in pixels, or leave it out"
        x, y, w, h = (float(v) for v in _finite(where, "bbox", annotation["bbox"], (4,), say))
        # COCO's boxes are in pixel edges; here the centre of the first pixel is 0.
        box = (x - 0.5, y - 0.5, x + w - 0.5, y + h - 0.5) if w > 0 and h > 0 else None
    area = float(_finite(where, "area", annotation.get("area") or 0, (), "square pixels, or leave it out"))
    return Row(image=picture["file_name"], box=box, area=area if area > 0 else None, keypoints=mapped)


def _points(where: str, annotation: dict[str, Any], which: Layout, exact: bool) -> Array:
    key = OWN_KEYS.get(which.name, "keypoints")
    flat = _list(where, annotation, key if annotation.get(key) else "keypoints")
    if len(flat) < 3 * len(which):
        for part, count in WHOLEBODY_KEYS if which.name == "wholebody133" else ():
            flat += _list(where, annotation, part) or [0.0] * (3 * count)
    if len(flat) != 3 * len(which):
        raise LabelError(
            where,
            f"has {len(flat) / 3:g} keypoints, {which.name} has {len(which)}",
            "name the layout that the file is in",
        )
    points = _numbers(where, "keypoints", flat, (len(flat),), "x, y, visibility of every point").reshape(-1, 3)
    seen = points[:, 2]
    bad = ~np.isfinite(seen) | ((seen > 0) & ~np.isfinite(points[:, :2]).all(1))
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise LabelError(
            where,
            f"the keypoint {which.names[k]!r} is {flat[3 * k : 3 * k + 3]}",
            "give numbers, or set its visibility to 0",
        )
    certain = np.arange(len(points)) < (len(points) if exact or which.name == OWN else BODY_POINTS)
    # A point labelled under cover is 1 in COCO; a confidence of 1 among face and hands is a point that was seen.
    points[:, 2] = np.where(seen <= 0, 0, np.where((seen == 1) & certain, 1, 2))
    return np.where(points[:, 2:] > 0, points, 0.0)


def _list(where: str, annotation: dict[str, Any], key: str) -> list[Any]:
    value = annotation.get(key) or []
    if not isinstance(value, list):
        raise LabelError(where, f"`{key}` is no list", "give a flat list of x, y, visibility")
    return list(value)


def _numbers(where: str, key: str, value: Any, shape: tuple[int, ...], say: str) -> Array:
    """Numbers of a shape; null among them is NaN."""
    try:
        array = np.array(value, float)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != shape:
        raise LabelError(where, f"`{key}` is no {'list' if shape else 'number'} as COCO has it", f"give {say}")
    return array


def _finite(where: str, key: str, value: Any, shape: tuple[int, ...], say: str) -> Array:
    array = _numbers(where, key, value, shape, say)
    if not np.isfinite(array).all():
        raise LabelError(where, f"`{key}` is {value}", f"give {say}")
    return array
