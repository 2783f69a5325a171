"""SSCD (Pizzi et al. 2022), the network for copy detection: a TorchScript file of the user's, 512 numbers a picture.

Input as its authors publish it: resized so that the short side has 288 px, ImageNet mean and deviation, RGB. The
pictures of a batch differ in shape, so each runs by itself; it is also why a result never depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_SHORT_SIDE_PX = 288
_LONG_SIDE_PX = 1152  # a banner of any length costs no more than four squares
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


class SscdCopyDescriptor:
    """The `sscd` copy descriptor, from a TorchScript file.

    Raises FileNotFoundError when there is no such file, ValueError when it is not TorchScript or answers in another
    shape than [1, dim].
    """

    name = "sscd"
    revision = "short288-r1"

    def __init__(self, path: str | Path, *, device: str = "cpu") -> None:
        self.path = str(path)
        self.device = device
        self._network: torch.jit.ScriptModule | None = None
        if not Path(path).is_file():
            raise FileNotFoundError(f"the SSCD TorchScript file {path} does not exist; give its path or choose builtin")
        probe = np.zeros((_SHORT_SIDE_PX, _SHORT_SIDE_PX, 3), np.uint8)
        self.dim = int(self._run(probe).shape[0])

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "device": self.device, "dim": self.dim, "_network": None}

    def embed(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """float32 [N, dim] of unit length from N pictures, uint8 [H, W, 3] RGB of any size."""
        if not len(pixels):
            return np.zeros((0, self.dim), np.float32)
        vectors = np.stack([self._run(picture) for picture in pixels])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(lengths > 0):
            raise ValueError(f"{self.path} gave a zero vector; it is not a copy-detection network")
        return (vectors / lengths).astype(np.float32)

    def _run(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        x = torch.from_numpy(_prepare(picture))[None].to(self.device)
        with torch.inference_mode():
            answer = self._loaded()(x)
        if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or answer.shape[0] != 1:
            raise ValueError(f"{self.path} must answer one picture with a tensor [1, dim], got {_shape(answer)}")
        return np.asarray(answer[0].float().cpu().numpy(), dtype=np.float32)

    def _loaded(self) -> torch.jit.ScriptModule:
        import torch

        if self._network is None:
            try:
                self._network = torch.jit.load(self.path, map_location=self.device).eval()
            except RuntimeError as error:
                raise ValueError(f"{self.path} is not a TorchScript file: {str(error).splitlines()[0]}") from error
        return self._network


def _shape(answer: object) -> str:
    return str(list(getattr(answer, "shape", []))) if hasattr(answer, "shape") else type(answer).__name__


def _prepare(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 3] uint8 to normalised float32 [3, h, w] whose short side is 288 px."""
    import cv2

    height, width = picture.shape[:2]
    scale = _SHORT_SIDE_PX / min(height, width)
    size = (min(_LONG_SIDE_PX, round(width * scale)), min(_LONG_SIDE_PX, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(picture, size, interpolation=method), dtype=np.float32) / 255
    return np.ascontiguousarray(((small - _MEAN) / _DEVIATION).transpose(2, 0, 1))
