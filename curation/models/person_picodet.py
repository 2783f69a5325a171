"""Persons by PP-PicoDet (Yu et al. 2021, arXiv:2111.00902) exported to ONNX without its decoding step.

Input f32 [1, 3, S, S], BGR, standardised, letterboxed at the top left, filled with 0. Outputs: for strides 8, 16, 32,
64 class scores [1, N, 80] (already sigmoid), then for the same strides distances to the four sides as distributions
over 0..7 cells [1, N, 32] (generalised focal loss, Li et al. 2020, arXiv:2006.04388).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curation.models.boxes import Detections, Pixels, letterbox, suppress
from curation.models.onnx_session import OnnxSession

_STRIDES = (8, 16, 32, 64)
_BINS = 8
_PERSON = 0  # COCO class index
_MEAN = np.array([103.53, 116.28, 123.675], np.float32)  # of B, G, R
_STD = np.array([57.375, 57.12, 58.395], np.float32)
_CANDIDATES = 300


class PicodetDetector:
    """`detect(images)` with a PicoDet network of input side `side` px."""

    revision = "picodet-1"

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
        canvas, mapping = letterbox(pixels, self.side, 0)
        x = ((canvas[:, :, ::-1].astype(np.float32) - _MEAN) / _STD).transpose(2, 0, 1)[None]
        outputs = self.session.run(x)
        classes, distances = [o[0] for o in outputs[:4]], [o[0] for o in outputs[4:]]
        kept = suppress(decode_picodet(classes, distances, self.side, self.score_floor), self.nms_iou)
        height, width = pixels.shape[:2]
        return Detections(mapping.undo(kept.boxes), kept.scores).clipped(width, height)


def decode_picodet(
    classes: list[NDArray[np.float32]], distances: list[NDArray[np.float32]], side: int, score_floor: float
) -> Detections:
    """Persons with score >= score_floor from class scores [N, 80] and side distributions [N, 32] of the four strides.

    In input pixels, unsuppressed, best first. Raises ValueError when a level does not belong to that input side.
    """
    boxes, scores = [], []
    for stride, level_scores, level_distances in zip(_STRIDES, classes, distances, strict=True):
        cells = -(-side // stride)
        if len(level_scores) != cells * cells:
            raise ValueError(f"PicoDet gave {len(level_scores)} points at stride {stride}, {side} px have {cells**2}")
        person = level_scores[:, _PERSON]
        index = np.flatnonzero(person >= score_floor)
        boxes.append(_boxes(level_distances[index], index, cells, stride))
        scores.append(person[index])
    found = Detections(np.concatenate(boxes), np.concatenate(scores))
    return found.take(np.argsort(-found.scores, kind="stable")[:_CANDIDATES])


def _boxes(distances: NDArray[np.float32], index: NDArray[np.intp], cells: int, stride: int) -> NDArray[np.float32]:
    """Centre of the cell minus / plus the expected distance to left, top, right, bottom."""
    logits = distances.reshape(-1, 4, _BINS)
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    sides = (weights @ np.arange(_BINS, dtype=np.float32)) / weights.sum(axis=2) * stride
    y, x = np.divmod(index, cells)
    centre = (np.stack([x, y], axis=1) + np.float32(0.5)) * stride
    return np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], axis=1).astype(np.float32)
