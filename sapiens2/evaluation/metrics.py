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

    mIoU averages over classes that occur in truth or prediction; mIoU_all counts absent ones as 0, as the release does.
    mAcc is the mean recall of classes in the truth; aAcc the share of right pixels.
    """
    hit = np.diag(counts).astype(float)
    truth, predicted = counts.sum(1), counts.sum(0)
    union = truth + predicted - hit
    occurs, there = union > 0, truth > 0
    iou = hit / np.maximum(union, 1)
    return {
        "mIoU": float(iou[occurs].mean()) if occurs.any() else float("nan"),
        "mIoU_all": float(iou.mean()),
        "mAcc": float((hit[there] / truth[there]).mean()) if there.any() else float("nan"),
        "aAcc": float(hit.sum() / max(counts.sum(), 1)),
    }


# ---- normals ----


def angles_deg(predicted: Array, truth: Array, valid: Array) -> Array:
    """Angles [N] between normals [H, W, 3] over valid pixels; predictions need not be unit."""
    p, t = predicted[valid].astype(np.float64), truth[valid].astype(np.float64)
    length = np.linalg.norm(p, axis=1) * np.linalg.norm(t, axis=1)
    cosine = (p * t).sum(1) / np.maximum(length, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def pool_angles(images: Sequence[Array]) -> dict[str, float]:
    """Mean, exact median, RMSE and shares below thresholds over all pixels of all images."""
    angles = np.concatenate(images)
    if not len(angles):
        return {}
    out = {"mean_deg": float(angles.mean()), "median_deg": float(np.median(angles))}
    out["rmse_deg"] = float(np.sqrt((angles**2).mean()))
    return out | {f"within_{limit:g}": float((angles < limit).mean()) for limit in ANGLES_DEG}


# ---- pointmap ----


def best_scale(predicted: Array, truth: Array) -> float:
    """The factor on predicted points [N, 3] that minimises the squared distance to the truth."""
    return float((predicted * truth).sum() / max(float((predicted**2).sum()), 1e-12))


def point_errors(predicted: Array, truth: Array) -> Array:
    """Per-pixel errors [N, 4]: distance, |X|, |Y|, |Z|."""
    difference = predicted.astype(np.float64) - truth
    return np.concatenate([np.linalg.norm(difference, axis=1, keepdims=True), np.abs(difference)], 1)


def pool_points(images: Sequence[Array]) -> dict[str, float]:
    """Mean distance, per-axis MAE, RMSE and shares within 0.05, 0.1 and 0.2 over all pixels."""
    errors = np.concatenate(images)
    length = errors[:, 0]
    out = {"l2": float(length.mean()), "rmse": float(np.sqrt((length**2).mean()))}
    out |= {f"mae_{axis}": float(errors[:, k + 1].mean()) for k, axis in enumerate("xyz")}
    return out | {f"within_{limit:g}": float((length < limit).mean()) for limit in NEAR}


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


def pool_albedo(images: Sequence[Array]) -> dict[str, float]:
    """MAE, RMSE, PSNR of the pooled error (peak 1), SSIM and gradient L1."""
    n, absolute, squared, windows, ssim, pairs, gradient = np.sum(images, 0)
    mse = squared / max(n, 1)
    return {
        "mae": float(absolute / max(n, 1)),
        "rmse": float(np.sqrt(mse)),
        "psnr": float(-10 * np.log10(max(mse, 1e-12))),
        "ssim": float(ssim / windows) if windows else float("nan"),
        "gradient_l1": float(gradient / max(pairs, 1)),
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
