"""Label Studio's tasks in JSON: rectangles and keypoints, brush strokes and polygons. [labelstud.io, task format]

Places are percentages of the picture. A keypoint belongs to the rectangle that it names as parent, else to the smallest
rectangle around it, else to the only person of the picture. `hidden` is a choice made of a keypoint. Results of other
kinds (relations, say) and those without a label are left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

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
from sapiens2.data.annotation.runs import pack_bits, unpack_bits
from sapiens2.data.formats.vocabularies import Layout, layout
from sapiens2.data.labelled.layout import LabelError
from sapiens2.tasks.vocabulary import parts

FILE, LABELS = "tasks.json", "labeling_config.xml"
PERSON, HIDDEN = "person", "hidden"
KINDS = {
    "pose": ("rectanglelabels", "keypointlabels", "choices"),
    "segmentation": ("brushlabels", "polygonlabels"),
}
"""Types of results that are read, by task."""
UNNAMED = ("rectanglelabels", "choices")  # a rectangle is a person's whatever it says, and no choice is one, too
Result = dict[str, Any]


def write(folder: Path, batch: Batch, labels: Mapping[str, PictureLabels]) -> None:
    """Write tasks.json to import, and labeling_config.xml for the project's interface."""
    tasks = []
    for number, picture in enumerate(batch.pictures, 1):
        known = labels.get(picture.name)
        results = _results(batch, picture, known or PictureLabels())
        key = "annotations" if known else "predictions"
        made = [{"result": results, **({} if known else {"model_version": "detections"})}] if results else []
        tasks.append({"id": number, "data": {"image": _address(picture.name)}, key: made})
    (folder / FILE).write_text(json.dumps(tasks), encoding="utf-8")
    (folder / LABELS).write_text(_interface(batch), encoding="utf-8")


def _address(name: str) -> str:
    """A URL as it is; a file as Label Studio serves it from the folder that it is allowed to read, quoted."""
    return name if "://" in name else f"/data/local-files/?d={quote(name.lstrip('/'))}"


def _interface(batch: Batch) -> str:
    lines = ["<View>", '  <Image name="image" value="$image" zoom="true"/>']
    if batch.task == "segmentation":
        for tag, name in (("BrushLabels", "brush"), ("PolygonLabels", "polygon")):
            lines += _tag(tag, name, parts().names[1:])
    else:
        lines += _tag("RectangleLabels", PERSON, (PERSON,))
        lines += _tag("KeyPointLabels", "keypoints", layout(batch.keypoints).names)
        lines += ['  <Choices name="visibility" toName="image" perRegion="true" whenTagName="keypoints">']
        lines += [f'    <Choice value="{HIDDEN}"/>', "  </Choices>"]
    return "\n".join([*lines, "</View>", ""])


def _tag(tag: str, name: str, values: tuple[str, ...]) -> list[str]:
    inside = [f"    <Label value={quoteattr(value)}/>" for value in values]
    return [f'  <{tag} name="{name}" toName="image">', *inside, f"  </{tag}>"]


def _results(batch: Batch, picture: Picture, labels: PictureLabels) -> list[Result]:
    if batch.task == "segmentation":
        made = []
        for k, region in enumerate(labels.regions):
            value = {"format": "rle", "rle": pack_bits(region.pixels), "brushlabels": [parts().names[region.part]]}
            made.append(_result(picture, f"r{k}", "brush", "brushlabels", value))
        return made
    if not labels.people:
        return [_rectangle(picture, f"p{k}", box) for k, box in enumerate(picture.boxes)]
    out: list[Result] = []
    which = layout(batch.keypoints)
    for k, who in enumerate(labels.people):
        points = which.from_308(who.points)
        seen = points[:, 2] > 0
        x0, y0, x1, y1 = who.box or (*points[seen, :2].min(0), *points[seen, :2].max(0))
        out.append(_rectangle(picture, f"p{k}", (x0 + EDGE, y0 + EDGE, x1 + EDGE, y1 + EDGE)))
        for n in np.flatnonzero(seen):
            own, (x, y, visibility) = f"p{k}k{n}", points[n]
            place = {"x": _percent(x + EDGE, picture.width), "y": _percent(y + EDGE, picture.height), "width": 0.4}
            named = place | {"keypointlabels": [which.names[n]]}
            out.append(_result(picture, own, "keypoints", "keypointlabels", named) | {"parentID": f"p{k}"})
            if visibility == 1:
                out.append(_result(picture, own, "visibility", "choices", place | {"choices": [HIDDEN]}))
    return out


def _percent(value: float, side: int) -> float:
    return float(value) / side * 100


def _rectangle(picture: Picture, own: str, box: Box) -> Result:
    x0, y0, x1, y1 = box
    sides = {"width": _percent(x1 - x0, picture.width), "height": _percent(y1 - y0, picture.height)}
    corner = {"x": _percent(x0, picture.width), "y": _percent(y0, picture.height), "rotation": 0}
    return _result(picture, own, PERSON, "rectanglelabels", {**corner, **sides, "rectanglelabels": [PERSON]})


def _result(picture: Picture, own: str, tag: str, kind: str, value: dict[str, Any]) -> Result:
    size = {"original_width": picture.width, "original_height": picture.height, "image_rotation": 0}
    return {"id": own, "from_name": tag, "to_name": "image", "type": kind, **size, "value": value}


def read(path: Path, batch: Batch) -> Found:
    """The labels of a JSON export. Raises LabelError naming the task that is wrong.

    Of several annotations of a picture the one marked as ground truth counts, else the last; predictions never do.
    """
    try:
        tasks = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LabelError(str(path), "is not JSON", "export as JSON, not as JSON-MIN or CSV") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise LabelError(str(path), "is no list of tasks", "export as JSON, not as JSON-MIN or CSV")
    found = Found()
    for number, task in enumerate(tasks, 1):
        where = f"{path} task {task.get('id', number)}"
        picture = batch.find(str(task["data"].get("image")), where)
        given = [each for each in task.get("annotations") or [] if not each.get("was_cancelled")]
        if not given:
            continue
        found.left_out["further annotations of a picture"] += len(given) - 1
        chosen = next((each for each in given if each.get("ground_truth")), given[-1])
        try:
            _read_results(chosen["result"], picture, batch, found, where)
        except LabelError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise LabelError(where, f"is damaged ({error})", "export as JSON again") from error
    return found


def _read_results(results: list[Result], picture: Picture, batch: Batch, found: Found, where: str) -> None:
    for result in results:
        if "original_width" in result:
            batch.same_size(picture, result["original_width"], result["original_height"], where)
        if result.get("image_rotation"):
            raise LabelError(where, f"was turned by {result['image_rotation']} degrees", "label pictures upright")
    results = _labelled(results, KINDS[batch.task], found)
    if batch.task == "pose":
        _read_people(results, picture, layout(batch.keypoints), found, where)
        return
    size = (picture.height, picture.width)
    for result in results:
        value, kind = result["value"], result["type"]
        if kind == "brushlabels":
            pixels = unpack_bits(value["rle"], size)
        else:
            pixels = fill(np.array(value["points"], float) / 100 * [picture.width, picture.height], size)
        found.of(picture).regions.append(Region(part_id(value[kind][0], where), pixels))


def _labelled(results: list[Result], kinds: tuple[str, ...], found: Found) -> list[Result]:
    """The results of some kinds that have a label; the others are counted."""
    kept = []
    for result in results:
        kind, value = str(result.get("type")), result.get("value")
        if kind not in kinds:
            found.left_out[f"results of the type {kind}"] += 1
        elif not value or not (value.get(kind) or kind in UNNAMED):
            found.left_out["results without a label"] += 1
        else:
            kept.append(result)
    return kept


def _read_people(results: list[Result], picture: Picture, which: Layout, found: Found, where: str) -> None:
    hidden = {r["id"] for r in results if r["type"] == "choices" and HIDDEN in r["value"]["choices"]}
    boxes = {r["id"]: _box(r["value"], picture) for r in results if r["type"] == "rectanglelabels"}
    people: dict[str, list[tuple[str, float, float, int]]] = {own: [] for own in boxes}
    for result in results:
        if result["type"] != "keypointlabels":
            continue
        value = result["value"]
        x, y = value["x"] / 100 * picture.width, value["y"] / 100 * picture.height
        owner = _owner(result, np.array([[x - EDGE, y - EDGE]]), boxes, where)
        seen = 1 if result["id"] in hidden else 2
        people.setdefault(owner, []).append((value["keypointlabels"][0], x, y, seen))
    for owner, named in people.items():
        who = person(which, picture, named, where)
        who.box = boxes.get(owner)
        add_person(found, picture, who)


def _owner(result: Result, xy: np.ndarray, boxes: dict[str, Box], where: str) -> str:
    if result.get("parentID") in boxes:
        return str(result["parentID"])
    names = list(boxes)
    around = smallest_around(xy, list(boxes.values()))
    if around is not None:
        return names[around]
    if len(boxes) > 1:
        label = result["value"]["keypointlabels"][0]
        raise LabelError(where, f"the keypoint {label!r} lies in no person's rectangle", "draw the rectangle around it")
    return names[0] if names else ""


def _box(value: dict[str, float], picture: Picture) -> Box:
    if value.get("rotation"):
        raise ValueError("a person's rectangle is turned")
    x0, y0 = value["x"] / 100 * picture.width, value["y"] / 100 * picture.height
    w, h = value["width"] / 100 * picture.width, value["height"] / 100 * picture.height
    return shifted((x0, y0, x0 + w, y0 + h))
