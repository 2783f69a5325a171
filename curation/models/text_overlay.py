"""Text laid over a picture: the PP-OCR detection network, its boxes, and the two columns made of text boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curation.models.onnx_session import OnnxSession
from curation.models.scorer import Box, Pixels, View, combined_key
from curation.models.weights import file_sha256

Quad = NDArray[np.float32]  # [4, 2] corners x, y

_MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
_STD = np.array((0.229, 0.224, 0.225), dtype=np.float32)
_MAX_TILT_DEG = 10.0
_MIN_ASPECT = 2.0
_LINE_REVISION = 1


@dataclass(frozen=True)
class TextBox:
    """One line of text: its corners in pixels, and how sure the detector is, 0..1."""

    quad: Quad
    score: float


class TextDetector(Protocol):
    name: str
    key: str

    def detect(self, pixels: Pixels) -> list[TextBox]:
        """Lines of text in an RGB picture."""


class TextOverlayScorer:
    """Shares of the picture, and of its main person, that lines of overlaid text cover.

    Only lines parallel to the picture's lower edge count, at least twice as long as high: captions are, while text in
    a scene is seen in perspective, and false alarms on fur or foliage are as high as wide.
    """

    columns: tuple[str, ...] = ("text_ratio", "text_person_overlap")
    gated = True
    uses_boxes = True

    def __init__(self, detector: TextDetector) -> None:
        self.detector = detector
        self.name = detector.name
        self.key = f"{detector.key}-lines{_LINE_REVISION}"

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        return [self._one(view) for view in views]

    def _one(self, view: View) -> dict[str, Any]:
        height, width = view.pixels.shape[:2]
        lines = [text.quad for text in self.detector.detect(view.pixels) if is_level_line(text.quad)]
        covered = coverage(lines, width, height)
        return {"text_ratio": float(covered.mean()), "text_person_overlap": share_in_box(covered, view.main_box)}


def is_level_line(quad: Quad) -> bool:
    """Whether the longer side is within ten degrees of horizontal and at least twice the shorter one."""
    sides = quad[1:3] - quad[0:2]
    lengths = np.hypot(sides[:, 0], sides[:, 1])
    long, short = int(np.argmax(lengths)), int(np.argmin(lengths))
    angle = abs(float(np.degrees(np.arctan2(sides[long, 1], sides[long, 0]))))
    return min(angle, 180.0 - angle) <= _MAX_TILT_DEG and float(lengths[long]) >= _MIN_ASPECT * float(lengths[short])


def coverage(quads: Sequence[Quad], width: int, height: int) -> NDArray[np.uint8]:
    """A mask [height, width] of 0 and 1: the union of the quadrilaterals."""
    import cv2

    mask = np.zeros((height, width), dtype=np.uint8)
    for quad in quads:
        cv2.fillConvexPoly(mask, np.round(quad).astype(np.int32), 1)
    return mask


def share_in_box(mask: NDArray[np.uint8], box: Box | None) -> float | None:
    """Share of the box that the mask covers; None without a box."""
    if box is None:
        return None
    height, width = mask.shape
    x0, y0 = max(round(box[0]), 0), max(round(box[1]), 0)
    x1, y1 = min(round(box[2]), width), min(round(box[3]), height)
    return float(mask[y0:y1, x0:x1].mean()) if x1 > x0 and y1 > y0 else 0.0


class PaddleTextDetector:
    """The PP-OCR detection network (differentiable binarisation): a probability map, then boxes.

    Input: the channels in BGR order, / 255, ImageNet mean and deviation, sides rounded to multiples of 32.
    Liao et al. (2020), Real-time scene text detection with differentiable binarization.
    """

    name = "ppocr_det"

    def __init__(
        self,
        path: str | Path,
        *,
        long_side_px: int = 640,
        pixel_threshold: float = 0.3,
        box_threshold: float = 0.7,
        unclip: float = 1.5,
        revision: str = "1",
        threads: int = 1,
    ) -> None:
        self.long_side_px = long_side_px
        self.pixel_threshold = pixel_threshold
        self.box_threshold = box_threshold
        self.unclip = unclip
        how = f"{revision}-{long_side_px}px-{pixel_threshold:g}-{box_threshold:g}-{unclip:g}"
        self.key = combined_key([file_sha256(path)], how)
        self._session = OnnxSession(path, threads=threads)

    def detect(self, pixels: Pixels) -> list[TextBox]:
        height, width = pixels.shape[:2]
        return boxes_of_map(
            self.probability(pixels),
            width,
            height,
            pixel_threshold=self.pixel_threshold,
            box_threshold=self.box_threshold,
            unclip=self.unclip,
        )

    def probability(self, pixels: Pixels) -> NDArray[np.float32]:
        """Probability of text [H', W'], H' and W' multiples of 32."""
        import cv2

        height, width = pixels.shape[:2]
        factor = min(1.0, self.long_side_px / max(height, width))
        size = (_multiple_of_32(width * factor), _multiple_of_32(height * factor))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        x = cv2.resize(pixels, size, interpolation=how)[..., ::-1].astype(np.float32) / 255.0
        x = (x - _MEAN) / _STD
        return np.asarray(self._session.run(x.transpose(2, 0, 1)[None])[0][0, 0], dtype=np.float32)


def _multiple_of_32(value: float) -> int:
    return max(32, round(value / 32) * 32)


def boxes_of_map(
    probability: NDArray[np.float32],
    width: int,
    height: int,
    *,
    pixel_threshold: float = 0.3,
    box_threshold: float = 0.7,
    unclip: float = 1.5,
    min_side: float = 3.0,
) -> list[TextBox]:
    """Text boxes, in pixels of a picture of width x height, from a probability map [h, w] of any size.

    A connected region over `pixel_threshold` becomes its smallest rotated rectangle; it counts when the mean
    probability inside is at least `box_threshold`; it grows on every side by area x unclip / perimeter, which undoes
    the shrinking that the network was taught with.
    """
    import cv2

    rows, columns = probability.shape
    scale = np.array([width / columns, height / rows], dtype=np.float32)
    binary = (probability > pixel_threshold).astype(np.uint8)
    contours, _ = cv2.findContours(binary, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found: list[TextBox] = []
    for contour in contours:
        rectangle = cv2.minAreaRect(contour)
        if min(rectangle[1]) < min_side:
            continue
        score = _mean_inside(probability, np.asarray(cv2.boxPoints(rectangle), dtype=np.float32))
        if score >= box_threshold:
            found.append(TextBox(grown(rectangle, unclip) * scale, score))
    return found


def _mean_inside(probability: NDArray[np.float32], quad: Quad) -> float:
    """Mean of the map under a quadrilateral, read only in its bounding box."""
    import cv2

    rows, columns = probability.shape
    x0, y0 = np.clip(np.floor(quad.min(axis=0)).astype(int), 0, (columns - 1, rows - 1))
    x1, y1 = np.clip(np.ceil(quad.max(axis=0)).astype(int), 0, (columns - 1, rows - 1))
    mask = np.zeros((y1 - y0 + 1, x1 - x0 + 1), dtype=np.uint8)
    cv2.fillConvexPoly(mask, np.round(quad - (x0, y0)).astype(np.int32), 1)
    return float(probability[y0 : y1 + 1, x0 : x1 + 1][mask > 0].mean())


def grown(rectangle: Any, ratio: float) -> Quad:
    """Corners [4, 2] of a rotated rectangle (centre, (w, h), angle) moved out by w h ratio / (2 w + 2 h)."""
    import cv2

    centre, (w, h), angle = rectangle
    margin = w * h * ratio / (2 * (w + h))
    return np.asarray(cv2.boxPoints((centre, (w + 2 * margin, h + 2 * margin), angle)), dtype=np.float32)
