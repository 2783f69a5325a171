"""CVAT for images 1.1: skeletons, boxes, polygons and masks. [docs.cvat.ai, XML annotation format]"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sapiens2.data.annotation.batch import Batch, Picture
from sapiens2.data.annotation.labels import (
    EDGE,
    Box,
    Found,
    PictureLabels,
    Region,
    add_person,
    part_id,
    person,
    shifted,
    smallest_around,
)
from sapiens2.data.annotation.polygons import fill
from sapiens2.data.annotation.runs import from_runs, to_runs
from sapiens2.data.annotation.skeleton_svg import skeleton_svg
from sapiens2.data.formats.vocabularies import Layout, layout
from sapiens2.data.labelled.layout import LabelError
from sapiens2.tasks.vocabulary import parts

Array = np.ndarray
FILE, LABELS = "annotations.xml", "labels.json"
PERSON, BOX = "person", "person_box"  # a task's label names are unique, so skeleton and box differ


def write(folder: Path, batch: Batch, labels: Mapping[str, PictureLabels]) -> None:
    """Write annotations.xml, and labels.json for the raw view of the task's label constructor."""
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    task = ET.SubElement(ET.SubElement(root, "meta"), "task")
    for name, text in (("name", f"sapiens2 {batch.task}"), ("size", str(len(batch.pictures))), ("mode", "annotation")):
        ET.SubElement(task, name).text = text
    constructor = _labels(batch)
    _meta_labels(ET.SubElement(task, "labels"), constructor)
    for number, picture in enumerate(batch.pictures):
        sides = {"width": str(picture.width), "height": str(picture.height)}
        image = ET.SubElement(root, "image", {"id": str(number), "name": picture.name, **sides})
        known = labels.get(picture.name, PictureLabels())
        if batch.task == "pose":
            _write_people(image, batch, picture, known)
        else:
            for order, region in enumerate(known.regions):
                _write_mask(image, region, order)
    ET.indent(root)
    (folder / FILE).write_bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))
    (folder / LABELS).write_text(json.dumps(constructor, indent=1), encoding="utf-8")


def _labels(batch: Batch) -> list[dict[str, Any]]:
    if batch.task == "segmentation":
        return [{"name": name, "type": "mask", "attributes": []} for name in parts().names[1:]]
    which = layout(batch.keypoints)
    points = [{"name": name, "type": "points", "attributes": []} for name in which.names]
    body = {"name": PERSON, "type": "skeleton", "attributes": [], "sublabels": points, "svg": skeleton_svg(which)}
    return [body, {"name": BOX, "type": "rectangle", "attributes": []}]


def _meta_labels(parent: ET.Element, constructor: list[dict[str, Any]]) -> None:
    """A skeleton's points are labels of their own that name their parent."""
    for label in constructor:
        for each in (label, *label.get("sublabels", ())):
            node = ET.SubElement(parent, "label")
            ET.SubElement(node, "name").text = each["name"]
            ET.SubElement(node, "type").text = each["type"]
            ET.SubElement(node, "attributes")
            if each is not label:
                ET.SubElement(node, "parent").text = label["name"]
            elif "svg" in label:
                ET.SubElement(node, "svg").text = label["svg"]


def _write_people(image: ET.Element, batch: Batch, picture: Picture, labels: PictureLabels) -> None:
    which = layout(batch.keypoints)
    boxes: list[tuple[Box, int]] = [(box, 0) for box in picture.boxes] if not labels.people else []
    for group, who in enumerate(labels.people, 1):
        skeleton = ET.SubElement(
            image, "skeleton", {"label": PERSON, "source": "manual", "z_order": "0", "group_id": str(group)}
        )
        for name, (x, y, seen) in zip(which.names, which.from_308(who.points), strict=True):
            flags = {"outside": str(int(seen == 0)), "occluded": str(int(seen == 1))}
            place = f"{x + EDGE:.2f},{y + EDGE:.2f}" if seen else "0.00,0.00"
            ET.SubElement(skeleton, "points", {"label": name, "source": "manual", **flags, "points": place})
        if who.box is not None:
            x0, y0, x1, y1 = (v + EDGE for v in who.box)
            boxes.append(((x0, y0, x1, y1), group))
    for (x0, y0, x1, y1), group in boxes:
        corners = {"xtl": f"{x0:.2f}", "ytl": f"{y0:.2f}", "xbr": f"{x1:.2f}", "ybr": f"{y1:.2f}"}
        more = {"group_id": str(group)} if group else {}
        ET.SubElement(
            image, "box", {"label": BOX, "source": "auto", "occluded": "0", **corners, "z_order": "0", **more}
        )


def _write_mask(image: ET.Element, region: Region, order: int) -> None:
    rows, columns = (np.flatnonzero(region.pixels.any(axis)) for axis in (1, 0))
    top, left, height, width = rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1
    inside = region.pixels[top : top + height, left : left + width]
    place = {"left": str(left), "top": str(top), "width": str(width), "height": str(height)}
    shape = {"label": parts().names[region.part], "source": "manual", "occluded": "0"}
    runs = ", ".join(map(str, to_runs(inside.ravel())))
    ET.SubElement(image, "mask", {**shape, "rle": runs, **place, "z_order": str(order)})


def read(path: Path, batch: Batch) -> Found:
    """The labels of a CVAT file. Raises LabelError naming the image that is wrong."""
    try:
        root = ET.fromstring(path.read_bytes())
    except ET.ParseError as error:
        raise LabelError(str(path), f"is not XML ({error})", "export as `CVAT for images 1.1`") from error
    if root.tag != "annotations" or root.find("track") is not None:
        raise LabelError(str(path), "holds no annotations of images", "export as `CVAT for images 1.1`")
    found = Found()
    for image in root.iter("image"):
        where = f"{path} image {image.get('name')!r}"
        picture = batch.find(str(image.get("name")), where)
        try:
            batch.same_size(picture, float(image.attrib["width"]), float(image.attrib["height"]), where)
            if batch.task == "pose":
                _read_people(image, picture, layout(batch.keypoints), found, where)
            else:
                _read_regions(image, picture, found, where)
        except LabelError:
            raise
        except (KeyError, ValueError) as error:
            raise LabelError(where, f"is damaged ({error})", "export the task again") from error
    return found


def _read_people(image: ET.Element, picture: Picture, which: Layout, found: Found, where: str) -> None:
    boxes: list[tuple[str, Box]] = []
    for node in image.iter("box"):
        x0, y0, x1, y1 = (float(node.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
        boxes.append((node.get("group_id", ""), shifted((x0, y0, x1, y1))))
    for skeleton in image.iter("skeleton"):
        named = []
        for node in skeleton.iter("points"):
            x, _, y = node.attrib["points"].partition(",")
            if node.get("outside", "0") == "0":
                named.append((node.attrib["label"], float(x), float(y), 1 if node.get("occluded") == "1" else 2))
        who = person(which, picture, named, where)
        group = skeleton.get("group_id", "")
        own = [box for number, box in boxes if group and number == group]
        around = smallest_around(who.points[who.points[:, 2] > 0, :2], [box for _, box in boxes])
        who.box = own[0] if own else None if around is None else boxes[around][1]
        add_person(found, picture, who)
    loose = len(image.findall("points"))
    if loose:
        raise LabelError(where, f"has {loose} points outside a skeleton", f"label them in the skeleton {PERSON!r}")


def _read_regions(image: ET.Element, picture: Picture, found: Found, where: str) -> None:
    size = (picture.height, picture.width)
    shapes = [node for node in image if node.tag in ("mask", "polygon")]
    for node in sorted(shapes, key=lambda node: int(node.get("z_order", "0"))):
        part = part_id(node.attrib["label"], where)
        if node.tag == "polygon":
            corners = np.array([pair.split(",") for pair in node.attrib["points"].split(";")], float)
            pixels = fill(corners, size)
        else:
            pixels = _read_mask(node, size)
        found.of(picture).regions.append(Region(part, pixels))


def _read_mask(node: ET.Element, size: tuple[int, int]) -> Array:
    left, top, width, height = (int(node.attrib[name]) for name in ("left", "top", "width", "height"))
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"a mask of {width} x {height} at ({left}, {top}) leaves the picture")
    inside = from_runs([int(run) for run in node.attrib["rle"].split(",")], width * height)
    out = np.zeros(size, bool)
    out[top : top + height, left : left + width] = inside.reshape(height, width)
    return out
