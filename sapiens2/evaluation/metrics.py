"""Metrics of the five tasks: per-image sums first, so that images can be pooled and resampled exactly.

Every function here takes numpy arrays of one image; `pool_*` turns the sums of chosen images into numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sapiens2.tasks.vocabulary import IGNORE

Array = np.ndarray
ANGLES_DEG = (5.0, 11.25, 22.5, 30.0)
NEAR = (0.05, 0.10, 0.20)
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


# ---- pose ----


def pck_hits(predicted: Array, truth: Array, labelled: Array, diagonal: float, share: float) -> tuple[int, int]:
    """Labelled keypoints within `share` of the box diagonal, and labelled keypoints."""
    near = np.linalg.norm(predicted - truth, axis=-1) <= share * diagonal
    return int((near & labelled).sum()), int(labelled.sum())


# ---- segmentation ----


def confusion(predicted: Array, truth: Array, classes: int) -> Array:
    """Counts [classes, classes] of pixels by (truth, predicted); ignored pixels are left out."""
    known = truth != IGNORE
    index = truth[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(index, minlength=classes * classes).reshape(classes, classes)


def pool_segmentation(counts: Array) -> dict[str, float]:
    """counts: confusion matrix summed over images.

    mIoU averages over classes that occur in truth or prediction, mAcc (recall) over those in the truth; mIoU_all and
    mAcc_all average over all classes and count absent ones as 0, as the release does. aAcc: right pixels' share.
    """
    hit = np.diag(counts).astype(float)
    truth, predicted = counts.sum(1), counts.sum(0)
    union = truth + predicted - hit
    occurs, there = union > 0, truth > 0
    iou, recall = hit / np.maximum(union, 1), hit / np.maximum(truth, 1)
    return {
        "mIoU": float(iou[occurs].mean()) if occurs.any() else float("nan"),
        "mIoU_all": float(iou.mean()),
        "mAcc": float(recall[there].mean()) if there.any() else float("nan"),
        "mAcc_all": float(recall.mean()),
        "aAcc": float(hit.sum() / max(counts.sum(), 1)),
    }


# ---- normals ----


def angles_deg(predicted: Array, truth: Array, valid: Array) -> Array:
    """Angles [N] between normals [H, W, 3] over valid pixels; predictions need not be unit."""
    p, t = predicted[valid].astype(np.float64), truth[valid].astype(np.float64)
    length = np.linalg.norm(p, axis=1) * np.linalg.norm(t, axis=1)
    cosine = (p * t).sum(1) / np.maximum(length, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def angle_sums(angles: Array) -> Array:
    """[pixels, sum, sum of squares, pixels below each of ANGLES_DEG] of the angles [N] of one image."""
    below = [(angles < limit).sum() for limit in ANGLES_DEG]
    return np.array([len(angles), angles.sum(), (angles**2).sum(), *below], np.float64)


def pool_angles(images: Array) -> dict[str, float]:
    """Mean, RMSE and shares below thresholds over all pixels of images, by their sums [n, 7]."""
    n, total, squares, *below = images.sum(0)
    n = n or float("nan")
    out = {"mean_deg": float(total / n), "rmse_deg": float(np.sqrt(squares / n))}
    return out | {f"within_{limit:g}": float(count / n) for limit, count in zip(ANGLES_DEG, below, strict=True)}


# ---- pointmap ----


def best_scale(predicted: Array, truth: Array) -> float:
    """The factor on predicted points [N, 3] that minimises the squared distance to the truth."""
    return float((predicted * truth).sum() / max(float((predicted**2).sum()), 1e-12))


def point_errors(predicted: Array, truth: Array) -> Array:
    """Per-pixel errors [N, 4]: distance, |X|, |Y|, |Z|."""
    difference = predicted.astype(np.float64) - truth
    return np.concatenate([np.linalg.norm(difference, axis=1, keepdims=True), np.abs(difference)], 1)


def point_sums(errors: Array) -> Array:
    """[pixels, sums of distance, |X|, |Y|, |Z| and squared distance, pixels within each of NEAR] of errors [N, 4]."""
    length = errors[:, 0]
    near = [(length < limit).sum() for limit in NEAR]
    return np.array([len(errors), *errors.sum(0), (length**2).sum(), *near], np.float64)


def pool_points(images: Array) -> dict[str, float]:
    """Mean distance, per-axis MAE, RMSE and shares within NEAR over all pixels of images, by their sums [n, 9]."""
    n, length, x, y, z, squares, *near = images.sum(0)
    n = n or float("nan")
    out = {"l2": float(length / n), "rmse": float(np.sqrt(squares / n))}
    out |= {f"mae_{axis}": float(total / n) for axis, total in zip("xyz", (x, y, z), strict=True)}
    return out | {f"within_{limit:g}": float(count / n) for limit, count in zip(NEAR, near, strict=True)}


def surface_angles_deg(predicted: Array, truth: Array, valid: Array) -> Array:
    """Angles [N] between the surfaces of two pointmaps [H, W, 3], by Sobel derivatives over 5 x 5 pixels.

    Only pixels whose whole window is valid and lies in the picture count: across a silhouette there is no surface.
    """
    import cv2

    inside = cv2.erode(valid.astype(np.uint8), np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    normals = []
    for points in (predicted, truth):
        clean = np.ascontiguousarray(np.where(valid[..., None], points, 0), np.float64)
        across, down = (cv2.Sobel(clean, cv2.CV_64F, *order, ksize=5) for order in ((1, 0), (0, 1)))
        normals.append(np.cross(down, across))
    return angles_deg(normals[0], normals[1], inside > 0)


# ---- albedo ----


def albedo_sums(predicted: Array, truth: Array, valid: Array) -> Array:
    """[pixels, sum |d|, sum d^2, SSIM pixels, sum SSIM, gradient pairs, sum |gradient d|], channels averaged."""
    difference = np.where(valid[..., None], predicted.astype(np.float64) - truth, 0.0)
    ssim, inside = masked_ssim(predicted, truth, valid)
    pairs = gradient = 0.0
    for axis in (0, 1):
        pair = np.logical_and(*(np.take(valid, range(k, valid.shape[axis] - 1 + k), axis) for k in (0, 1)))
        pairs += pair.sum()
        gradient += (np.abs(np.diff(difference, axis=axis)).mean(-1) * pair).sum()
    absolute, squared = np.abs(difference).mean(-1).sum(), (difference**2).mean(-1).sum()
    return np.array([valid.sum(), absolute, squared, inside.sum(), ssim[inside].sum(), pairs, gradient])


def pool_albedo(images: Sequence[Array] | Array) -> dict[str, float]:
    """MAE, RMSE, PSNR of the pooled error (peak 1), SSIM and gradient L1; NaN for what no pixel, or pair, was there."""
    n, absolute, squared, windows, ssim, pairs, gradient = np.sum(images, 0)
    n, windows, pairs = (count or float("nan") for count in (n, windows, pairs))
    mse = squared / n
    return {
        "mae": float(absolute / n),
        "rmse": float(np.sqrt(mse)),
        "psnr": float(-10 * np.log10(np.maximum(mse, 1e-12))),
        "ssim": float(ssim / windows),
        "gradient_l1": float(gradient / pairs),
    }


def _gaussian(image: Array) -> Array:
    """11 x 11 Gaussian of sigma 1.5, zero outside: [H, W, ...] to the same shape."""
    x = np.arange(-5, 6)
    g = np.exp(-(x**2) / (2 * 1.5**2))
    g /= g.sum()
    for axis in (0, 1):
        pad = [(5, 5) if a == axis else (0, 0) for a in range(image.ndim)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, pad), 11, axis)
        image = windows @ g
    return image


def masked_ssim(predicted: Array, truth: Array, valid: Array) -> tuple[Array, Array]:
    """SSIM [H, W] averaged over channels, statistics over valid pixels only, and where it counts: valid pixels whose
    window has more than half of its weight on valid pixels."""
    m = valid.astype(np.float64)[..., None]
    weight = _gaussian(m)
    inside = valid & (weight[..., 0] > 0.5)
    safe = np.maximum(weight, 1e-6)
    x, y = predicted.astype(np.float64), truth.astype(np.float64)

    def mean(values: Array) -> Array:
        return _gaussian(np.where(m > 0, values, 0.0)) / safe

    mx, my = mean(x), mean(y)
    vx, vy, cxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    value = (2 * mx * my + SSIM_C1) * (2 * cxy + SSIM_C2) / ((mx**2 + my**2 + SSIM_C1) * (vx + vy + SSIM_C2))
    return value.mean(-1), inside
