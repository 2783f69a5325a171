"""Losses of pose, segmentation, normals and albedo: pure functions of tensors (specification 3).

Masks are exact: a term counts only what its mask covers, divides by the mask's size over the whole batch, and is 0,
with a zero gradient, when the mask is empty. `release` is what the published configurations use, `paper` what the text
says; where they agree there is one function. `counts` are the denominators where a batch is computed in parts, see
sapiens2.tasks.counts; without them a loss divides by its own mask.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.tasks.counts import AXES, Counts, mask_counts, pairs
from sapiens2.tasks.vocabulary import IGNORE

Preset = Literal["release", "paper"]
OHEM_KEYPOINTS = 128
DICE_EPS = 1e-3
NOTHING = 1e-6  # below any count: a part of a batch that covers one pixel may count as a small fraction of one


def masked_mean(values: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Sum of values [B, C, H, W] over channels and covered pixels, divided by `count`, the covered pixels by default.

    mask: bool [B, 1, H, W]. Values outside may be anything, NaN included.
    """
    total = torch.where(mask, values, torch.zeros_like(values)).sum()
    return total / (mask.sum() if count is None else count).clamp(min=NOTHING)


def covered(values: Tensor, mask: Tensor) -> Tensor:
    """Values [B, C, H, W] with 0 outside the mask, so that rubbish there reaches neither a loss nor a gradient."""
    return torch.where(mask, values, torch.zeros_like(values))


def gradient_loss(
    prediction: Tensor, target: Tensor, mask: Tensor, power: int = 2, counts: Counts | None = None
) -> Tensor:
    """Error of forward differences over pairs of covered pixels, x and y terms added.

    power 2: squared (release); 1: absolute. Summed over channels, divided by the number of pairs.
    """
    counts = counts or mask_counts(mask)
    difference = covered(prediction - target, mask)
    total = prediction.new_zeros(())
    for name, axis in AXES.items():
        n = prediction.shape[axis] - 1
        error = difference.narrow(axis, 1, n) - difference.narrow(axis, 0, n)
        total = total + masked_mean(error.abs() ** power, pairs(mask, axis), counts[name])
    return total


# ---- pose ----


def pose_losses(
    heatmaps: Tensor, targets: Tensor, weights: Tensor, preset: Preset = "release", hardest: int | None = None
) -> dict[str, Tensor]:
    """heatmaps, targets: [B, K, h, w]; weights: [B, K], 0 for keypoints without a label.

    release: 10 x the mean over everything of w (H' - H)^2, unlabelled keypoints in the mean as zeros. paper: the norms
    |H' - H| of the maps, not squared, summed over keypoints, batch mean. hardest: only so many keypoints of each
    sample, those with the largest error, 0 for all; by default 128 for paper (OHEM) and all for release.
    """
    keep = {"release": 0, "paper": OHEM_KEYPOINTS}[preset] if hardest is None else hardest
    squared = (heatmaps - targets).square()
    each = squared.mean((-2, -1)) if preset == "release" else length(squared.sum((-2, -1)))
    error = each * weights
    if keep:
        error = error.topk(min(keep, error.shape[1]), dim=1).values
    return {"loss_heatmap": 10.0 * error.mean() if preset == "release" else error.sum(1).mean()}


def length(squared: Tensor) -> Tensor:
    """Square root; its gradient at 0 is 0, not NaN."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, torch.ones_like(squared)).sqrt(), squared)


# ---- segmentation ----


def segmentation_losses(logits: Tensor, labels: Tensor, class_weights: Tensor) -> dict[str, Tensor]:
    """logits: [B, C, H, W]; labels: [B, H, W] integers, 255 ignored; class_weights: [C]. Paper and release agree.

    Pixels may have more axes than two, the same on both sides: [B, C, ...] and [B, ...].
    """
    if logits.shape[2:] != labels.shape[1:]:
        logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    labels = labels.long()
    logs = logits.log_softmax(1)
    # Ignored pixels add nothing but still count in the mean, and the mean is not divided by the weights.
    entropy = F.nll_loss(logs, labels, weight=class_weights, ignore_index=IGNORE, reduction="sum")
    return {"loss_ce": entropy / labels.numel(), "loss_dice": dice_loss(logs.exp(), labels)}


def dice_loss(p: Tensor, labels: Tensor) -> Tensor:
    """1 - Dice over the foreground classes present in each sample's labels, squared denominators; batch mean.

    p: probabilities [B, C, ...]; labels: [B, ...]. A sample without foreground gives 0. Ignored pixels are left out of
    every sum. No one-hot map is made: at full size it would be the largest tensor of the step.
    """
    known = (labels != IGNORE).unsqueeze(1)
    p = covered(p, known)
    place = labels.unsqueeze(1).where(known, 0)
    hits = covered(p.gather(1, place), known).flatten(1)
    none = p.new_zeros(p.shape[:2])
    both = none.scatter_add(1, place.flatten(1), hits)[:, 1:]
    truth = none.scatter_add(1, place.flatten(1), known.flatten(1).to(p.dtype))[:, 1:]
    score = (2 * both + DICE_EPS) / (p.square().flatten(2).sum(2)[:, 1:] + truth + DICE_EPS)
    present = (truth > 0).to(p.dtype)
    count = present.sum(-1)
    each = torch.where(count > 0, 1 - (score * present).sum(-1) / count.clamp(min=1), torch.zeros_like(count))
    return each.mean()


# ---- normals ----


def normal_losses(
    prediction: Tensor, target: Tensor, mask: Tensor, preset: Preset = "release", counts: Counts | None = None
) -> dict[str, Tensor]:
    """prediction: raw [B, 3, H, W]; target: unit [B, 3, H, W]; mask: bool [B, 1, H, W].

    release: 10 (1 - cosine) + L1 of the raw prediction + 10 squared gradient. paper: L2 in place of L1, and equal
    weights, as it states none.
    """
    counts = counts or mask_counts(mask)
    target = covered(target, mask)
    n = counts["covered"]
    cosine = F.cosine_similarity(prediction, target, dim=1, eps=1e-6).unsqueeze(1)
    angular = masked_mean(1 - cosine, mask, n)
    if preset == "release":
        return {
            "loss_cosine": 10.0 * angular,
            "loss_l1": masked_mean((prediction - target).abs(), mask, n),
            "loss_gradient": 10.0 * gradient_loss(prediction, target, mask, counts=counts),
        }
    return {
        "loss_cosine": angular,
        "loss_l2": masked_mean(distance(prediction - target), mask, n),
        "loss_gradient": gradient_loss(prediction, target, mask, power=1, counts=counts),
    }


def distance(difference: Tensor) -> Tensor:
    """Euclidean length over channels, [B, C, H, W] -> [B, 1, H, W]; its gradient at 0 is 0, not NaN."""
    return length(difference.square().sum(1, keepdim=True))


# ---- albedo ----


def albedo_losses(
    prediction: Tensor, target: Tensor, mask: Tensor, preset: Preset = "release", counts: Counts | None = None
) -> dict[str, Tensor]:
    """prediction, target: sRGB [B, 3, H, W], the target in [0, 1]; mask: bool [B, 1, H, W].

    release: 2 L1 + 2 squared gradient (x and y averaged) + L1 of chromaticity. paper: L2 + gradient + mean colour.
    """
    counts = counts or mask_counts(mask)
    target = covered(target, mask)
    n = counts["covered"]
    if preset == "release":
        return {
            "loss_l1": 2.0 * masked_mean((prediction - target).abs(), mask, n),
            "loss_gradient": gradient_loss(prediction, target, mask, counts=counts),
            "loss_chroma": masked_mean((chromaticity(prediction) - chromaticity(target)).abs(), mask, n),
        }
    return {
        "loss_l2": masked_mean(distance(prediction - target), mask, n),
        "loss_gradient": gradient_loss(prediction, target, mask, power=1, counts=counts),
        "loss_mean": _mean_colour(prediction, target, mask),
    }


def chromaticity(rgb: Tensor) -> Tensor:
    """Share of each channel in the clamped sum [B, 3, H, W]."""
    rgb = rgb.clamp(0, 1)
    return rgb / (rgb.sum(1, keepdim=True) + 1e-6)


def _mean_colour(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Distance of the mean colours over each image's mask; images without a mask give 0."""
    count = mask.sum((2, 3)).to(prediction.dtype)
    error = covered(prediction - target, mask).sum((2, 3)) / count.clamp(min=1)
    return error.abs().sum(1).mean()
