"""A depth-buffered triangle rasteriser in numpy: all triangles at once, no loop.

Every triangle lists the pixel centres of its bounding box; the nearest hit of a pixel wins. Meshes of small triangles,
as ours are, waste little. Pixel (column x, row y) has its centre at (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
NEAR_M = 0.05


@dataclass
class Hits:
    """The pixels that something covers."""

    pixel: Array  # [N] flat index, row * width + column
    face: Array  # [N] index of the face
    weights: Array  # [N, 3] perspective-correct barycentric weights
    depth: Array  # [N] metric depth of the surface


def project(points: Array, intrinsics: Array) -> tuple[Array, Array]:
    """Pixels [N, 2] and depths [N] of camera-space points [N, 3]."""
    z = points[:, 2]
    safe = np.where(z > NEAR_M, z, 1.0)
    x = intrinsics[0, 0] * points[:, 0] / safe + intrinsics[0, 2]
    y = intrinsics[1, 1] * points[:, 1] / safe + intrinsics[1, 2]
    return np.stack([x, y], -1), z


def rasterise(xy: Array, depth: Array, faces: Array, facing: Array, height: int, width: int) -> Hits:
    """The nearest surface of every covered pixel.

    xy: [V, 2] pixels; depth: [V] metres, positive in front; faces: [F, 3]; facing: [F] sign of the outward side, faces
    seen from behind are skipped; 0 draws both sides.
    """
    corners = np.ascontiguousarray(faces.T)  # [3, F]: sums and extremes over three rows are fast, over columns slow
    x, y, z = (values[corners] for values in (xy[:, 0], xy[:, 1], depth))
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    x0, x1 = np.ceil(x.min(0)).clip(0), np.floor(x.max(0)).clip(max=width - 1)
    y0, y1 = np.ceil(y.min(0)).clip(0), np.floor(y.max(0)).clip(max=height - 1)
    keep = (area * facing <= 0) & (np.abs(area) > 1e-9) & (x1 >= x0) & (y1 >= y0) & (z.min(0) > NEAR_M)
    chosen = np.flatnonzero(keep)
    if not len(chosen):
        empty = np.zeros(0, np.int64)
        return Hits(empty, empty, np.zeros((0, 3)), np.zeros(0))
    x, y, z, area = x[:, chosen], y[:, chosen], z[:, chosen], area[chosen]
    x0, y0 = x0[chosen].astype(np.int32), y0[chosen].astype(np.int32)
    wide = x1[chosen].astype(np.int32) - x0 + 1
    count = wide * (y1[chosen].astype(np.int32) - y0 + 1)
    index = np.repeat(np.arange(len(chosen), dtype=np.int32), count)
    local = np.arange(len(index), dtype=np.int32) - np.repeat((np.cumsum(count) - count).astype(np.int32), count)
    row = local // wide[index]
    px, py = x0[index] + local - row * wide[index], y0[index] + row
    # Barycentric weights are affine in the pixel: weight_k = u_k px + v_k py + c_k; the third follows from two.
    u1, v1 = (y[2] - y[0]) / area, -(x[2] - x[0]) / area
    u2, v2 = -(y[1] - y[0]) / area, (x[1] - x[0]) / area
    c1, c2 = -(u1 * x[0] + v1 * y[0]), -(u2 * x[0] + v2 * y[0])
    w1 = u1[index] * px + v1[index] * py + c1[index]
    w2 = u2[index] * px + v2[index] * py + c2[index]
    inside = np.flatnonzero((w1 >= -1e-7) & (w2 >= -1e-7) & (w1 + w2 <= 1 + 1e-7))
    w1, w2, index = w1[inside], w2[inside], index[inside]
    pixel = py[inside].astype(np.int64) * width + px[inside]
    near = 1.0 / z
    b0, b1, b2 = (1 - w1 - w2) * near[0][index], w1 * near[1][index], w2 * near[2][index]
    inverse = b0 + b1 + b2
    buffer = np.zeros(height * width)
    np.maximum.at(buffer, pixel, inverse)
    won = np.flatnonzero(inverse == buffer[pixel])
    # Two faces can share an edge that runs through a pixel centre: the first one keeps it.
    pixel, first = np.unique(pixel[won], return_index=True)
    won = won[first]
    metric = 1.0 / inverse[won]
    weights = np.stack([b0[won], b1[won], b2[won]], -1) * metric[:, None]
    return Hits(pixel, chosen[index[won]], weights, metric)
