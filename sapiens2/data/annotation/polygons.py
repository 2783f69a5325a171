"""Polygons to pixels: a pixel is inside when its centre is, by the even-odd rule."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def fill(points: Array, size: tuple[int, int]) -> Array:
    """bool [H, W] inside a closed polygon [N, 2] of x, y from the picture's outer edge.

    Every crossing of an edge with a row's middle line turns over all pixels to its right. ValueError for fewer than
    three corners or coordinates that are not finite.
    """
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError("has a polygon of fewer than three corners")
    if not np.isfinite(points).all():
        raise ValueError("has a polygon with corners that are no numbers")
    height, width = size
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    middle = np.arange(height)[:, None] + 0.5
    row, edge = np.nonzero((y0 <= middle) != (y1 <= middle))
    at = x0[edge] + (middle[row, 0] - y0[edge]) / (y1[edge] - y0[edge]) * (x1[edge] - x0[edge])
    column = np.ceil(at - 0.5).clip(0, width).astype(int)
    turns = np.zeros((height, width + 1), np.int64)
    np.add.at(turns, (row, column), 1)
    return (turns.cumsum(1) % 2 == 1)[:, :width]
