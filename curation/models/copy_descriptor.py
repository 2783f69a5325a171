"""Vectors that are close when one picture was made from the other: what deep-feature deduplication compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curation.models.copy_classical import ClassicalCopyDescriptor
from curation.models.copy_sscd import SscdCopyDescriptor
from curation.models.onnx_session import OnnxSession

# The weight file each descriptor needs, by its name in curation.models.catalogue.
WEIGHTS: dict[str, str | None] = {"builtin": None, "mobilenet": "nsfw_mobilenet_v2", "sscd": "sscd_disc_mixup"}
# dim of each descriptor, known before a file is opened.
DIMS: dict[str, int] = {"builtin": ClassicalCopyDescriptor.dim, "mobilenet": 1280, "sscd": 512}


class CopyDescriptor(Protocol):
    """A copy descriptor. `revision` names the preprocessing; a change of it makes older vectors incomparable."""

    name: str
    revision: str
    dim: int

    def embed(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """float32 [N, dim] of unit length from N pictures, uint8 [H, W, 3] RGB of any size."""


def build_copy_descriptor(name: str, weights: dict[str, str]) -> CopyDescriptor:
    """The descriptor called `name`: builtin, mobilenet or sscd; `weights` maps model names to files.

    Raises ValueError for an unknown name, or when `weights` lacks the file that the descriptor needs.
    """
    if name not in WEIGHTS:
        raise ValueError(f"there is no copy descriptor called {name!r}; choose one of {', '.join(WEIGHTS)}")
    needed = WEIGHTS[name]
    if needed is None:
        return ClassicalCopyDescriptor()
    if needed not in weights:
        raise ValueError(f"the copy descriptor {name} needs the weights {needed}; given: {sorted(weights) or 'none'}")
    return SscdCopyDescriptor(weights[needed]) if name == "sscd" else MobilenetCopyDescriptor(weights[needed])


class MobilenetCopyDescriptor:
    """The `mobilenet` copy descriptor: 1280 pooled features of a MobileNetV2 that was trained for something else.

    All its vectors share a large common part, so they are to be centred on the collection before they are compared
    (curation.dedup.feature_pairs does it on request).
    """

    name = "mobilenet"
    revision = "square224-r1"
    dim = 1280
    _BATCH = 4

    def __init__(self, path: str) -> None:
        self.session = OnnxSession(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"session": self.session}

    def embed(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """float32 [N, 1280] of unit length; ValueError when the network has no output `embedding` [n, 1280]."""
        if not len(pixels):
            return np.zeros((0, self.dim), np.float32)
        if "embedding" not in self.session.output_names:
            raise ValueError(f"{self.session.path} has no output `embedding`; it has {self.session.output_names}")
        index = self.session.output_names.index("embedding")
        x = np.stack([_square(picture) for picture in pixels])
        vectors: NDArray[Any] = self.session.run_fixed(x, self._BATCH)[index].reshape(len(pixels), -1)
        if vectors.shape[1] != self.dim:
            raise ValueError(f"{self.session.path} gives {vectors.shape[1]} numbers a picture, expected {self.dim}")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / np.maximum(lengths, 1e-12)).astype("float32")
        return unit


def _square(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 3] uint8 to float32 [224, 224, 3] in 0..1."""
    import cv2

    method = cv2.INTER_AREA if min(picture.shape[:2]) >= 224 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (224, 224), interpolation=method), dtype=np.float32) / np.float32(255)
