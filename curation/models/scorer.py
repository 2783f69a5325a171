"""What every scorer sees and answers: one decoded picture with its persons, and the columns measured on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass
class View:
    """One decoded picture, shared by every scorer.

    pixels: uint8 [H, W, 3] RGB, upright; boxes: persons in pixels of `pixels`; scale: pixels of `pixels` per pixel of
    the original. `memo` holds outputs that several scorers of one pass share (a network run once).
    """

    image_id: str
    pixels: Pixels
    scale: float = 1.0
    boxes: tuple[Box, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def main_box(self) -> Box | None:
        """The person with the longest short side; the first of equals."""
        return max(self.boxes, key=short_side, default=None)


class Scorer(Protocol):
    """Measures some columns of `scores`.

    name: how `model_calls` counts it. key: `<weights sha256[:16] or builtin name>/<revision>`, its name in the score
    cache. gated: runs only on pictures that pass the gate. uses_boxes: its values depend on the person boxes.
    """

    name: str
    key: str
    columns: tuple[str, ...]
    gated: bool
    uses_boxes: bool

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        """One dictionary per view with exactly `columns` as keys; None where nothing can be measured."""


def short_side(box: Box) -> float:
    return min(box[2] - box[0], box[3] - box[1])


def crop(pixels: Pixels, box: Box) -> Pixels:
    """The part of the picture under the box, at least one pixel wide and high. Shape [h, w, 3]."""
    height, width = pixels.shape[:2]
    x0, y0 = min(max(int(box[0]), 0), width - 1), min(max(int(box[1]), 0), height - 1)
    x1, y1 = min(max(int(np.ceil(box[2])), x0 + 1), width), min(max(int(np.ceil(box[3])), y0 + 1), height)
    return pixels[y0:y1, x0:x1]


def within(pixels: Pixels, long_side_px: int, least_px: int = 1) -> Pixels:
    """The picture shrunk (by area, never enlarged but to `least_px`) to a long side of at most `long_side_px`."""
    import cv2

    height, width = pixels.shape[:2]
    factor = min(1.0, long_side_px / max(height, width))
    size = (max(least_px, round(width * factor)), max(least_px, round(height * factor)))
    if size == (width, height):
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def boxes_fingerprint(boxes: Sequence[Sequence[float]]) -> str:
    """Twelve hex digits that change when any box moves by a tenth of a pixel."""
    rounded = np.round(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), 1) + 0.0
    return hashlib.sha256(rounded.tobytes()).hexdigest()[:12]


def combined_key(digests: Sequence[str], revision: str) -> str:
    """The cache key of a scorer made of several weight files (their sha256 digests, in the order they are used)."""
    if len(digests) == 1:
        return f"{digests[0][:16]}/{revision}"
    return f"{hashlib.sha256(''.join(digests).encode()).hexdigest()[:16]}/{revision}"
