"""Boxes x0, y0, x1, y1 in pixels: letterboxing, overlap, non-maximum suppression, crops around a box."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [H, W, 3] RGB
Boxes = NDArray[np.float32]  # [N, 4]
Scores = NDArray[np.float32]  # [N]


def no_boxes() -> Boxes:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Detections:
    """Boxes [N, 4] with a score 0..1 each [N], best first."""

    boxes: Boxes = field(default_factory=no_boxes)
    scores: Scores = field(default_factory=lambda: np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.intp]) -> Detections:
        return Detections(self.boxes[index], self.scores[index])

    def moved(self, scale: float, x: float, y: float) -> Detections:
        """Boxes times `scale`, then shifted by (x, y): from the pixels of a crop to those it was cut from."""
        return Detections((self.boxes * scale + np.array([x, y, x, y])).astype(np.float32), self.scores)

    def clipped(self, width: float, height: float) -> Detections:
        """Boxes cut at the picture's edges; those left without an area are gone."""
        boxes = np.clip(self.boxes, 0, np.array([width, height, width, height], np.float32))
        alive = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return Detections(boxes[alive], self.scores[alive])


@dataclass(frozen=True)
class Letterbox:
    """How a picture was fitted into a square: `scale` per axis (input pixels per picture pixel), top left corner kept.

    The two axes differ by the rounding of the resized size; mapping back by what was really done costs nothing.
    """

    scale_x: float
    scale_y: float

    def undo(self, boxes: NDArray[np.floating]) -> Boxes:
        """Boxes in input pixels to boxes in picture pixels."""
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        return (boxes / scale).astype(np.float32)

    def apply(self, boxes: NDArray[np.floating]) -> Boxes:
        """Boxes in picture pixels to boxes in input pixels."""
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])
        return (boxes * scale).astype(np.float32)


def letterbox(pixels: Pixels, side: int, fill: int) -> tuple[Pixels, Letterbox]:
    """Fit a picture into side x side pixels, aspect kept, at the top left, the rest filled.

    Shrinking averages areas; enlarging is allowed: a small picture fills the square too. Returns the square
    [side, side, 3] and the mapping.
    """
    import cv2

    height, width = pixels.shape[:2]
    ratio = side / max(height, width)
    new_w, new_h = max(1, round(width * ratio)), max(1, round(height * ratio))
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    canvas = np.full((side, side, 3), fill, np.uint8)
    canvas[:new_h, :new_w] = cv2.resize(pixels, (new_w, new_h), interpolation=method)
    return canvas, Letterbox(new_w / width, new_h / height)


def short_sides(boxes: Boxes) -> Scores:
    """The shorter side of each box, px [N]."""
    return np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])


def iou(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Intersection over union of every pair, [len(a), len(b)]; 0 where both boxes have no area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(axis=2)
    union = _area(a)[:, None] + _area(b)[None, :] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0).astype(np.float32)


def _area(boxes: Boxes) -> Scores:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def best_first(scores: Scores) -> NDArray[np.intp]:
    """Indices by falling score; equal scores keep their order, so the result is the same everywhere."""
    return np.argsort(-scores, kind="stable")


def suppress(found: Detections, nms_iou: float) -> Detections:
    """Greedy non-maximum suppression: best first, a box is dropped that overlaps a kept one by more than `nms_iou`."""
    ordered = found.take(best_first(found.scores))
    overlaps = iou(ordered.boxes, ordered.boxes) > nms_iou
    alive = np.ones(len(ordered), bool)
    for index in range(len(ordered)):
        if alive[index]:
            alive[index + 1 :] &= ~overlaps[index, index + 1 :]
    return ordered.take(np.flatnonzero(alive))


def crop_around(pixels: Pixels, box: NDArray[np.floating], margin: float) -> tuple[Pixels, int, int]:
    """The picture inside `box` grown by `margin` times its sides on each side, cut at the edges; with its x and y."""
    height, width = pixels.shape[:2]
    grow_x, grow_y = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    x0, y0 = int(max(0, np.floor(box[0] - grow_x))), int(max(0, np.floor(box[1] - grow_y)))
    x1, y1 = int(min(width, np.ceil(box[2] + grow_x))), int(min(height, np.ceil(box[3] + grow_y)))
    return pixels[y0:y1, x0:x1], x0, y0
