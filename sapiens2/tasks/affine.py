"""One affine change of a sample moves picture, mask, keypoints, vectors, points and intrinsics together.

Coordinates are UDP's: pixel centres have whole coordinates, and the centres of the corner pixels of a crop fall on the
corners of its region, so scales are ratios of (size - 1) [The Devil Is in the Details, arXiv 1911.07524].

A scale or a shift of the picture is another camera matrix, and leaves the space in front of it as it is. A turn of the
picture is a turn of the camera about its axis: normals and points turn with it. Both follow from one factorisation of
the changed camera matrix, A K = K' R, with K' upper triangular and R a rotation about z.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sapiens2.tasks.blurring import blurred
from sapiens2.tasks.regions import BLUR, SHRINK
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import IGNORE

Array = np.ndarray


def region_matrix(region: Array, size: tuple[int, int]) -> Array:
    """float64 [2, 3]: picture pixels to the pixels of a crop of `size` (height, width) over region x0, y0, x1, y1."""
    x0, y0, x1, y1 = (float(v) for v in region)
    sx, sy = (size[1] - 1) / (x1 - x0), (size[0] - 1) / (y1 - y0)
    return np.array([[sx, 0, -x0 * sx], [0, sy, -y0 * sy]])


def turn(angle_deg: float, centre: tuple[float, float]) -> Array:
    """float64 [2, 3]: a turn about a pixel, from x towards y (clockwise as one sees it)."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    x, y = centre
    return np.array([[c, -s, x - c * x + s * y], [s, c, y - s * x - c * y]])


def compose(second: Array, first: Array) -> Array:
    """The affine change [2, 3] that does `first`, then `second`."""
    return np.concatenate([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]], 1)


def inverse(matrix: Array) -> Array:
    """The affine change [2, 3] that undoes another."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -linear @ matrix[:, 2:]], 1)


def apply(matrix: Array, xy: Array) -> Array:
    """Points [..., 2] under an affine change."""
    return xy @ matrix[:, :2].T + matrix[:, 2]


def split_camera(matrix: Array, intrinsics: Array) -> tuple[Array, Array]:
    """(K', R) with A K = K' R: the camera matrix [3, 3] after the change, and the turn [3, 3] of camera space.

    K' has skew only where pixels that are not square are turned.
    """
    whole = np.eye(3)
    whole[:2] = matrix
    changed = whole @ intrinsics
    # RQ of the upper left block: its last row fixes the angle, up to the sign that keeps K' positive.
    angle = np.arctan2(changed[1, 0], changed[1, 1])
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    camera = changed @ rotation.T
    camera[1, 0] = 0.0
    return camera, rotation


def warp(sample: Sample, matrix: Array, size: tuple[int, int]) -> Sample:
    """The sample under an affine change, on a canvas of `size` (height, width).

    Pictures and albedo are resampled linearly, labels from the nearest pixel. What comes from outside the picture is
    black, unknown in the mask, not valid; keypoints that leave the canvas are not labelled any more. Raises ValueError
    for a change that mirrors (`flip` does that).
    """
    matrix = np.asarray(matrix, np.float64)
    if np.isfinite(matrix).all() and np.linalg.det(matrix[:, :2]) <= 0:  # `resample` refuses what is not finite
        raise ValueError("the change mirrors or flattens the picture: use sapiens2.tasks.sample.flip to mirror")
    changes: dict[str, Array] = {"image": resample(sample.image, matrix, size)}
    if sample.mask is not None:
        changes["mask"] = resample(sample.mask, matrix, size, nearest=True, outside=IGNORE)
    if sample.valid is not None:
        changes["valid"] = resample(sample.valid.astype(np.uint8), matrix, size, nearest=True) > 0
    if sample.keypoints is not None and sample.labelled is not None:
        changes["keypoints"], changes["labelled"] = _keypoints(sample.keypoints, sample.labelled, matrix, size)
    if sample.box is not None:
        corners = apply(matrix, sample.box[[[0, 1], [2, 1], [0, 3], [2, 3]]].astype(np.float64))
        changes["box"] = np.concatenate([corners.min(0), corners.max(0)]).astype(np.float32)
    changes |= _dense(sample, matrix, size, changes.get("valid"))
    return replace(sample, area=None, **changes)


def _keypoints(xy: Array, labelled: Array, matrix: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    moved = apply(matrix, xy.astype(np.float64))
    inside = ((moved >= -0.5) & (moved <= np.array(size[::-1]) - 0.5)).all(1)
    return moved.astype(np.float32), labelled & inside


def _dense(sample: Sample, matrix: Array, size: tuple[int, int], valid: Array | None) -> dict[str, Array]:
    """Normals, points and albedo where valid, 0 elsewhere, and the camera matrix."""
    out: dict[str, Array] = {}
    known = np.ones(size, bool) if valid is None else valid
    camera, rotation = split_camera(matrix, np.eye(3) if sample.intrinsics is None else sample.intrinsics)
    if sample.intrinsics is not None:
        out["intrinsics"] = camera.astype(np.float32)
    if sample.normals is not None:
        out["normals"] = _where(known, resample(sample.normals, matrix, size, nearest=True) @ rotation.T)
    if sample.points is not None:
        if sample.intrinsics is None:
            raise ValueError("points cannot be moved without intrinsics: give the sample its camera matrix")
        # The nearest depth, on the ray of the new pixel: a point of the old ray would project beside it.
        depth = resample(np.ascontiguousarray(sample.points[..., 2]), matrix, size, nearest=True)
        out["points"] = _where(known, rays(camera, size) * depth[..., None])
    if sample.albedo is not None:
        out["albedo"] = _where(known, _masked_linear(sample.albedo, sample.valid, matrix, size))
    return out


def _where(valid: Array, values: Array) -> Array:
    return np.where(valid[..., None], values, 0).astype(np.float32)


def rays(camera: Array, size: tuple[int, int]) -> Array:
    """float64 [H, W, 3] with z = 1: where the pixels of a camera look."""
    pixels = np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), -1).astype(np.float64)
    return np.concatenate([pixels, np.ones((*size, 1))], -1) @ np.linalg.inv(camera).T


def _masked_linear(values: Array, valid: Array | None, matrix: Array, size: tuple[int, int]) -> Array:
    """Linear resampling that takes only valid pixels, so that a silhouette is not mixed with what lies behind it."""
    if valid is None:
        return resample(values, matrix, size)
    weight = valid.astype(np.float32)
    total = resample(values * weight[..., None], matrix, size)
    return np.asarray(total / np.maximum(resample(weight, matrix, size), 1e-3)[..., None])


def resample(
    values: Array, matrix: Array, size: tuple[int, int], *, nearest: bool = False, outside: float = 0
) -> Array:
    """An array [H, W, ...] under an affine change; pictures that shrink are averaged.

    The blur is along the axes of the picture, each by what that axis loses, so a turn and a stretch keep its shape.
    Raises ValueError for a change that is not finite.
    """
    import cv2

    if not np.isfinite(matrix).all():
        raise ValueError("the change of the picture is not finite: give a region with an area")
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    if not nearest:
        # How many pixels of the picture one step on the canvas covers, by picture axis.
        covers = np.abs(np.linalg.inv(matrix[:, :2])).max(1)
        sigma = [BLUR * c if c > SHRINK else 0.0 for c in covers]
        if any(sigma):
            values = blurred(values, sigma[0], sigma[1])
    border = (outside,) * 4
    moved = cv2.warpAffine(values, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
    return np.asarray(moved, values.dtype)
