"""COCO's JSON: keypoints or instances out, and back. [cocodataset.org, data format]"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sapiens2.data.annotation.batch import Batch, Picture
from sapiens2.data.annotation.labels import EDGE, Found, Person, PictureLabels, Region, part_id
from sapiens2.data.annotation.polygons import fill
from sapiens2.data.annotation.runs import coco_runs, from_coco
from sapiens2.data.formats.coco import load_coco, read_coco
from sapiens2.data.formats.vocabularies import Layout, layout
from sapiens2.data.labelled.layout import LabelError
from sapiens2.tasks.vocabulary import keypoints, parts

Array = np.ndarray
FILE = "annotations.json"


def write(folder: Path, batch: Batch, labels: Mapping[str, PictureLabels]) -> None:
    """Write annotations.json: the labels, and for a picture without any the people that a detector found."""
    images, annotations = [], []
    for number, picture in enumerate(batch.pictures, 1):
        images.append({"id": number, "file_name": picture.name, "width": picture.width, "height": picture.height})
        known = labels.get(picture.name, PictureLabels())
        made = _people(batch, picture, known) if batch.task == "pose" else _regions(known)
        annotations += [{"image_id": number, **annotation} for annotation in made]
    content = {
        "info": {"description": f"{len(images)} pictures to label for {batch.task}", "version": "1.0"},
        "images": images,
        "annotations": [{"id": number, **each} for number, each in enumerate(annotations, 1)],
        "categories": _categories(batch),
    }
    (folder / FILE).write_text(json.dumps(content), encoding="utf-8")


def _categories(batch: Batch) -> list[dict[str, Any]]:
    if batch.task == "segmentation":
        return [{"id": k, "name": name, "supercategory": "person"} for k, name in enumerate(parts().names) if k]
    which = layout(batch.keypoints)
    names = {"keypoints": list(which.names), "skeleton": [[a + 1, b + 1] for a, b in links(which)]}
    return [{"id": 1, "name": "person", "supercategory": "person", **names}]


def links(which: Layout) -> list[tuple[int, int]]:
    """The skeleton's links between keypoints that a layout has."""
    place = {int(k): n for n, k in enumerate(which.reads) if k >= 0}
    return [(place[a], place[b]) for a, b in keypoints().links.tolist() if a in place and b in place]


def _people(batch: Batch, picture: Picture, labels: PictureLabels) -> list[dict[str, Any]]:
    which, out = layout(batch.keypoints), []
    for who in labels.people:
        points = which.from_308(who.points)
        box = None if who.box is None else [v + EDGE for v in who.box]
        out.append(_person(points, box if box is not None else _tight(points), who.area))
    if not labels.people:  # nobody knows what these cover: 0, which is read as no area, and not the box's
        out = [_person(np.zeros((len(which), 3)), list(box), 0.0) for box in picture.boxes]
    return out


def _tight(points: Array) -> list[float]:
    seen = points[points[:, 2] > 0, :2] + EDGE
    return [*seen.min(0).tolist(), *seen.max(0).tolist()]


def _person(points: Array, box: Sequence[float], area: float | None) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {
        "category_id": 1,
        "iscrowd": 0,
        "segmentation": [],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0) if area is None else area,
        "keypoints": points.ravel().tolist(),
        "num_keypoints": int((points[:, 2] > 0).sum()),
    }


def _regions(labels: PictureLabels) -> list[dict[str, Any]]:
    out = []
    for region in labels.regions:
        rows, columns = (np.flatnonzero(region.pixels.any(axis)) for axis in (1, 0))
        box = [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
        runs = {"counts": coco_runs(region.pixels), "size": list(region.pixels.shape)}
        area = int(region.pixels.sum())
        out.append({"category_id": region.part, "iscrowd": 1, "segmentation": runs, "bbox": box, "area": area})
    return out


def read(path: Path, batch: Batch) -> Found:
    """The labels of a COCO file. Raises LabelError naming the annotation that is wrong."""
    return _read_people(path, batch) if batch.task == "pose" else _read_regions(path, batch)


def _read_people(path: Path, batch: Batch) -> Found:
    content, found = load_coco(path), Found()
    for image in content["images"]:
        where = f"{path} image {image.get('id')}"
        batch.same_size(batch.find(str(image["file_name"]), where), image["width"], image["height"], where)
    converted = read_coco(path, batch.keypoints, images="", exact=True)
    found.left_out = converted.left_out
    for row in converted.rows:
        assert row.keypoints is not None
        found.of(batch.find(row.image, row.where)).people.append(Person(row.keypoints, row.box, area=row.area))
    return found


def _read_regions(path: Path, batch: Batch) -> Found:
    content, found = load_coco(path), Found()
    names, pictures = _names(path, content.get("categories") or []), {}
    for image in content["images"]:
        where = f"{path} image {image.get('id')}"
        pictures[image["id"]] = picture = batch.find(str(image["file_name"]), where)
        batch.same_size(picture, image["width"], image["height"], where)
    for number, annotation in enumerate(content["annotations"], 1):
        where = f"{path} annotation {annotation.get('id', number)}"
        if annotation["image_id"] not in pictures or str(annotation.get("category_id")) not in names:
            raise LabelError(where, "names an image or a category that is not listed", "list it in the file")
        picture = pictures[annotation["image_id"]]
        pixels = _pixels(annotation.get("segmentation"), (picture.height, picture.width), where)
        if pixels is None:
            found.left_out["annotations without a segmentation"] += 1
        else:
            part = part_id(names[str(annotation["category_id"])], where)
            found.of(picture).regions.append(Region(part, pixels))
    return found


def _names(path: Path, categories: Any) -> dict[str, str]:
    """The names of the categories by their ids as text."""
    if not isinstance(categories, list):
        raise LabelError(str(path), "`categories` is no list of objects", "give annotations in COCO's format")
    names = {}
    for number, category in enumerate(categories, 1):
        if not isinstance(category, dict) or not {"id", "name"} <= set(category):
            raise LabelError(f"{path} category {number}", "has no `id` and `name`", "give each category both")
        names[str(category["id"])] = str(category["name"])
    return names


def _pixels(segmentation: Any, size: tuple[int, int], where: str) -> Array | None:
    if not segmentation:
        return None
    try:
        if isinstance(segmentation, dict):
            if tuple(segmentation["size"]) != size:
                raise ValueError(f"is a mask of {segmentation['size'][::-1]}, its picture is {list(size[::-1])}")
            return from_coco(segmentation["counts"], size)
        filled = [fill(np.reshape(polygon, (-1, 2)), size) for polygon in segmentation]
        return np.logical_or.reduce(filled)
    except (ValueError, KeyError, TypeError) as error:
        raise LabelError(where, str(error), "export polygons or run lengths as COCO defines them") from error
