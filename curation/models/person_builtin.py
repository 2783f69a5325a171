"""Persons without any download: OpenCV's face cascades and its HOG people detector, put together.

Cascades: Viola and Jones 2001, profiles in both directions. HOG: Dalal and Triggs 2005. A face is a person seen from
the front, for whom a body is inferred; HOG finds standing figures whose face is small or turned away. Faces that
several cascades agree on, or that lie where HOG sees a head, gain evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.models.boxes import Boxes, Detections, Pixels, Scores, iou, no_boxes, suppress


@dataclass(frozen=True)
class Cascade:
    """A face cascade: its file, the smallest face in px, and how many raw hits make one unit of evidence."""

    file: str
    min_face_px: int
    unit_hits: float
    mirrored: bool = False


# Units are fitted on the `fit` half of the acceptance pool: highest recall there at precision >= 0.95.
_FRONTAL = (Cascade("haarcascade_frontalface_alt.xml", 24, 2), Cascade("haarcascade_frontalface_default.xml", 28, 5))
_PROFILE = (
    Cascade("haarcascade_profileface.xml", 30, 5),
    Cascade("haarcascade_profileface.xml", 30, 5, mirrored=True),
)
_HOG_UNIT = 0.9  # SVM margin that makes one unit of evidence
_HOG_FLOOR = 0.3  # SVM margin below which a window is not a candidate

_FACE_SIDE = 416  # px, long side of the picture that the cascades see
_HOG_SIDE = 480
_STEP = 1.15  # between the cascades' window sizes
_MAX_HITS = 12  # more hits say no more: a large face simply covers more windows
_SURE = 2.0  # evidence of a frontal face at which profiles, as slow as all else together, are not looked for
_SAME_FACE = 0.3  # IoU

# A body from a face of width w and height h, and the figure inside HOG's window, which is trained with a margin:
# medians of the sides of YOLOX boxes on the same fit pictures, sides cut by the picture's edge left out. Downwards
# half of the bodies are cut, so there the length is that of a standing figure's greater part.
_BODY_HALF_WIDTH, _BODY_ABOVE, _BODY_BELOW = 1.3, 0.37, 6.0
_HOG_MARGIN = (0.14, 0.09, 0.19, 0.07)  # left, top, right, bottom, of the window's width and height
_HOG_PAD = 16  # px around the picture, so that figures at the edge are found
_HOG_WINDOW = (64, 128)
_HEAD_SHARE = 0.35  # of a HOG box, from the top, where a face must lie to belong to it


class BuiltinDetector:
    """`detect(images)` by classical detectors. A score is e / (1 + e), e the units of evidence: 0.5 at one unit."""

    revision = "builtin-1"

    def __init__(self, *, score_floor: float, nms_iou: float) -> None:
        self.score_floor = score_floor
        self.nms_iou = nms_iou
        self.side = max(_FACE_SIDE, _HOG_SIDE)
        self._loaded: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": {}}

    def detect(self, images: list[Pixels]) -> list[Detections]:
        """Persons of each picture, in its own pixels."""
        return [self._detect(pixels) for pixels in images]

    def _detect(self, pixels: Pixels) -> Detections:
        height, width = pixels.shape[:2]
        faces = self._faces(pixels)
        figures = self._figures(pixels)
        persons = _joined(faces, figures)
        scored = Detections(persons.boxes, persons.scores / (1 + persons.scores))
        kept = suppress(scored.clipped(width, height), self.nms_iou)
        return kept.take(np.flatnonzero(kept.scores >= self.score_floor))

    def _faces(self, pixels: Pixels) -> Detections:
        """Faces in picture pixels, scored in units of evidence."""
        grey, scale = _grey(pixels, _FACE_SIDE)
        found = [self._cascade(cascade, grey) for cascade in _FRONTAL]
        faces = _merged(found)
        if not len(faces) or faces.scores.max() < _SURE:
            faces = _merged([*found, *(self._cascade(cascade, grey) for cascade in _PROFILE)])
        return faces.moved(1 / scale, 0, 0)

    def _cascade(self, cascade: Cascade, grey: NDArray[np.uint8]) -> Detections:
        seen = np.ascontiguousarray(grey[:, ::-1]) if cascade.mirrored else grey
        smallest = (cascade.min_face_px, cascade.min_face_px)
        found, hits = self._classifier(cascade.file).detectMultiScale2(
            seen, scaleFactor=_STEP, minNeighbors=2, minSize=smallest
        )
        corners = np.asarray(found, np.float32).reshape(-1, 4)
        if cascade.mirrored:
            corners[:, 0] = grey.shape[1] - corners[:, 0] - corners[:, 2]
        evidence = np.minimum(np.asarray(hits, np.float32).reshape(-1), _MAX_HITS) / cascade.unit_hits
        return _ordered(_from_corner_size(corners), evidence.astype(np.float32))

    def _classifier(self, file: str) -> Any:
        import cv2

        if file not in self._loaded:
            self._loaded[file] = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / file))
        return self._loaded[file]

    def _figures(self, pixels: Pixels) -> Detections:
        """HOG's windows cut down to the figure, in picture pixels, scored in units of evidence."""
        import cv2

        if "hog" not in self._loaded:
            self._loaded["hog"] = cv2.HOGDescriptor()
            self._loaded["hog"].setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())
        resized, scale = _resized(pixels, _HOG_SIDE)
        found, weights = self._loaded["hog"].detectMultiScale(
            _padded(resized), winStride=(8, 8), scale=1.05, hitThreshold=0.0
        )
        margins = np.asarray(weights, np.float32).reshape(-1)
        corners = np.asarray(found, np.float32).reshape(-1, 4)
        corners[:, :2] -= _HOG_PAD
        windows = _from_corner_size(corners)
        good = margins >= _HOG_FLOOR
        return _ordered(_figure(windows[good]), margins[good] / _HOG_UNIT).moved(1 / scale, 0, 0)


def _resized(pixels: Pixels, side: int) -> tuple[Pixels, float]:
    """The picture with a long side of `side` px (no side below 1 px), and the factor along that long side."""
    import cv2

    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8), scale


def _grey(pixels: Pixels, side: int) -> tuple[NDArray[np.uint8], float]:
    import cv2

    resized, scale = _resized(pixels, side)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_RGB2GRAY), np.uint8), scale


def _padded(pixels: Pixels) -> Pixels:
    """A border of repeated edge pixels, at least to one window: OpenCV ends the process on anything smaller."""
    import cv2

    right = max(_HOG_PAD, _HOG_WINDOW[0] + _HOG_PAD - pixels.shape[1])
    bottom = max(_HOG_PAD, _HOG_WINDOW[1] + _HOG_PAD - pixels.shape[0])
    return np.asarray(cv2.copyMakeBorder(pixels, _HOG_PAD, bottom, _HOG_PAD, right, cv2.BORDER_REPLICATE), np.uint8)


def _from_corner_size(corners: NDArray[np.float32]) -> Boxes:
    return np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)


def _ordered(boxes: Boxes, evidence: Scores) -> Detections:
    """Best first, ties by position: OpenCV's own order depends on its threads."""
    index = np.lexsort((boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], -evidence))
    return Detections(boxes[index], evidence[index])


def _merged(found: list[Detections]) -> Detections:
    """One face per place: the best cascade's box there, the evidence of each cascade's best added up."""
    boxes, evidence = no_boxes(), np.zeros(0, np.float32)
    for cascade in sorted(found, key=lambda d: -float(d.scores.max(initial=0))):
        taken: set[int] = set()
        for box, score in zip(cascade.boxes, cascade.scores, strict=True):
            overlap = iou(box[None], boxes)[0]
            place = int(overlap.argmax()) if len(boxes) else -1
            if place >= 0 and overlap[place] > _SAME_FACE:
                evidence[place] += 0 if place in taken else score
            else:
                place = len(boxes)
                boxes, evidence = np.concatenate([boxes, box[None]]), np.append(evidence, score)
            taken.add(place)
    return _ordered(boxes, evidence.astype(np.float32))


def _figure(windows: Boxes) -> Boxes:
    """The figure inside HOG's windows."""
    left, top, right, bottom = _HOG_MARGIN
    size = windows[:, 2:] - windows[:, :2]
    shift = np.tile(size, 2) * np.array([left, top, -right, -bottom], np.float32)
    return (windows + shift).astype(np.float32)


def _body(face: NDArray[np.float32]) -> NDArray[np.float32]:
    """The body box [4] inferred from a face box [4]."""
    width, height = face[2] - face[0], face[3] - face[1]
    centre = (face[0] + face[2]) / 2
    half, top = _BODY_HALF_WIDTH * width, face[1] - _BODY_ABOVE * height
    return np.array([centre - half, top, centre + half, face[1] + _BODY_BELOW * height], np.float32)


def _joined(faces: Detections, figures: Detections) -> Detections:
    """Figures, with the evidence of the face in their head's place, and bodies for the faces that are in no figure."""
    evidence = figures.scores.copy()
    boxes, scores = list(figures.boxes), []
    for face, score in zip(faces.boxes, faces.scores, strict=True):
        owner = _owner(face, figures.boxes)
        if owner is None:
            boxes.append(_body(face))
            scores.append(score)
        else:
            evidence[owner] += score
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(found, np.concatenate([evidence, np.array(scores, np.float32)]))


def _owner(face: NDArray[np.float32], figures: Boxes) -> int | None:
    """The best figure in whose head's place the centre of the face lies, at a size that a head can have there."""
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    for index, (x0, y0, x1, y1) in enumerate(figures):
        inside = x0 <= x <= x1 and y0 <= y <= y0 + _HEAD_SHARE * (y1 - y0)
        if inside and face[3] - face[1] <= _HEAD_SHARE * (y1 - y0):
            return index
    return None
