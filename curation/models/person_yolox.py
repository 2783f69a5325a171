"""Persons by YOLOX (Ge et al. 2021, arXiv:2107.08430) exported to ONNX without its decoding step.

Input f32 [1, 3, S, S], BGR 0..255, letterboxed at the top left, filled with 114. Output [1, A, 85]: per anchor point
centre and log size relative to its stride, objectness, 80 class scores; the last two already sigmoid.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curation.models.boxes import Detections, Pixels, letterbox, suppress
from curation.models.onnx_session import OnnxSession

_STRIDES = (8, 16, 32)
_PERSON = 0  # COCO class index
_FILL = 114
_CANDIDATES = 300  # before suppression; a picture with more persons has none of the size that curation looks for


class YoloxDetector:
    """`detect(images)` with a YOLOX network of input side `side` px."""

    revision = "yolox-1"

    def __init__(
        self, path: str | Path, *, score_floor: float, nms_iou: float, side: int = 416, threads: int = 1
    ) -> None:
        self.session = OnnxSession(path, threads=threads)
        self.side = side
        self.score_floor = score_floor
        self.nms_iou = nms_iou

    def detect(self, images: list[Pixels]) -> list[Detections]:
        """Persons of each picture, in its own pixels."""
        return [self._detect(pixels) for pixels in images]

    def _detect(self, pixels: Pixels) -> Detections:
        canvas, mapping = letterbox(pixels, self.side, _FILL)
        x = canvas[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        found = decode_yolox(self.session.run(x)[0][0], self.side, self.score_floor)
        kept = suppress(found, self.nms_iou)
        height, width = pixels.shape[:2]
        return Detections(mapping.undo(kept.boxes), kept.scores).clipped(width, height)


def anchor_points(side: int) -> NDArray[np.float32]:
    """x, y (in cells) and stride of every anchor point, [A, 3]: strides 8, 16, 32, each row by row."""
    parts = []
    for stride in _STRIDES:
        cells = side // stride
        y, x = np.divmod(np.arange(cells * cells, dtype=np.float32), cells)
        parts.append(np.stack([x, y, np.full_like(x, stride)], axis=1))
    return np.concatenate(parts)


def decode_yolox(raw: NDArray[np.float32], side: int, score_floor: float) -> Detections:
    """Persons with score >= score_floor from the raw output [A, 85], in input pixels, unsuppressed, best first.

    Raises ValueError when the output does not belong to that input side.
    """
    points = anchor_points(side)
    if raw.shape[0] != len(points):
        raise ValueError(f"YOLOX gave {raw.shape[0]} anchor points, an input of {side} px has {len(points)}")
    scores = raw[:, 4] * raw[:, 5 + _PERSON]
    index = np.argsort(-scores, kind="stable")[:_CANDIDATES]
    index = index[scores[index] >= score_floor]
    stride = points[index, 2:3]
    centre = (raw[index, :2] + points[index, :2]) * stride
    half = np.exp(raw[index, 2:4]) * stride / 2
    return Detections(np.concatenate([centre - half, centre + half], axis=1), scores[index])
