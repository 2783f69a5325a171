"""What the labels mean: 308 keypoints, their skeleton, and 29 body parts, read once from the tables beside this file.

Ids follow the published Sapiens2 vocabularies, so that labels and released heads can be exchanged.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import numpy as np

GROUPS = ("body", "foot", "face", "left_hand", "right_hand", "extra")
IGNORE = 255
"""Label of pixels that carry no part annotation."""


@dataclass(frozen=True)
class Keypoints:
    """The keypoint vocabulary; arrays are indexed by keypoint id."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    flip: np.ndarray  # [308] id of the mirrored keypoint
    sigmas: np.ndarray  # [308] OKS fall-off, a fraction of the square root of the person's area
    wholebody: np.ndarray  # [308] COCO-WholeBody id, -1 where none matches
    links: np.ndarray  # [65, 2] skeleton

    def __len__(self) -> int:
        return len(self.names)

    def id(self, name: str) -> int:
        """The id of a keypoint by name; ValueError if there is none."""
        if name not in self._ids:
            raise ValueError(f"no keypoint is called {name!r}; names are in sapiens2/tasks/vocabulary/keypoints.tsv")
        return self._ids[name]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def group(self, name: str) -> np.ndarray:
        """Ids of one group. `body` is the COCO 17 in the order of this vocabulary."""
        if name not in GROUPS:
            raise ValueError(f"no keypoint group is called {name!r}; use one of {', '.join(GROUPS)}")
        return np.flatnonzero(np.array(self.groups) == name)


@dataclass(frozen=True)
class Parts:
    """The part vocabulary; arrays are indexed by class id."""

    names: tuple[str, ...]
    flip: np.ndarray  # [29] class of the mirrored part
    weights: np.ndarray  # [29] cross-entropy weight

    def __len__(self) -> int:
        return len(self.names)

    def id(self, name: str) -> int:
        """The id of a part by name; ValueError if there is none."""
        if name not in self.names:
            raise ValueError(f"no part is called {name!r}; names are in sapiens2/tasks/vocabulary/parts.tsv")
        return self.names.index(name)


def _rows(name: str) -> list[dict[str, str]]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


@cache
def keypoints() -> Keypoints:
    """The 308 keypoints."""
    rows = _rows("keypoints.tsv")
    return Keypoints(
        names=tuple(r["name"] for r in rows),
        groups=tuple(r["group"] for r in rows),
        flip=np.array([int(r["flip_id"]) for r in rows]),
        sigmas=np.array([float(r["oks_sigma"]) for r in rows], np.float32),
        wholebody=np.array([-1 if r["coco_wholebody_id"] == "-" else int(r["coco_wholebody_id"]) for r in rows]),
        links=np.array([[int(r["from_id"]), int(r["to_id"])] for r in _rows("skeleton.tsv")]),
    )


@cache
def parts() -> Parts:
    """The 29 part classes; 0 is the background."""
    rows = _rows("parts.tsv")
    return Parts(
        names=tuple(r["name"] for r in rows),
        flip=np.array([int(r["flip_id"]) for r in rows]),
        weights=np.array([float(r["loss_weight"]) for r in rows], np.float32),
    )
