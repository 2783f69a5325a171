"""What is evened out: measured attributes of a picture and its main person, each one of a few bins.

An attribute that could not be measured is `unknown`, a bin of its own; "no face was found" is a measurement and not
unknown: mostly backs, profiles and distant people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.balance.allocation import UNKNOWN

# Upper edges and names of bins; the last name has no upper edge.
YAW_DEG = ((-60.0, "left_profile"), (-25.0, "left"), (25.0, "frontal"), (60.0, "right"), (None, "right_profile"))
SCALE = ((0.25, "small"), (0.5, "medium"), (0.75, "large"), (None, "filling"))  # person height / picture height
LUMINANCE = ((0.25, "dark"), (0.45, "dim"), (0.65, "bright"), (None, "very_bright"))
TEMPERATURE = ((-0.05, "cold"), (0.05, "neutral"), (0.2, "warm"), (None, "very_warm"))
EDGE_SHARE = 0.01  # of the picture's side: a box that comes this near to it is cut by it
_STANDING = 1.8  # height / width from which an uncut person is seen whole
AXES = ("head_pose", "extent", "person_count", "person_scale", "luminance", "temperature")
Floats = NDArray[np.float64]
Steps = Sequence[tuple[float | None, str]]


@dataclass(frozen=True)
class Person:
    """The boxes of a picture, best first, in its pixels; what its main face and light were measured to be."""

    width: int
    height: int
    boxes: list[list[float]]
    face_count: int | None
    yaw_deg: float | None
    exposure: float | None
    colour_temperature: float | None


def measure(person: Person) -> dict[str, str]:
    """The bin of each axis."""
    return {
        "head_pose": head_pose(person.face_count, person.yaw_deg),
        "extent": extent(person),
        "person_count": count(len(person.boxes)),
        "person_scale": scale(person),
        "luminance": binned(person.exposure, LUMINANCE),
        "temperature": binned(person.colour_temperature, TEMPERATURE),
    }


def binned(value: float | None, steps: Steps) -> str:
    """The name of the first bin whose upper edge is above `value`; unknown for null or NaN."""
    if value is None or np.isnan(value):
        return UNKNOWN
    return next(name for edge, name in steps if edge is None or value < edge)


def head_pose(face_count: int | None, yaw_deg: float | None) -> str:
    """The yaw bin of the main face; no_face when faces were looked for and none was found."""
    if face_count == 0:
        return "no_face"
    return binned(yaw_deg, YAW_DEG)


def count(people: int) -> str:
    """one, two, few (3 to 5) or many persons; none without a box."""
    return ("none", "one", "two", "few", "few", "few")[people] if people <= 5 else "many"


def main_box(boxes: list[list[float]]) -> list[float] | None:
    """The box with the largest area; the best scored of equals."""
    return max(boxes, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]), default=None)


def scale(person: Person) -> str:
    """Height of the main person over the height of the picture, in four bins."""
    box = main_box(person.boxes)
    return UNKNOWN if box is None else binned((box[3] - box[1]) / max(person.height, 1), SCALE)


def extent(person: Person) -> str:
    """How much of the main person the picture shows, from the sides that cut the box and its shape.

    cut_sides: left or right cut it; lower_cut: the bottom cuts it (a half-length portrait); upper_cut: the top alone;
    whole: nothing cuts a tall box; compact: nothing cuts it, and it is not tall (sitting, crouching, covered).
    """
    box = main_box(person.boxes)
    if box is None:
        return UNKNOWN
    x0, y0, x1, y1 = box
    margin_x, margin_y = EDGE_SHARE * person.width, EDGE_SHARE * person.height
    if x0 <= margin_x or x1 >= person.width - margin_x:
        return "cut_sides"
    if y1 >= person.height - margin_y:
        return "lower_cut"
    if y0 <= margin_y:
        return "upper_cut"
    return "whole" if y1 - y0 >= _STANDING * (x1 - x0) else "compact"


def columns(people: Sequence[Person]) -> dict[str, NDArray[Any]]:
    """axis -> bins [N] of many pictures."""
    rows = [measure(person) for person in people]
    return {axis: np.array([row[axis] for row in rows], dtype=str) for axis in AXES}


@dataclass(frozen=True)
class Crowd:
    """The same of N pictures, as columns; NaN where not measured. `row` is the picture that a box belongs to."""

    width: Floats  # [N]
    height: Floats
    row: NDArray[np.int64]  # [B], rising
    boxes: Floats  # [B, 4], best first within a picture
    face_count: Floats  # [N]
    yaw_deg: Floats
    exposure: Floats
    colour_temperature: Floats


def columns_of(crowd: Crowd) -> dict[str, NDArray[Any]]:
    """axis -> bins [N], as `columns` of the same pictures one by one."""
    n_boxes = np.bincount(crowd.row, minlength=len(crowd.width))
    faces = crowd.face_count == 0
    box = _main_boxes(crowd)
    height_share = (box[:, 3] - box[:, 1]) / np.maximum(crowd.height, 1)
    return {
        "head_pose": np.where(faces, "no_face", _binned(crowd.yaw_deg, YAW_DEG)),
        "extent": _extents(box, crowd),
        "person_count": np.array([count(k) for k in range(7)])[np.minimum(n_boxes, 6)],
        "person_scale": _binned(height_share, SCALE),
        "luminance": _binned(crowd.exposure, LUMINANCE),
        "temperature": _binned(crowd.colour_temperature, TEMPERATURE),
    }


def _binned(values: Floats, steps: Steps) -> NDArray[Any]:
    names = np.array([*(name for _, name in steps), UNKNOWN])
    at = np.searchsorted([edge for edge, _ in steps if edge is not None], values, side="right")
    return names[np.where(np.isnan(values), len(steps), at)]


def _main_boxes(crowd: Crowd) -> Floats:
    """The main box of each picture, [N, 4]; NaN without one."""
    x0, y0, x1, y1 = crowd.boxes.T
    order = np.lexsort((-(x1 - x0) * (y1 - y0), crowd.row))  # stable: the best scored of equals is first
    _, first = np.unique(crowd.row[order], return_index=True)
    out = np.full((len(crowd.width), 4), np.nan)
    out[crowd.row[order[first]]] = crowd.boxes[order[first]]
    return out


def _extents(box: Floats, crowd: Crowd) -> NDArray[Any]:
    x0, y0, x1, y1 = box.T
    margin_x, margin_y = EDGE_SHARE * crowd.width, EDGE_SHARE * crowd.height
    cases = [
        (np.isnan(x0), UNKNOWN),
        ((x0 <= margin_x) | (x1 >= crowd.width - margin_x), "cut_sides"),
        (y1 >= crowd.height - margin_y, "lower_cut"),
        (y0 <= margin_y, "upper_cut"),
        (y1 - y0 >= _STANDING * (x1 - x0), "whole"),
    ]
    return np.select([case for case, _ in cases], [name for _, name in cases], "compact")
