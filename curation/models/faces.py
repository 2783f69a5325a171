"""Faces and where they look: which face is the main person's, and the detectors that find it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curation.models.onnx_session import OnnxSession
from curation.models.scorer import Box, Pixels, View, combined_key, within
from curation.models.weights import file_sha256

_COARSE_PROFILE_DEG = 65.0


@dataclass(frozen=True)
class Face:
    """A face box in pixels of the picture it was found in, its score 0..1, and a pose if the detector knows one."""

    box: Box
    score: float
    yaw_deg: float | None = None
    landmarks: tuple[tuple[float, float], ...] = ()  # right eye, left eye, nose, right and left mouth corner


class FaceDetector(Protocol):
    key: str

    def detect(self, pixels: Pixels) -> list[Face]:
        """Faces, best score first."""


class HeadPose(Protocol):
    key: str

    def estimate(self, pixels: Pixels, box: Box) -> tuple[float, float, float]:
        """Yaw, pitch, roll in degrees (conventions in curation.tables) of the face in `box`."""


class FaceScorer:
    """Number of faces, the main person's face, and its head pose (by the network, else what the detector knows)."""

    columns: tuple[str, ...] = ("face_count", "face_box", "yaw_deg", "pitch_deg", "roll_deg")
    gated = True
    uses_boxes = True

    def __init__(self, detector: FaceDetector, head_pose: HeadPose | None = None) -> None:
        self.detector = detector
        self.head_pose = head_pose
        detector_name, detector_revision = detector.key.split("/")
        self.name = "faces"
        self.key = detector.key
        if head_pose is not None:
            pose_name, pose_revision = head_pose.key.split("/")
            self.key = combined_key([detector_name, pose_name], f"faces-{detector_revision}-{pose_revision}")

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        return [self._one(view) for view in views]

    def _one(self, view: View) -> dict[str, Any]:
        faces = self.detector.detect(view.pixels)
        face = main_face(faces, view.main_box)
        row: dict[str, Any] = dict.fromkeys(self.columns)
        row["face_count"] = len(faces)
        if face is None:
            return row
        row["face_box"] = [value / view.scale for value in face.box]
        row["yaw_deg"] = face.yaw_deg
        if self.head_pose is not None:
            pose = self.head_pose.estimate(view.pixels, face.box)
            row["yaw_deg"], row["pitch_deg"], row["roll_deg"] = pose
        return row


def main_face(faces: Sequence[Face], person: Box | None) -> Face | None:
    """The largest face whose centre lies in the person box; without a person the largest of all."""
    inside = [face for face in faces if person is None or _centre_in(face.box, person)]
    return max(inside, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]), default=None)


def _centre_in(box: Box, outer: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


def suppress(faces: Sequence[Face], overlap: float) -> list[Face]:
    """Greedy non-maximum suppression: best score first, none over `overlap` (IoU) with a better one."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: (-face.score, face.box)):
        if all(_iou(face.box, other.box) <= overlap for other in kept):
            kept.append(face)
    return kept


def _iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


class CascadeFaces:
    """OpenCV's frontal and profile cascades. The yaw is coarse, by which cascade fired: 0, or 65 to either side.

    The profile cascade knows faces that look to the image's left; those to the right are found in the mirrored picture.
    It is slow and takes frontal faces for turned ones, so it runs only where the frontal cascade found nothing.
    """

    def __init__(self, *, long_side_px: int = 384, revision: str = "1") -> None:
        self.long_side_px = long_side_px
        self.key = f"builtin-cascades/{revision}-{long_side_px}px"
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def _cascades(self) -> tuple[Any, Any]:
        import cv2

        if self._loaded is None:
            folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]
            names = ("haarcascade_frontalface_alt2.xml", "haarcascade_profileface.xml")
            frontal, profile = (cv2.CascadeClassifier(str(folder / name)) for name in names)
            self._loaded = (frontal, profile)
        return self._loaded

    def detect(self, pixels: Pixels) -> list[Face]:
        import cv2

        frontal, profile = self._cascades()
        small = within(pixels, self.long_side_px)
        grey = np.asarray(cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)), dtype=np.uint8)
        width = grey.shape[1]
        factor = pixels.shape[1] / width
        faces = [Face(box, weight, 0.0) for box, weight in _fire(frontal, grey, 5)]
        if not faces:
            faces = [Face(box, weight, -_COARSE_PROFILE_DEG) for box, weight in _fire(profile, grey, 5)]
            for (x0, y0, x1, y1), weight in _fire(profile, np.ascontiguousarray(grey[:, ::-1]), 5):
                faces.append(Face((width - x1, y0, width - x0, y1), weight, _COARSE_PROFILE_DEG))
        return [_scaled(face, factor) for face in suppress(faces, 0.3)]


def _fire(cascade: Any, grey: NDArray[np.uint8], neighbours: int) -> list[tuple[Box, float]]:
    """Boxes and a score in 0..1 that grows with the weight of the cascade's last stage."""
    smallest = max(24, round(0.06 * min(grey.shape)))
    if min(grey.shape) < smallest:
        return []
    boxes, _, weights = cascade.detectMultiScale3(
        grey, 1.12, neighbours, minSize=(smallest, smallest), outputRejectLevels=True
    )
    found = []
    for (x, y, w, h), weight in zip(boxes, np.ravel(weights), strict=True):
        box = (float(x), float(y), float(x + w), float(y + h))
        found.append((box, float(weight) / (1.0 + abs(float(weight)))))
    return found


def _scaled(face: Face, factor: float) -> Face:
    x0, y0, x1, y1 = (value * factor for value in face.box)
    landmarks = tuple((x * factor, y * factor) for x, y in face.landmarks)
    return Face((x0, y0, x1, y1), face.score, face.yaw_deg, landmarks)


class YuNetFaces:
    """YuNet (ONNX): BGR 0..255 at strides 8, 16, 32; score = sqrt(class x object); five landmarks."""

    def __init__(
        self,
        path: str | Path,
        *,
        long_side_px: int = 640,
        threshold: float = 0.6,
        revision: str = "1",
        threads: int = 1,
    ) -> None:
        self.long_side_px = long_side_px
        self.threshold = threshold
        self.key = combined_key([file_sha256(path)], f"{revision}-{long_side_px}px-{threshold:g}")
        self._session = OnnxSession(path, threads=threads)

    def detect(self, pixels: Pixels) -> list[Face]:
        small = within(pixels, self.long_side_px)
        height, width = (-(-side // 32) * 32 for side in small.shape[:2])
        padded = np.zeros((height, width, 3), dtype=np.float32)
        padded[: small.shape[0], : small.shape[1]] = small[..., ::-1]
        outputs = self._session.run(padded.transpose(2, 0, 1)[None])
        faces = decode_yunet(dict(zip(self._session.output_names, outputs, strict=True)), width, self.threshold)
        factor = max(pixels.shape[:2]) / max(small.shape[:2])
        return [_scaled(face, factor) for face in suppress(faces, 0.45)]


def decode_yunet(outputs: dict[str, NDArray[Any]], width: int, threshold: float) -> list[Face]:
    """Faces over `threshold` from the raw maps cls_s, obj_s, bbox_s, kps_s (s = 8, 16, 32), each [1, cells, channels].

    A cell at (column, row) with stride s stands at (column s, row s); the box is that point plus s times the first two
    numbers, with sides s exp of the last two; a landmark is the point plus s times its two numbers.
    """
    faces: list[Face] = []
    for stride in (8, 16, 32):
        score = np.sqrt(np.clip(outputs[f"cls_{stride}"][0, :, 0] * outputs[f"obj_{stride}"][0, :, 0], 0, 1))
        for cell in np.flatnonzero(score >= threshold):
            row, column = divmod(int(cell), width // stride)
            dx, dy, log_w, log_h = (float(v) for v in outputs[f"bbox_{stride}"][0, cell])
            x, y = (column + dx) * stride, (row + dy) * stride
            w, h = float(np.exp(log_w)) * stride, float(np.exp(log_h)) * stride
            points = outputs[f"kps_{stride}"][0, cell].reshape(5, 2)
            landmarks = tuple((float((column + px) * stride), float((row + py) * stride)) for px, py in points)
            faces.append(Face((x - w / 2, y - h / 2, x + w / 2, y + h / 2), float(score[cell]), None, landmarks))
    return faces
