"""Aesthetic scores on CLIP image vectors: the LAION heads, linear or a stack of linear layers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.models.weights import file_sha256

Vector = NDArray[np.float32]


class AestheticHead:
    """A LAION head from its state file: a single linear layer, or `layers.N` of the improved predictor.

    The improved predictor has dropout but no activation between its layers at inference, so the stack is a product of
    matrices; it is kept as a stack, in float32, to give the published numbers. Input: unit CLIP vectors [N, D].
    Raises ValueError for a file of another layout.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.sha256 = file_sha256(path)
        self._layers = _layers(_state(path), self.path)

    @property
    def dim(self) -> int:
        """Length of the vectors that it scores."""
        return int(self._layers[0][0].shape[1])

    def score(self, vectors: Vector) -> Vector:
        """Scores [N] of unit vectors [N, dim]; LAION's scale is about 1..10."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(f"{self.path} scores vectors of length {self.dim}, was given shape {vectors.shape}")
        x = vectors.astype(np.float32)
        for weight, bias in self._layers:
            x = x @ weight.T + bias
        return np.asarray(x[:, 0], dtype=np.float32)


def _state(path: str | Path) -> dict[str, Any]:
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"{path} is not a plain state file of tensors: {error}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, expected a dictionary of tensors")
    return state


def _layers(state: dict[str, Any], where: str) -> list[tuple[Vector, Vector]]:
    """(weight [out, in], bias [out]) of each layer, first to last."""
    if set(state) == {"weight", "bias"}:
        prefixes = [""]
    else:
        numbers = sorted({int(k.split(".")[1]) for k in state if k.startswith("layers.") and k.split(".")[1].isdigit()})
        prefixes = [f"layers.{number}." for number in numbers]
    try:
        layers = [(state[f"{p}weight"].float().numpy(), state[f"{p}bias"].float().numpy()) for p in prefixes]
    except KeyError as error:
        raise ValueError(f"{where} lacks the tensor {error}; expected weight and bias, or layers.N of both") from error
    chained = all(a[0].shape[0] == b[0].shape[1] for a, b in itertools.pairwise(layers))
    if not layers or not chained or layers[-1][0].shape[0] != 1:
        raise ValueError(f"{where} is no aesthetic head: shapes {[w.shape for w, _ in layers]}, expected a chain to 1")
    return layers
