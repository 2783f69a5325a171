"""What points tell beyond themselves: surface normals, and the scene from another side."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
EDGE = 0.04
"""Depth ratio between neighbours from which they belong to different surfaces."""
_FILL_PASSES = 2


def surface_normals(points: Array, valid: Array) -> tuple[Array, Array]:
    """Unit normals [H, W, 3] of points [H, W, 3] that look back at the camera, and where they hold: bool [H, W].

    The cross product of central differences; pixels beside an invalid one or a jump in depth have none, so that no
    normal spans two surfaces.
    """
    normals, holds = np.zeros(points.shape, np.float32), np.zeros(valid.shape, bool)
    if min(valid.shape) < 3:
        return normals, holds
    inner = (slice(1, -1), slice(1, -1))
    left, right, up, down = (points[1:-1, :-2], points[1:-1, 2:], points[:-2, 1:-1], points[2:, 1:-1])
    cross = np.cross(down - up, right - left)  # with y down this order points to the camera
    length = np.linalg.norm(cross, axis=-1)
    smooth = valid[inner] & (length > 0)
    for window in (np.s_[1:-1, :-2], np.s_[1:-1, 2:], np.s_[:-2, 1:-1], np.s_[2:, 1:-1]):
        jump = np.abs(points[window][..., 2] - points[inner][..., 2]) > EDGE * np.abs(points[inner][..., 2])
        smooth &= valid[window] & ~jump
    normals[inner][smooth] = cross[smooth] / length[smooth][:, None]
    holds[inner] = smooth
    return normals, holds


def turned_view(points: Array, colours: Array, valid: Array, yaw_deg: float, focal_px: float) -> Array:
    """The coloured points as a camera sees them that has walked `yaw_deg` around their middle; uint8 [H, W, 3].

    points: [H, W, 3] metres; colours: uint8 [H, W, 3]; focal_px of the picture's camera. Each point is a splat as large
    as its pixel was, the nearest wins; what no point covers is dark grey.
    """
    height, width = valid.shape
    canvas = np.full((height, width, 3), 24, np.uint8)
    cloud, paint = points[valid].astype(np.float64), colours[valid]
    near = cloud[:, 2] > 1e-3 if len(cloud) else np.zeros(0, bool)
    cloud, paint = cloud[near], paint[near]
    if not len(cloud):
        return canvas
    middle = np.median(cloud, axis=0)
    angle = np.deg2rad(yaw_deg)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    seen = (cloud - middle) @ turn.T + middle
    front = seen[:, 2] > 0.05 * middle[2]
    seen, paint = seen[front], paint[front]
    # A half step back, so that what swings out sideways stays in the picture.
    u = np.round(0.85 * focal_px * (seen[:, 0] - middle[0]) / seen[:, 2] + (width - 1) / 2).astype(np.int64)
    v = np.round(0.85 * focal_px * (seen[:, 1] - middle[1]) / seen[:, 2] + (height - 1) / 2).astype(np.int64)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    order = np.argsort(-seen[inside, 2], kind="stable")  # far first: the nearest is written last
    covered = np.zeros((height, width), bool)
    canvas[v[inside][order], u[inside][order]] = paint[inside][order]
    covered[v[inside], u[inside]] = True
    return _filled(canvas, covered)


def _filled(canvas: Array, covered: Array) -> Array:
    """Pinholes between splats take the mean of their covered neighbours; larger gaps stay."""
    import cv2

    for _ in range(_FILL_PASSES):
        weight = cv2.boxFilter(covered.astype(np.float32), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
        total = cv2.boxFilter(
            canvas.astype(np.float32) * covered[..., None], -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT
        )
        holes = ~covered & (weight >= 4)
        canvas[holes] = (total[holes] / weight[holes][:, None]).astype(np.uint8)
        covered = covered | holes
    return canvas
