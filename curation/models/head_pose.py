"""Head pose as yaw, pitch and roll: the FSA-Net pair, 6DRepNet-class networks, and the angles of a rotation matrix.

The convention is that of curation.tables: positive yaw looks to the image's right, positive pitch up, positive roll
turns the head clockwise as seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.models.onnx_session import OnnxSession
from curation.models.scorer import Box, Pixels, combined_key
from curation.models.weights import file_sha256

Matrix = NDArray[np.float64]  # [3, 3]

_FSANET_PX = 64
_FSANET_MARGIN = 0.6  # of the face box's sides, added on each side
_REPNET_PX = 224
_REPNET_MARGIN = 0.2
_IMAGENET_MEAN = np.array((0.485, 0.456, 0.406), dtype=np.float32)
_IMAGENET_STD = np.array((0.229, 0.224, 0.225), dtype=np.float32)


class FsaNetHeadPose:
    """The mean of the two FSA-Net variants (ONNX, 64 px BGR), trained on 300W-LP: good to about 60 degrees of yaw.

    Yang et al. (2019), FSA-Net: learning fine-grained structure aggregation for head pose estimation.
    """

    def __init__(self, paths: Sequence[str | Path], *, revision: str = "1", threads: int = 1) -> None:
        if not paths:
            raise ValueError("FSA-Net head pose needs at least one weight file")
        self._sessions = [OnnxSession(path, threads=threads) for path in paths]
        self.key = combined_key([file_sha256(path) for path in paths], f"fsanet-{revision}")

    def estimate(self, pixels: Pixels, box: Box) -> tuple[float, float, float]:
        x = fsanet_input(pixels, box)
        yaw, pitch, roll = np.mean([session.run(x)[0][0] for session in self._sessions], axis=0)
        return -float(yaw), float(pitch), float(roll)  # the network's yaw is positive to the image's left


def fsanet_input(pixels: Pixels, box: Box) -> NDArray[np.float32]:
    """The network's input [1, 3, 64, 64]: the face with its margin, stretched to 0..255, BGR, (x - 127.5) / 128."""
    import cv2

    patch = cv2.resize(margin_crop(pixels, box, _FSANET_MARGIN), (_FSANET_PX, _FSANET_PX), interpolation=cv2.INTER_AREA)
    values = patch[..., ::-1].astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if high > low:
        values = (values - low) * (255.0 / (high - low))
    return np.ascontiguousarray(((values - 127.5) / 128.0).transpose(2, 0, 1)[None], dtype=np.float32)


def margin_crop(pixels: Pixels, box: Box, margin: float) -> Pixels:
    """The box grown on each side by `margin` of its width or height, cut at the picture's edge. Shape [h, w, 3]."""
    height, width = pixels.shape[:2]
    dx, dy = (box[2] - box[0]) * margin, (box[3] - box[1]) * margin
    x0, y0 = min(max(int(box[0] - dx), 0), width - 1), min(max(int(box[1] - dy), 0), height - 1)
    x1, y1 = min(max(int(box[2] + dx), x0 + 1), width), min(max(int(box[3] + dy), y0 + 1), height)
    return pixels[y0:y1, x0:x1]


class RotationHeadPose:
    """A 6DRepNet-class network: a face of 224 px (RGB, ImageNet statistics) to a rotation, as [1, 3, 3] or [1, 6].

    path: TorchScript (.pt, .pth, .torchscript) or ONNX. Six numbers are the first two columns of the matrix before
    they are made orthonormal (Zhou et al. 2019, On the continuity of rotation representations; Hempel et al. 2022).
    """

    def __init__(self, path: str | Path, *, revision: str = "1", threads: int = 1) -> None:
        self.path = str(path)
        self.threads = threads
        self.key = combined_key([file_sha256(path)], f"rotation-{revision}")
        self._model: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def estimate(self, pixels: Pixels, box: Box) -> tuple[float, float, float]:
        output = self._run(rotation_input(pixels, box))
        if output.size not in (6, 9):
            raise ValueError(f"{self.path} gives {output.size} numbers a face; a rotation has 9, its 6D form 6")
        matrix = output.reshape(3, 3) if output.size == 9 else matrix_of_six(output.ravel())
        return angles_of_matrix(matrix)

    def _run(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        if self._model is None:
            self._model = self._load()
        if isinstance(self._model, OnnxSession):
            return np.asarray(self._model.run(x)[0], dtype=np.float64)
        import torch

        with torch.inference_mode():
            return np.asarray(self._model(torch.from_numpy(x)).double().numpy())

    def _load(self) -> Any:
        if self.path.endswith(".onnx"):
            return OnnxSession(self.path, threads=self.threads)
        import torch

        try:
            return torch.jit.load(self.path, map_location="cpu").eval()
        except RuntimeError as error:
            raise ValueError(f"{self.path} is not a TorchScript file: {error}") from error


def rotation_input(pixels: Pixels, box: Box) -> NDArray[np.float32]:
    """[1, 3, 224, 224]: the face grown by a fifth on each side, RGB, ImageNet mean and deviation."""
    import cv2

    size = (_REPNET_PX, _REPNET_PX)
    patch = cv2.resize(margin_crop(pixels, box, _REPNET_MARGIN), size, interpolation=cv2.INTER_LINEAR)
    x = (patch.astype(np.float32) / 255.0 - _IMAGENET_MEAN) / _IMAGENET_STD
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None], dtype=np.float32)


def matrix_of_six(six: NDArray[Any]) -> Matrix:
    """The rotation whose first two columns are the Gram-Schmidt of the first three and the last three numbers."""
    first, second = np.asarray(six[:3], dtype=np.float64), np.asarray(six[3:], dtype=np.float64)
    x = first / max(float(np.linalg.norm(first)), 1e-12)
    z = np.cross(x, second)
    z /= max(float(np.linalg.norm(z)), 1e-12)
    return np.stack([x, np.cross(z, x), z], axis=1)


def angles_of_matrix(matrix: Matrix) -> tuple[float, float, float]:
    """Yaw, pitch, roll in degrees, in the convention of curation.tables, of R = Rz(roll) Ry(yaw) Rx(pitch).

    6DRepNet's frame has x to the right of the picture, y down and its yaw positive to the image's left, hence the
    sign. Near a yaw of 90 degrees (cos < 1e-6) roll and pitch turn about one axis: roll is then 0 by choice.
    """
    r = np.asarray(matrix, dtype=np.float64)
    cosine = math.hypot(r[0, 0], r[1, 0])
    yaw = math.atan2(-r[2, 0], cosine)
    if cosine < 1e-6:
        return -math.degrees(yaw), math.degrees(math.atan2(-r[1, 2], r[1, 1])), 0.0
    pitch, roll = math.atan2(r[2, 1], r[2, 2]), math.atan2(r[1, 0], r[0, 0])
    return -math.degrees(yaw), math.degrees(pitch), math.degrees(roll)
