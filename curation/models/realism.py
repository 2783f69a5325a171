"""Realism: 1 for a photograph, 0 for a drawing, rendering, graphic or screenshot.

A logistic model over image statistics, with or without the pooled features of a small network, moved by what the file
says of itself. The coefficients are fitted by curation.audit.fit_realism; 0.5 is its operating point.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.models.image_embedding import MobileNetFeatures
from curation.models.realism_features import FEATURES, realism_features
from curation.models.scorer import Pixels, View, combined_key

Vector = NDArray[np.float32]

# What a file's own statement is worth: a declared rule, not a fitted one.
_GENERATED_CEILING = 0.02
_DRAWN_CEILING = 0.05
_CAMERA_LOGIT = 2.0  # a named camera with an exposure: edited photographs keep it, so it does not decide alone

_GENERATORS = (
    "stable diffusion",
    "midjourney",
    "dall-e",
    "dall·e",
    "firefly",
    "comfyui",
    "novelai",
    "invokeai",
    "automatic1111",
    "imagen",
    "flux",
)
_GENERATED_SOURCES = ("trainedalgorithmicmedia", "compositewithtrainedalgorithmicmedia", "compositesynthetic")
_DRAWN_SOURCES = (
    "algorithmicmedia",
    "digitalart",
    "digitalcreation",
    "softwareimage",
    "screencapture",
    "virtualrecording",
)


@dataclass(frozen=True)
class RealismModel:
    """logit = intercept + coefficients . (inputs - mean) / scale, with where the numbers come from."""

    inputs: str  # "statistics", or "statistics+mobilenet"
    mean: Vector
    scale: Vector
    coefficients: Vector
    intercept: float
    digest: str
    provenance: Mapping[str, Any]

    def logit(self, x: Vector) -> Vector:
        """Logits [N] of inputs [N, D]."""
        return np.asarray((x - self.mean) / self.scale @ self.coefficients + self.intercept, dtype=np.float32)


@cache
def load_model(name: str) -> RealismModel:
    """The fitted model in realism_<name>.json beside this file: `statistics` or `mobilenet`.

    Raises ValueError when the file was fitted for other features than realism_features computes.
    """
    path = Path(__file__).with_name(f"realism_{name}.json")
    text = path.read_text()
    stored = json.loads(text)
    if tuple(stored["features"]) != FEATURES:
        raise ValueError(f"{path.name} was fitted on other features; run python -m curation.audit.fit_realism again")
    mean, scale, coefficients = (np.asarray(stored[key], dtype=np.float32) for key in ("mean", "scale", "coefficients"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    intercept = float(stored["intercept"])
    return RealismModel(stored["inputs"], mean, scale, coefficients, intercept, digest, stored["provenance"])


class RealismScorer:
    """Realism by statistics alone (cheap, every row), or with MobileNetV2 features (gated)."""

    columns: tuple[str, ...] = ("realism",)
    uses_boxes = False

    def __init__(self, features: MobileNetFeatures | None = None, revision: str = "1") -> None:
        self.features = features
        self.gated = features is not None
        self.model = load_model("statistics" if features is None else "mobilenet")
        self.name = "builtin-realism" if features is None else "mobilenet-realism"
        how = f"realism-{revision}-{self.model.digest[:8]}"
        self.key = f"{self.name}/{how}" if features is None else combined_key([features.sha256], how)

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        if not views:
            return []
        logits = self.model.logit(realism_inputs([view.pixels for view in views], self._pooled(views)))
        return [{"realism": with_metadata(float(v), view.metadata)} for v, view in zip(logits, views, strict=True)]

    def _pooled(self, views: Sequence[View]) -> Vector | None:
        return None if self.features is None else self.features.of_views(views)[0]


def realism_inputs(pictures: Sequence[Pixels], pooled: Vector | None) -> Vector:
    """The model's inputs [N, D]: FEATURES, then the pooled features at unit length where there are any."""
    statistics = np.stack([realism_features(pixels) for pixels in pictures])
    if pooled is None:
        return statistics
    norms = np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-6)
    return np.concatenate([statistics, pooled / norms], axis=1).astype(np.float32)


def with_metadata(logit: float, metadata: Mapping[str, Any]) -> float:
    """The probability of a logit after the file's own statement was heard, 0..1."""
    said = statement(metadata)
    if said == "camera":
        logit += _CAMERA_LOGIT
    probability = 1.0 / (1.0 + float(np.exp(-np.clip(logit, -30.0, 30.0))))
    ceiling = {"generated": _GENERATED_CEILING, "drawn": _DRAWN_CEILING}.get(said or "", 1.0)
    return min(probability, ceiling)


def statement(metadata: Mapping[str, Any]) -> str | None:
    """What the metadata (curation.images.metadata) says of the origin: `generated`, `drawn`, `camera`, or None.

    A generator's mark outweighs a camera's: pictures made from photographs keep the camera's fields.
    """
    source = str(metadata.get("digital_source_type", "")).lower()
    software = str(metadata.get("software", "")).lower()
    if metadata.get("generator") or source in _GENERATED_SOURCES or any(name in software for name in _GENERATORS):
        return "generated"
    if source in _DRAWN_SOURCES:
        return "drawn"
    named = metadata.get("make") or metadata.get("model")
    return "camera" if named and metadata.get("exposure_recorded") else None


class NsfwScorer:
    """The explicit classes of nsfwjs (porn + hentai). Its class `sexy` fires on clothed people and is left out."""

    name = "mobilenet-nsfw"
    columns: tuple[str, ...] = ("nsfw",)
    gated = True
    uses_boxes = False

    def __init__(self, features: MobileNetFeatures, revision: str = "1") -> None:
        self.features = features
        self.key = combined_key([features.sha256], f"nsfw-{revision}")

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        explicit = [self.features.classes.index(name) for name in ("porn", "hentai")]
        _, probabilities = self.features.of_views(views)
        return [{"nsfw": float(row[explicit].sum())} for row in probabilities]
