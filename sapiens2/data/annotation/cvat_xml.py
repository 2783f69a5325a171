"""CVAT for images 1.1: skeletons and boxes; masks, polygons, boxes and ellipses. [docs.cvat.ai, XML annotation format]

Shapes of other kinds are left out and counted, by their tag.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
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
PEOPLE = ("skeleton", "box")
REGIONS = ("mask", "polygon", "box", "ellipse")
Grouped = tuple[str, Box]  # the id of the group, "" for none


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
    if loose := len(image.findall("points")):
        raise LabelError(where, f"has {loose} points outside a skeleton", f"label them in the skeleton {PERSON!r}")
    _count_others(image, PEOPLE, found)
    boxes = [(node.get("group_id", ""), _around(_corners(node))) for node in image.findall("box")]
    skeletons = image.findall("skeleton")
    people = [person(which, picture, _points(skeleton), where) for skeleton in skeletons]
    groups = [skeleton.get("group_id", "") for skeleton in skeletons]
    own = _own_boxes([(group, who.points) for group, who in zip(groups, people, strict=True)], boxes)
    for who, box in zip(people, own, strict=True):
        who.box = None if box is None else boxes[box][1]
        add_person(found, picture, who)
    found.left_out["boxes without a skeleton"] += len(set(range(len(boxes))) - set(own))


def _points(skeleton: ET.Element) -> list[tuple[str, float, float, int]]:
    named = []
    for node in skeleton.iter("points"):
        x, _, y = node.attrib["points"].partition(",")
        if node.get("outside", "0") == "0":
            named.append((node.attrib["label"], float(x), float(y), 1 if node.get("occluded") == "1" else 2))
    return named


def _own_boxes(skeletons: Sequence[tuple[str, Array]], boxes: Sequence[Grouped]) -> list[int | None]:
    """Which box each skeleton (group, keypoints [308, 3]) has; none has another's.

    A box is for the skeletons of its group if there are such, else for those whose group has no box. One of each in a
    group belong together wherever they are; else a skeleton has the smallest box around all its points, and those with
    the fewest to choose from choose first.
    """
    members = Counter(group for group, _ in skeletons if group)
    grouped = {group for group, _ in boxes if group in members}
    places = [box for _, box in boxes]
    own: list[int | None] = [None] * len(skeletons)
    holding: dict[int, set[int]] = {}
    for k, (group, points) in enumerate(skeletons):
        wanted = group if group in grouped else ""
        offered = {n for n, (of, _) in enumerate(boxes) if (of if of in grouped else "") == wanted}
        xy = points[points[:, 2] > 0, :2]
        if wanted and members[group] == len(offered) == 1:
            own[k] = offered.pop()
        elif len(xy):
            holding[k] = {n for n in offered if smallest_around(xy, [places[n]]) is not None}
    while holding:
        k = min(holding, key=lambda k: len(holding[k]))
        own[k] = min(holding.pop(k), key=lambda n: _area(places[n]), default=None)
        for rest in holding.values():
            rest.discard(own[k])
    return own


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _corners(box: ET.Element) -> Array:
    """The four corners [4, 2] of a box, from the picture's outer edge, turned clockwise about its centre."""
    x0, y0, x1, y1 = (float(box.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr"))
    centre = np.array([x0 + x1, y0 + y1]) / 2
    return (np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) - centre) @ _turn(box).T + centre


def _turn(node: ET.Element) -> Array:
    """The matrix [2, 2] that turns x, y (y down) by the shape's degrees, clockwise as they are seen."""
    angle = np.deg2rad(float(node.get("rotation", "0")))
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _around(corners: Array) -> Box:
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    return shifted((x0, y0, x1, y1))


def _read_regions(image: ET.Element, picture: Picture, found: Found, where: str) -> None:
    size = (picture.height, picture.width)
    _count_others(image, REGIONS, found)
    shapes = [node for node in image if node.tag in REGIONS]
    for node in sorted(shapes, key=lambda node: int(node.get("z_order", "0"))):
        part = part_id(node.attrib["label"], where)
        found.of(picture).regions.append(Region(part, _pixels(node, size)))


def _count_others(image: ET.Element, kinds: Sequence[str], found: Found) -> None:
    found.left_out.update(f"shapes of the kind {node.tag}" for node in image if node.tag not in kinds)


def _pixels(node: ET.Element, size: tuple[int, int]) -> Array:
    """bool [H, W] inside a shape."""
    if node.tag == "mask":
        return _read_mask(node, size)
    if node.tag == "ellipse":
        return _read_ellipse(node, size)
    if node.tag == "box":
        return fill(_corners(node), size)
    return fill(np.array([pair.split(",") for pair in node.attrib["points"].split(";")], float), size)


def _read_ellipse(node: ET.Element, size: tuple[int, int]) -> Array:
    """Pixels whose centre is inside, as for polygons."""
    values = [float(node.attrib[name]) for name in ("cx", "cy", "rx", "ry")]
    if not np.isfinite(values).all() or min(values[2:]) <= 0:
        raise ValueError(f"an ellipse at ({values[0]:g}, {values[1]:g}) has the half axes {values[2]:g}, {values[3]:g}")
    y, x = np.indices(size) + 0.5
    along = np.stack([x - values[0], y - values[1]], -1) @ _turn(node)
    return ((along / values[2:]) ** 2).sum(-1) <= 1


def _read_mask(node: ET.Element, size: tuple[int, int]) -> Array:
    left, top, width, height = (int(node.attrib[name]) for name in ("left", "top", "width", "height"))
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"a mask of {width} x {height} at ({left}, {top}) leaves the picture")
    inside = from_runs([int(run) for run in node.attrib["rle"].split(",")], width * height)
    out = np.zeros(size, bool)
    out[top : top + height, left : left + width] = inside.reshape(height, width)
    return out
