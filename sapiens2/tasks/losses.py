"""Losses of pose, segmentation, normals and albedo: pure functions of tensors (specification 3).

Masks are exact: a term counts only what its mask covers, divides by the mask's size over the whole batch, and is 0,
with a zero gradient, when the mask is empty. `release` is what the published configurations use, `paper` what the text
says; where they agree there is one function.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.tasks.vocabulary import IGNORE

Preset = Literal["release", "paper"]
OHEM_KEYPOINTS = 128
DICE_EPS = 1e-3


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of values [B, C, H, W] over channels and covered pixels, divided by the covered pixels of the batch.

    mask: bool [B, 1, H, W]. Values outside may be anything, NaN included.
    """
    total = torch.where(mask, values, torch.zeros_like(values)).sum()
    return total / mask.sum().clamp(min=1)


def gradient_loss(prediction: Tensor, target: Tensor, mask: Tensor, power: int = 2) -> Tensor:
    """Error of forward differences over pairs of covered pixels, x and y terms added.

    power 2: squared (release); 1: absolute. Summed over channels, divided by the number of pairs.
    """
    total = prediction.new_zeros(())
    for axis in (-1, -2):
        n = prediction.shape[axis] - 1
        step = lambda x, axis=axis, n=n: x.narrow(axis, 1, n) - x.narrow(axis, 0, n)  # noqa: E731
        pair = mask.narrow(axis, 1, n) & mask.narrow(axis, 0, n)
        error = step(torch.where(mask, prediction - target, torch.zeros_like(prediction)))
        total = total + masked_mean(error.abs() ** power, pair)
    return total


# ---- pose ----


def pose_losses(heatmaps: Tensor, targets: Tensor, weights: Tensor, preset: Preset = "release") -> dict[str, Tensor]:
    """heatmaps, targets: [B, K, h, w]; weights: [B, K], 0 for keypoints without a label.

    release: 10 x the mean over everything of w (H' - H)^2, unlabelled keypoints in the mean as zeros.
    paper: the same per keypoint, averaged over each sample's 128 hardest keypoints.
    """
    error = (heatmaps - targets).square().mean((-2, -1)) * weights
    if preset == "release":
        return {"loss_heatmap": 10.0 * error.mean()}
    hard = error.topk(min(OHEM_KEYPOINTS, error.shape[1]), dim=1).values
    return {"loss_heatmap": 10.0 * hard.mean()}


# ---- segmentation ----


def segmentation_losses(logits: Tensor, labels: Tensor, class_weights: Tensor) -> dict[str, Tensor]:
    """logits: [B, C, H, W]; labels: [B, H, W] integers, 255 ignored; class_weights: [C]. Paper and release agree."""
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    labels = labels.long()
    # Ignored pixels add nothing but still count in the mean, and the mean is not divided by the weights.
    entropy = F.cross_entropy(logits, labels, weight=class_weights, ignore_index=IGNORE, reduction="sum")
    return {"loss_ce": entropy / labels.numel(), "loss_dice": dice_loss(logits, labels)}


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - Dice over the foreground classes present in each sample's labels, squared denominators; batch mean.

    A sample without foreground gives 0. Ignored pixels are left out of every sum.
    """
    known = (labels != IGNORE).unsqueeze(1)
    p = logits.softmax(1) * known
    g = F.one_hot(labels.where(labels != IGNORE, 0), logits.shape[1]).movedim(-1, 1).to(p.dtype) * known
    p, g = p[:, 1:].flatten(2), g[:, 1:].flatten(2)
    score = (2 * (p * g).sum(-1) + DICE_EPS) / ((p * p).sum(-1) + (g * g).sum(-1) + DICE_EPS)
    present = (g.sum(-1) > 0).to(p.dtype)
    count = present.sum(-1)
    each = torch.where(count > 0, 1 - (score * present).sum(-1) / count.clamp(min=1), torch.zeros_like(count))
    return each.mean()


# ---- normals ----


def normal_losses(prediction: Tensor, target: Tensor, mask: Tensor, preset: Preset = "release") -> dict[str, Tensor]:
    """prediction: raw [B, 3, H, W]; target: unit [B, 3, H, W]; mask: bool [B, 1, H, W].

    release: 10 (1 - cosine) + L1 of the raw prediction + 10 squared gradient. paper: L2 in place of L1, and equal
    weights, as it states none.
    """
    cosine = F.cosine_similarity(prediction, target, dim=1, eps=1e-6).unsqueeze(1)
    angular = masked_mean(1 - cosine, mask)
    if preset == "release":
        return {
            "loss_cosine": 10.0 * angular,
            "loss_l1": masked_mean((prediction - target).abs(), mask),
            "loss_gradient": 10.0 * gradient_loss(prediction, target, mask),
        }
    return {
        "loss_cosine": angular,
        "loss_l2": masked_mean(distance(prediction - target), mask),
        "loss_gradient": gradient_loss(prediction, target, mask, power=1),
    }


def distance(difference: Tensor) -> Tensor:
    """Euclidean length over channels [B, 1, H, W]; its gradient at 0 is 0, not NaN."""
    squared = difference.square().sum(1, keepdim=True)
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, torch.ones_like(squared)).sqrt(), squared)


# ---- albedo ----


def albedo_losses(prediction: Tensor, target: Tensor, mask: Tensor, preset: Preset = "release") -> dict[str, Tensor]:
    """prediction, target: sRGB [B, 3, H, W], the target in [0, 1]; mask: bool [B, 1, H, W].

    release: 2 L1 + 2 squared gradient (x and y averaged) + L1 of chromaticity. paper: L2 + gradient + mean colour.
    """
    if preset == "release":
        return {
            "loss_l1": 2.0 * masked_mean((prediction - target).abs(), mask),
            "loss_gradient": gradient_loss(prediction, target, mask),
            "loss_chroma": masked_mean((chromaticity(prediction) - chromaticity(target)).abs(), mask),
        }
    return {
        "loss_l2": masked_mean(distance(prediction - target), mask),
        "loss_gradient": gradient_loss(prediction, target, mask, power=1),
        "loss_mean": _mean_colour(prediction, target, mask),
    }


def chromaticity(rgb: Tensor) -> Tensor:
    """Share of each channel in the clamped sum [B, 3, H, W]."""
    rgb = rgb.clamp(0, 1)
    return rgb / (rgb.sum(1, keepdim=True) + 1e-6)


def _mean_colour(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Distance of the mean colours over each image's mask; images without a mask give 0."""
    count = mask.sum((2, 3)).to(prediction.dtype)
    error = torch.where(mask, prediction - target, torch.zeros_like(prediction)).sum((2, 3)) / count.clamp(min=1)
    return error.abs().sum(1).mean()
