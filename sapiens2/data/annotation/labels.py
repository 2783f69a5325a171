"""What the readers of all tools give: people with keypoints of the 308, regions of the 29 parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sapiens2.data.annotation.batch import Picture
from sapiens2.data.formats.vocabularies import Layout
from sapiens2.data.labelled.layout import LabelError
from sapiens2.tasks.vocabulary import IGNORE, parts

Array = np.ndarray
Box = tuple[float, float, float, float]
EDGE = 0.5
"""Tools count from the picture's outer edge; here the centre of the first pixel is 0."""
OUTSIDE, NO_POINTS = "points outside the picture", "people without a mapped keypoint"


@dataclass
class Person:
    """Keypoints float [308, 3] x, y, visibility; box x0, y0, x1, y1; pixel (0, 0) is the first pixel's centre.

    outside: how many of its points of the 308 lay outside the picture, and so lost their label. area: square pixels
    that the person covers, where the tool says so.
    """

    points: Array
    box: Box | None = None
    outside: int = 0
    area: float | None = None


@dataclass
class Region:
    """Pixels bool [H, W] of one part."""

    part: int
    pixels: Array


@dataclass
class PictureLabels:
    """What was labelled on a picture; later regions lie over earlier ones."""

    people: list[Person] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)

    def mask(self, size: tuple[int, int], *, unlabelled: int = 0) -> Array:
        """Class ids uint8 [H, W]; what no region covers is `unlabelled`, 0 background or 255 unknown."""
        out = np.full(size, unlabelled, np.uint8)
        for region in self.regions:
            out[region.pixels] = region.part
        return out


@dataclass
class Found:
    """Labels by name of the picture, and what was left out, by reason."""

    pictures: dict[str, PictureLabels] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def of(self, picture: Picture) -> PictureLabels:
        """The labels of a picture, empty at first."""
        return self.pictures.setdefault(picture.name, PictureLabels())


def regions_of(mask: Array) -> list[Region]:
    """The parts of a mask [H, W], background and unknown pixels left out."""
    return [Region(int(part), mask == part) for part in np.unique(mask) if part not in (0, IGNORE)]


def part_id(name: str, where: str) -> int:
    """A part's id by its name, however spelled. Raises LabelError for a name of no part."""
    known = {_plain(part): k for k, part in enumerate(parts().names)}
    if _plain(name) not in known:
        raise LabelError(where, f"the label {name!r} is no part", f"use {', '.join(parts().names)}")
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def person(layout: Layout, picture: Picture, named: Sequence[tuple[str, float, float, int]], where: str) -> Person:
    """A person from (keypoint, x, y from the outer edge, visibility); LabelError for unknown or repeated names.

    A point outside the picture loses its label, and is counted if it is one of the 308.
    """
    ids = {name: k for k, name in enumerate(layout.names)}
    points, seen, outside = np.zeros((len(layout), 3)), set(), 0
    for name, x, y, visibility in named:
        if name not in ids:
            raise LabelError(where, f"the label {name!r} is no keypoint of {layout.name}", "use the exported labels")
        if name in seen:
            raise LabelError(where, f"has the keypoint {name!r} twice in one person", "delete one of them")
        seen.add(name)
        if not np.isfinite([x, y]).all():
            raise LabelError(where, f"the keypoint {name!r} is at ({x:g}, {y:g})", "give numbers of pixels")
        inside = 0 <= x <= picture.width and 0 <= y <= picture.height
        points[ids[name]] = (x - EDGE, y - EDGE, visibility) if inside else 0
        outside += int(not inside and layout.reads[ids[name]] >= 0)
    return Person(layout.to_308(points), outside=outside)


def add_person(found: Found, picture: Picture, who: Person) -> None:
    """Keep a person that has a keypoint, and count what was left out."""
    if (who.points[:, 2] > 0).any():
        found.of(picture).people.append(who)
    else:
        found.left_out[NO_POINTS] += 1
    found.left_out[OUTSIDE] += who.outside


def shifted(box: Box) -> Box:
    """A box from the picture's outer edge, as the layout has it."""
    x0, y0, x1, y1 = (float(v) - EDGE for v in box)
    return x0, y0, x1, y1


def smallest_around(xy: Array, boxes: Sequence[Box], *, slack: float = 2.0) -> int | None:
    """Which of the boxes is the smallest that holds all points [N, 2]; None if none does."""
    holding = [
        ((x1 - x0) * (y1 - y0), k)
        for k, (x0, y0, x1, y1) in enumerate(boxes)
        if ((xy >= [x0 - slack, y0 - slack]) & (xy <= [x1 + slack, y1 + slack])).all()
    ]
    return min(holding)[1] if holding else None
