"""Image vectors for clustering and balancing: what the picture and its main person look like, without or with a net."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.models.onnx_session import OnnxSession
from curation.models.scorer import View, combined_key, crop
from curation.models.weights import file_sha256

Vector = NDArray[np.float32]

_THUMB_PX = 64
_MOBILENET_PX = 224
_MOBILENET_DIM = 1280
_BATCH = 8  # fixed: kernels are chosen by shape
_PROJECTION_SEED = 20240917


class DescriptorEmbedding:
    """Layout, gradient orientations and colours of the picture (128) and of its main person (128): 256 numbers."""

    name = "builtin-embedding"
    columns: tuple[str, ...] = ("embedding",)
    dim = 256
    gated = True
    uses_boxes = True

    def __init__(self, revision: str = "1") -> None:
        self.revision = revision
        self.key = f"{self.name}/{revision}"

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        return [{"embedding": self._one(view)} for view in views]

    def _one(self, view: View) -> Vector:
        whole = appearance(view.pixels)
        box = view.main_box
        person = appearance(crop(view.pixels, box)) if box is not None else np.zeros_like(whole)
        return unit(np.concatenate([whole, person]))


def appearance(pixels: NDArray[np.uint8]) -> Vector:
    """128 numbers of unit norm: 4x4 mean Lab (48), 2x4 cells of 6 gradient orientations (48), Lab histogram (32).

    Each part is centred and normalised by itself, so that no part rules the cosine.
    """
    import cv2

    thumb = cv2.resize(np.ascontiguousarray(pixels), (_THUMB_PX, _THUMB_PX), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(thumb, cv2.COLOR_RGB2LAB).astype(np.float32) - 128.0
    parts = [_layout(lab), _orientations(lab[..., 0]), _colours(lab)]
    return unit(np.concatenate([unit(part) for part in parts]))


def _layout(lab: Vector) -> Vector:
    cells = lab.reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))
    return np.asarray(cells.ravel(), dtype=np.float32)


def _orientations(grey: Vector) -> Vector:
    """Gradient energy by unsigned direction in cells of 32 x 16 pixels, less what a picture without structure has."""
    import cv2

    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    magnitude = np.sqrt(np.hypot(dx, dy))
    direction = np.minimum((np.arctan2(dy, dx) % np.pi) / np.pi * 6, 5.999).astype(np.int64)
    rows, columns = np.indices(grey.shape)
    cell = (rows // 32) * 4 + columns // 16
    histogram = np.bincount((cell * 6 + direction).ravel(), weights=magnitude.ravel(), minlength=48)
    total = histogram.sum()
    return np.asarray(histogram / total - 1 / 48 if total > 0 else histogram, dtype=np.float32)


def _colours(lab: Vector) -> Vector:
    """Square roots of the shares of 2 x 4 x 4 Lab cells (the Hellinger map), less their mean."""
    light = (lab[..., 0] >= 0).astype(np.int64)
    a, b = (np.digitize(lab[..., channel], (-12.0, 0.5, 12.0)) for channel in (1, 2))
    counts = np.bincount((light * 16 + a * 4 + b).ravel(), minlength=32)
    roots = np.sqrt(counts / counts.sum())
    return np.asarray(roots - roots.mean(), dtype=np.float32)


def unit(vector: Vector) -> Vector:
    """The vector scaled to length 1; the zero vector stays."""
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm > 0 else vector).astype(np.float32)


class MobileNetFeatures:
    """The nsfwjs MobileNetV2 (RGB / 255, 224 px, squashed): pooled features [N, 1280] and class probabilities [N, 5].

    Classes: drawing, hentai, neutral, porn, sexy. Run once for a picture however many scorers ask: results are kept in
    the view's memo.
    """

    classes = ("drawing", "hentai", "neutral", "porn", "sexy")

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        self.sha256 = file_sha256(path)
        self._session = OnnxSession(path, threads=threads)

    def of_views(self, views: Sequence[View]) -> tuple[Vector, Vector]:
        """Features [N, 1280] and probabilities [N, 5] of the whole pictures."""
        missing = [view for view in views if "mobilenet" not in view.memo]
        if missing:
            features, probabilities = self.run([view.pixels for view in missing])
            for view, feature, probability in zip(missing, features, probabilities, strict=True):
                view.memo["mobilenet"] = (feature, probability)
        found = [view.memo["mobilenet"] for view in views]
        return np.stack([feature for feature, _ in found]), np.stack([probability for _, probability in found])

    def run(self, pictures: Sequence[NDArray[np.uint8]]) -> tuple[Vector, Vector]:
        """Features [N, 1280] and probabilities [N, 5] of RGB pictures of any size."""
        import cv2

        size = (_MOBILENET_PX, _MOBILENET_PX)
        small = [cv2.resize(np.ascontiguousarray(p), size, interpolation=cv2.INTER_AREA) for p in pictures]
        batch = np.stack(small).astype(np.float32) / 255.0
        outputs = dict(zip(self._session.output_names, self._session.run_fixed(batch, _BATCH), strict=True))
        features = next(value for value in outputs.values() if value.shape[-1] == _MOBILENET_DIM)
        probabilities = next(value for value in outputs.values() if value.shape[-1] == len(self.classes))
        return features.astype(np.float32), probabilities.astype(np.float32)


class MobileNetEmbedding:
    """MobileNetV2 features of the picture and of its main person, projected to `dim` numbers by a fixed rotation."""

    name = "mobilenet-embedding"
    columns: tuple[str, ...] = ("embedding",)
    gated = True
    uses_boxes = True

    def __init__(self, features: MobileNetFeatures, *, dim: int = 256, revision: str = "1") -> None:
        self.features = features
        self.dim = dim
        self.revision = revision
        self.key = combined_key([features.sha256], f"embedding-{dim}-{revision}")
        self._projection: Vector | None = None

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        if self._projection is None:
            self._projection = orthogonal_projection(2 * _MOBILENET_DIM, self.dim, _PROJECTION_SEED)
        whole, _ = self.features.of_views(views)
        boxes = [view.main_box for view in views]
        with_person = [i for i, box in enumerate(boxes) if box is not None]
        person = np.zeros_like(whole)
        if with_person:
            crops = [crop(views[i].pixels, boxes[i]) for i in with_person]  # type: ignore[arg-type]
            person[with_person] = self.features.run(crops)[0]
        joint = np.concatenate([_centred(whole), _centred(person)], axis=1)
        return [{"embedding": unit(row @ self._projection)} for row in joint]


def _centred(x: Vector) -> Vector:
    """Rows less their own mean, at unit length: pooled ReLU features otherwise all point the same way."""
    x = x - x.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(np.divide(x, norms, out=np.zeros_like(x), where=norms > 0), dtype=np.float32)


def orthogonal_projection(rows: int, columns: int, seed: int) -> Vector:
    """A seeded random matrix [rows, columns] with orthonormal columns (QR of a Gaussian, signs fixed)."""
    gaussian = np.random.Generator(np.random.PCG64(seed)).standard_normal((rows, columns))
    q, r = np.linalg.qr(gaussian)
    return np.asarray(q * np.sign(np.diag(r)), dtype=np.float32)
