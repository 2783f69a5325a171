"""The blur before a picture is shrunk, at a cost that the picture bounds and not the shrinking."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray
WIDEST = 64.0  # sigma in pixels up to which the picture is blurred at its own size
COARSE = 8.0  # sigma that a wider blur has, in the pixels of the picture that it is made on


def blurred(values: Array, sigma_x: float, sigma_y: float) -> Array:
    """An array [H, W, ...] under a Gaussian of two sigmas in pixels, 0 for none; mirrored at its edges.

    A wider one than `WIDEST` is made on the array averaged to fewer pixels and then enlarged again: a kernel as long as
    the sigma would cost minutes where a sample shows a picture very small.
    """
    import cv2

    if max(sigma_x, sigma_y) <= WIDEST:
        return np.asarray(cv2.GaussianBlur(values, (0, 0), sigmaX=max(sigma_x, 1e-3), sigmaY=max(sigma_y, 1e-3)))
    height, width = values.shape[:2]
    columns, rows = _pixels(width, sigma_x), _pixels(height, sigma_y)
    few = cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA)
    left = [s * n / side if n > 1 else 0.0 for s, n, side in ((sigma_x, columns, width), (sigma_y, rows, height))]
    left = [max(s, 1e-3) for s in left]
    # Mirrored at the edge and not at the outermost centre, which is that of many pixels here.
    few = cv2.GaussianBlur(few, (0, 0), sigmaX=left[0], sigmaY=left[1], borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR))


def _pixels(side: int, sigma: float) -> int:
    """How many pixels of a side a blur is made on; at one pixel there is nothing left to blur."""
    return side if sigma <= WIDEST else max(1, math.ceil(side * COARSE / sigma))
