"""Losses of the pointmap (specification 3.5).

The network predicts canonical points and one number for their scale: see sapiens2.tasks.pointmap_scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.tasks.counts import Counts, corners, mask_counts
from sapiens2.tasks.losses import Preset, covered, distance, gradient_loss, masked_mean
from sapiens2.tasks.pointmap_scale import Convention, canonical_scale, spoken

DEPTH_FLOOR = 1e-4
CLAMP = 4.0
NORMAL_GAIN = 100.0


def mean_depth(points: Tensor, mask: Tensor) -> Tensor:
    """Mean Z over each image's mask, [B, 1, 1, 1]; 1 where the mask is empty."""
    count = mask.sum((1, 2, 3), keepdim=True)
    total = torch.where(mask, points[:, 2:], torch.zeros_like(points[:, 2:])).sum((1, 2, 3), keepdim=True)
    return torch.where(count > 0, total / count.clamp(min=1), torch.ones_like(total))


def silog(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Scale-invariant log error of depth: sqrt(mean d^2 - mean^2 d / 2) per image, batch mean.

    prediction, target: [B, 1, H, W] depths, floored at 1e-4. Images with an empty mask give 0.
    """
    d = target.clamp(min=DEPTH_FLOOR).log() - prediction.clamp(min=DEPTH_FLOOR).log()
    d = torch.where(mask, d, torch.zeros_like(d))
    count = mask.sum((1, 2, 3)).clamp(min=1)
    inside = d.square().sum((1, 2, 3)) / count - 0.5 * (d.sum((1, 2, 3)) / count).square()
    positive = inside > 1e-12
    return torch.where(positive, torch.where(positive, inside, torch.ones_like(inside)).sqrt(), inside * 0).mean()


def pixel_rays(intrinsics: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """X / Z and Y / Z of every pixel: [B, 1, H, W] and [B, 1, H, 1]; skew, K[0, 1], leans the rays with y."""
    u = torch.arange(width, device=intrinsics.device, dtype=intrinsics.dtype)
    v = torch.arange(height, device=intrinsics.device, dtype=intrinsics.dtype)
    x = (u - intrinsics[:, 0, 2, None]) / intrinsics[:, 0, 0, None]
    y = (v - intrinsics[:, 1, 2, None]) / intrinsics[:, 1, 1, None]
    down = y[:, None, :, None]
    leaning = (intrinsics[:, 0, 1] / intrinsics[:, 0, 0])[:, None, None, None] * down
    return x[:, None, None, :] - leaning, down


def intrinsics_loss(prediction: Tensor, mask: Tensor, intrinsics: Tensor, count: Tensor | None = None) -> Tensor:
    """How far predicted points leave the ray of their own pixel, |X - x Z| + |Y - y Z|."""
    x, y = pixel_rays(intrinsics, *prediction.shape[-2:])
    z = prediction[:, 2:]
    return masked_mean((prediction[:, :1] - x * z).abs() + (prediction[:, 1:2] - y * z).abs(), mask, count)


def shift_invariant_l1(prediction: Tensor, target: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """L1 of the two maps, each about its own centroid over the mask of its image."""
    pixels = mask.sum((2, 3), keepdim=True).clamp(min=1)

    def centred(points: Tensor) -> Tensor:
        inside = covered(points, mask)
        return inside - inside.sum((2, 3), keepdim=True) / pixels

    return masked_mean((centred(prediction) - centred(target)).abs(), mask, count)


def difference_normals(points: Tensor) -> Tensor:
    """Unit normals [B, 3, H - 1, W - 1] from forward differences of points, down x across: towards the camera."""
    across = (points[:, :, :-1, 1:] - points[:, :, :-1, :-1]) * NORMAL_GAIN
    down = (points[:, :, 1:, :-1] - points[:, :, :-1, :-1]) * NORMAL_GAIN
    return F.normalize(torch.linalg.cross(down, across, dim=1), dim=1, eps=1e-6)


def points_normal_loss(prediction: Tensor, target: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """1 - cosine plus mean absolute difference of the normals of two metric maps.

    A normal counts only where the pixel, its right and its lower neighbour are all covered, so that no silhouette is
    mistaken for a surface, and where the target has a normal. `count` is the number of such corners.
    """
    ours, theirs = (difference_normals(covered(points, mask)) for points in (prediction, target))
    cosine = (ours * theirs).sum(1, keepdim=True)
    counted = corners(mask)
    defined = counted & (theirs.abs().sum(1, keepdim=True) > 0)
    error = 1 - cosine + (ours - theirs).abs().mean(1, keepdim=True)
    return masked_mean(error, defined, counted.sum() if count is None else count)


def doubled_l1(difference: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """L1 of two maps enlarged twice: `difference` [B, 3, H, W] is theirs, 0 outside; `count` the covered pixels.

    Interpolation is linear, so enlarging the difference equals comparing the enlarged maps, but brings nothing in from
    beyond the silhouette.
    """
    doubled = F.interpolate(difference, scale_factor=2, mode="bilinear", align_corners=False)
    mask = mask.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return masked_mean(doubled.abs(), mask, None if count is None else 4 * count)


def clamped(losses: Tensor, limit: float, mean_over_ranks: Callable[[Tensor], Tensor]) -> Tensor:
    """Each of the losses [n], but no more than `limit`, above which it has no gradient either.

    What is compared is the mean over the ranks of one micro-batch, and not one rank's part of it.
    """
    over = mean_over_ranks(losses.detach()) > limit
    return torch.where(over, torch.full_like(losses, limit), losses)


def pointmap_losses(
    points: Tensor,
    scale: Tensor,
    target: Tensor,
    mask: Tensor,
    intrinsics: Tensor,
    preset: Preset = "release",
    *,
    convention: Convention = "release",
    counts: Counts | None = None,
    mean_over_ranks: Callable[[Tensor], Tensor] = lambda x: x,
) -> dict[str, Tensor]:
    """points: canonical [B, 3, H, W]; scale: [B]; target: metric points [B, 3, H, W]; mask: bool [B, 1, H, W].

    intrinsics: [B, 3, 3] in the pixels of this map. paper: L2 + gradient + scale. convention: what `scale` means.
    """
    counts = counts or mask_counts(mask)
    n = counts["covered"]
    s = canonical_scale(intrinsics, points.shape[-1])
    factor = s[:, None, None, None]
    canonical = covered(target * factor, mask)
    scale_loss = 4.0 * (scale - spoken(s, convention)).abs().mean()
    if preset == "paper":
        return {
            "loss_l2": masked_mean(distance(points - canonical), mask, n),
            "loss_gradient": gradient_loss(points, canonical, mask, power=1, counts=counts),
            "loss_scale": scale_loss,
        }
    depth = mean_depth(canonical, mask)
    ours, theirs = covered(points / depth, mask), canonical / depth
    bounded = [
        2.0 * masked_mean((ours - theirs).abs(), mask, n),
        doubled_l1(ours - theirs, mask, n),
        shift_invariant_l1(ours, theirs, mask, n),
    ]
    l1, multiscale, shift = clamped(torch.stack(bounded), CLAMP, mean_over_ranks).unbind()
    return {
        "loss_l1": l1,
        "loss_multiscale": multiscale,
        "loss_silog": silog(points[:, 2:], canonical[:, 2:], mask),
        "loss_rays": intrinsics_loss(points, mask, intrinsics, n),
        "loss_shift": shift,
        "loss_normal": 2.0 * points_normal_loss(points / factor, canonical / factor, mask, counts["corners"]),
        "loss_scale": scale_loss,
    }
