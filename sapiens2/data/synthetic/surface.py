"""Smooth surfaces sampled on grids: what bodies, heads, clothes and hair are made of.

A sheet is a stack of T grids of R rows by C columns. A *closed* sheet repeats its first column as the last, so that
surface coordinates run on across the seam. Rows by columns give the outward normal: d(row) x d(column), times `sign`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

Array = np.ndarray


@dataclass
class Sheet:
    """T grids of one kind of surface."""

    points: Array  # [T, R, C, 3] metres
    coords: Array  # [T, R, C, 2] surface coordinates, whose meaning depends on the part
    part: int
    sign: Array  # [T] +1 or -1: orientation
    side: Array  # [T] 0 the person's left or the middle, 1 right
    closed: bool = True
    two_sided: bool = False


@dataclass
class Mesh:
    """Triangles ready to be drawn."""

    points: Array  # [V, 3]
    normals: Array  # [V, 3]
    coords: Array  # [V, 2]
    faces: Array  # [F, 3]
    facing: Array  # [F] sign of the outward side, 0 for two-sided
    part: Array  # [F]
    side: Array  # [F]


def smoothstep(lo: float | Array, hi: float | Array, x: Array) -> Array:
    """0 below lo, 1 above hi, smooth between."""
    t = np.clip((x - lo) / (hi - lo), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def rotation(axis: int, angle: float | Array) -> Array:
    """Rotation matrices [..., 3, 3] about the x, y or z axis (0, 1, 2); angle in radians."""
    angle = np.asarray(angle, dtype=np.float64)
    out = np.zeros((*angle.shape, 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out[..., axis, axis] = 1.0
    out[..., i, i] = out[..., j, j] = np.cos(angle)
    out[..., j, i] = np.sin(angle)
    out[..., i, j] = -out[..., j, i]
    return out


def profile(x: Array, knots: tuple[float, ...] | Array, values: tuple[float, ...] | Array) -> Array:
    """A smooth curve through (knots, values): cubic Hermite with averaged slopes; constant outside."""
    k, v = np.asarray(knots, float), np.asarray(values, float)
    secant = np.diff(v) / np.diff(k)
    slope = np.concatenate([[0.0], 0.5 * (secant[1:] + secant[:-1]), [0.0]])
    x = np.clip(x, k[0], k[-1])
    i = np.clip(np.searchsorted(k, x, side="right") - 1, 0, len(k) - 2)
    h = k[i + 1] - k[i]
    t = (x - k[i]) / h
    a, b = t * t * (3 - 2 * t), t * (1 - t)
    return v[i] * (1 - a) + v[i + 1] * a + h * b * ((1 - t) * slope[i] - t * slope[i + 1])


def circle(columns: int) -> Array:
    """Angles of a closed ring, the first repeated: [columns + 1]; 0 is the front, a quarter turn the person's left."""
    return np.linspace(-np.pi, np.pi, columns + 1)


def hinged(s: Array, bend: Array) -> tuple[Array, Array]:
    """A curve that leaves the origin downwards (-y) and turns about the x axis.

    s: [..., R] arc length from 0; bend: [..., R] angle in radians. Returns centres [..., R, 3] and the third axis of
    the moving frame [..., R, 3] (its first axis stays x). The trapezoid rule keeps lengths to within the ring spacing.
    """
    dy, dz = -np.cos(bend), -np.sin(bend)
    step = np.diff(s)
    zero = np.zeros((*bend.shape[:-1], 1))
    y = np.concatenate([zero, np.cumsum(0.5 * (dy[..., 1:] + dy[..., :-1]) * step, -1)], -1)
    z = np.concatenate([zero, np.cumsum(0.5 * (dz[..., 1:] + dz[..., :-1]) * step, -1)], -1)
    flat = np.zeros_like(y)
    return np.stack([flat, y, z], -1), np.stack([flat, dz, -dy], -1)


def rings(centre: Array, e1: Array, e2: Array, a: Array, b: Array, angle: Array) -> Array:
    """Elliptic rings [..., R, C, 3]: centre + e1 a sin(angle) + e2 b cos(angle); a, b: [..., R, C] or [..., R, 1]."""
    sin, cos = (a * np.sin(angle))[..., None], (b * np.cos(angle))[..., None]
    return centre[..., None, :] + e1[..., None, :] * sin + e2[..., None, :] * cos


def sample(grid: Array, row: Array, column: Array) -> Array:
    """Bilinear samples of a grid [R, C, K] at fractional (row, column)."""
    r = np.clip(row, 0, grid.shape[0] - 1.000001)
    c = np.clip(column, 0, grid.shape[1] - 1.000001)
    i, j = r.astype(int), c.astype(int)
    f, g = (r - i)[..., None], (c - j)[..., None]
    top = grid[i, j] * (1 - g) + grid[i, j + 1] * g
    return top * (1 - f) + (grid[i + 1, j] * (1 - g) + grid[i + 1, j + 1] * g) * f


def normals_of(sheet: Sheet) -> Array:
    """Unit outward normals [T, R, C, 3] by central differences over the grid."""
    p = sheet.points
    down = np.empty_like(p)
    down[:, 1:-1], down[:, 0], down[:, -1] = p[:, 2:] - p[:, :-2], p[:, 1] - p[:, 0], p[:, -1] - p[:, -2]
    along = np.empty_like(p)
    along[:, :, 1:-1] = p[:, :, 2:] - p[:, :, :-2]
    if sheet.closed:
        along[:, :, 0] = along[:, :, -1] = p[:, :, 1] - p[:, :, -2]
    else:
        along[:, :, 0], along[:, :, -1] = p[:, :, 1] - p[:, :, 0], p[:, :, -1] - p[:, :, -2]
    x = down[..., 1] * along[..., 2] - down[..., 2] * along[..., 1]
    y = down[..., 2] * along[..., 0] - down[..., 0] * along[..., 2]
    z = down[..., 0] * along[..., 1] - down[..., 1] * along[..., 0]
    n = np.stack([x, y, z], -1)
    n *= (sheet.sign[:, None, None] / np.sqrt(np.maximum(x * x + y * y + z * z, 1e-24)))[..., None]
    return n


@cache
def _faces(stack: int, rows: int, columns: int) -> Array:
    """Two triangles a cell: [stack * 2 (rows - 1)(columns - 1), 3] indices into the flattened grids."""
    index = np.arange(stack * rows * columns, dtype=np.int32).reshape(stack, rows, columns)
    a, b, c, d = index[:, :-1, :-1], index[:, 1:, :-1], index[:, 1:, 1:], index[:, :-1, 1:]
    return np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 3).reshape(-1, 3)


def assemble(sheets: list[Sheet]) -> Mesh:
    """One mesh from many sheets."""
    faces, facing, part, side, start = [], [], [], [], 0
    for sheet in sheets:
        stack, rows, columns = sheet.points.shape[:3]
        faces.append(_faces(stack, rows, columns) + np.int32(start))
        each = 2 * (rows - 1) * (columns - 1)
        facing.append(np.repeat(np.zeros(stack) if sheet.two_sided else sheet.sign, each))
        part.append(np.full(stack * each, sheet.part, np.uint8))
        side.append(np.repeat(sheet.side.astype(np.uint8), each))
        start += stack * rows * columns
    return Mesh(
        points=np.concatenate([s.points.reshape(-1, 3) for s in sheets]),
        normals=np.concatenate([normals_of(s).reshape(-1, 3) for s in sheets]),
        coords=np.concatenate([s.coords.reshape(-1, 2) for s in sheets]),
        faces=np.concatenate(faces),
        facing=np.concatenate(facing).astype(np.float32),
        part=np.concatenate(part),
        side=np.concatenate(side),
    )
