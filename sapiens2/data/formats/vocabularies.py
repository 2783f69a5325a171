"""Vocabularies of other data sets, and how they map to the 308 keypoints and the 29 parts; tables beside this file.

Sides are the person's everywhere. A point without a counterpart maps to nothing, and so carries no weight. `use` in a
keypoint table: `both` for the same point, `out` for one that is near enough to be written but not to be learned from
(a wrist for the root of a hand, a lash line's end for an eye's corner). The base joint of a finger, `third_joint` of
the 308, is joint 1 of COCO-WholeBody: the same knuckle, and both publish the same sigma for it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from sapiens2.tasks.vocabulary import IGNORE, keypoints, parts

Array = np.ndarray
OWN = "sapiens308"
LAYOUTS = ("coco17", "wholebody133", "halpe26", "halpe136", "crowdpose14", "aic14", "mhp16", "humanart21", OWN)
CLASS_MAPS = ("cihp20", "lip20", "voc21")


@dataclass(frozen=True)
class Layout:
    """A keypoint layout: names by its ids, and the keypoint of the 308 behind each, -1 where there is none."""

    name: str
    names: tuple[str, ...]
    reads: Array  # [N] for labels that come in
    writes: Array  # [N] for labels that go out: more, since near is enough there

    def __len__(self) -> int:
        return len(self.names)

    def to_308(self, points: Array) -> Array:
        """[N, 3] x, y, visibility of this layout as [308, 3]; what it does not have is 0."""
        out = np.zeros((len(keypoints()), 3))
        known = (self.reads >= 0) & (points[:, 2] > 0)
        out[self.reads[known]] = points[known]
        return out

    def from_308(self, points: Array) -> Array:
        """[308, 3] x, y, visibility (or score) as [N, 3] of this layout; what has no counterpart is 0."""
        known = (self.writes >= 0) & (points[self.writes, 2] > 0)
        return np.where(known[:, None], points[self.writes], 0.0)


def _rows(name: str) -> list[dict[str, str]]:
    text = files(__package__).joinpath("tables", f"{name}.tsv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


@cache
def layout(name: str) -> Layout:
    """A keypoint layout by name; ValueError listing the names."""
    if name not in LAYOUTS:
        raise ValueError(f"no keypoint layout is called {name!r}; use one of {', '.join(LAYOUTS)}")
    ids = keypoints()
    if name == OWN:
        return Layout(name, ids.names, np.arange(len(ids)), np.arange(len(ids)))
    rows = _rows(name)
    target = [-1 if row["keypoint"] == "-" else ids.id(row["keypoint"]) for row in rows]
    reads = [k if row["use"] == "both" else -1 for k, row in zip(target, rows, strict=True)]
    return Layout(name, tuple(row["name"] for row in rows), np.array(reads), np.array(target))


@cache
def class_map(name: str) -> Array:
    """uint8 [256]: part of each class id of another vocabulary, 255 for what cannot be told or is not known.

    Whole arms and legs, dresses and socks are 255: their classes do not say which of several parts a pixel is.
    Raises ValueError listing the names.
    """
    if name not in CLASS_MAPS:
        raise ValueError(f"no class map is called {name!r}; use one of {', '.join(CLASS_MAPS)}")
    table = np.full(256, IGNORE, np.uint8)
    for row in _rows(name):
        table[int(row["id"])] = IGNORE if row["part"] == "-" else parts().id(row["part"])
    return table


def class_count(name: str) -> int:
    """How many classes the other vocabulary has."""
    return len(_rows(name))
