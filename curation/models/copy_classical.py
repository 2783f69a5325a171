"""A copy-detection descriptor without a network: what the picture shows where, and which patches it is made of.

Two parts, each of unit length, weighted into one vector of 512 numbers:

- *layout*, 100 numbers: the low frequencies of the border-trimmed, brightness- and contrast-normalised grey picture.
  A mirror image negates the odd horizontal frequencies, so their magnitudes are kept. Survives everything that
  leaves the geometry alone.
- *patches*, 412 numbers: the sum over all keypoints of random Fourier features (Rahimi and Recht 2007) of RootSIFT
  (Arandjelovic and Zisserman 2012), each patch with its mirrored twin. The inner product of two such sums
  approximates a match kernel: the number of patch pairs that look alike. Survives crops, borders and flips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curation.dedup.keypoints import MIRROR, grey, keypoints, trim_borders

_THUMBNAIL_PX = 320
_GRID = 32
_FREQUENCIES = 10
_PATCH_DIM = 412
_BANDWIDTH = 6.0  # of the Gaussian kernel on RootSIFT: patches at distance 0.17 count as 0.6 of a match
_PATCH_WEIGHT = 0.6  # of the squared length; the rest is layout
_CONTRAST_FLOOR = 4.0  # grey levels: below it, noise is not blown up to contrast

_POSITIONS = np.arange(_GRID)
_COSINES = np.cos(np.pi * (2 * _POSITIONS[None, :] + 1) * _POSITIONS[:_FREQUENCIES, None] / (2 * _GRID))
_PROJECTION = np.random.default_rng(2).standard_normal((128, _PATCH_DIM // 2)).astype(np.float32) * _BANDWIDTH


class ClassicalCopyDescriptor:
    """The `builtin` copy descriptor; about 10 ms a picture on one core."""

    name = "builtin"
    revision = "layout10-sift412-r1"
    dim = _FREQUENCIES**2 + _PATCH_DIM

    def embed(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """float32 [N, 512] of unit length from N pictures, uint8 [H, W, 3] RGB of any size."""
        if not len(pixels):
            return np.zeros((0, self.dim), np.float32)
        return np.stack([_describe(picture) for picture in pixels])


def _describe(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    picture = trim_borders(grey(pixels, _THUMBNAIL_PX))
    layout = np.sqrt(1 - _PATCH_WEIGHT) * _unit(_layout(picture))
    patches = np.sqrt(_PATCH_WEIGHT) * _unit(_patches(picture))
    vector = np.concatenate([layout, patches])
    if not vector.any():
        vector[0] = 1.0  # an empty picture: the mean brightness, left out everywhere else, is all there is
    return _unit(vector).astype(np.float32)


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(x))
    return x / length if length > 0 else x


def _layout(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Low-frequency DCT coefficients [100], magnitudes in the columns that a mirror image negates."""
    import cv2

    small = cv2.resize(picture, (_GRID, _GRID), interpolation=cv2.INTER_AREA).astype(np.float64)
    small = (small - small.mean()) / (small.std() + _CONTRAST_FLOOR)
    coefficients = _COSINES @ small @ _COSINES.T
    coefficients[:, 1::2] = np.abs(coefficients[:, 1::2])
    coefficients[0, 0] = 0.0
    coefficients[np.abs(coefficients) < 1e-6] = 0.0  # what rounding leaves of a uniform picture
    return coefficients.ravel()


def _patches(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Sum of random Fourier features [412] over the patches and their mirrored twins."""
    descriptors = keypoints(picture).descriptors
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1.0))
    total = np.zeros(_PATCH_DIM)
    for side in (root, root[:, MIRROR]):
        phase = side @ _PROJECTION
        total += np.concatenate([np.cos(phase).sum(axis=0), np.sin(phase).sum(axis=0)])
    return total
