"""Keypoints to heatmaps and back (UDP coordinates, DARK refinement), on the device.

UDP: the centres of the corner pixels of image and heatmap coincide, so a coordinate scales by
(w_heatmap - 1) / (w_image - 1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.tasks.vocabulary import keypoints

REFERENCE = (256, 192)
"""Rows and columns of the released heatmaps, for which sigma is 6 pixels and the decoding blur 11 wide."""
SIGMA = 6.0
BLUR = 11


def heatmap_sigma(width: int) -> float:
    """Sigma in heatmap pixels for a heatmap of `width` columns: the released share of the width, at least 1.5.

    Below that a map is a lone pixel, which is hard to learn and cannot be refined.
    """
    return max(1.5, SIGMA * width / REFERENCE[1])


def to_heatmap(xy: Tensor, image: tuple[int, int], heatmap: tuple[int, int]) -> Tensor:
    """Image pixels [..., 2] (x, y) to heatmap pixels; sizes are (height, width)."""
    factor = [(h - 1) / (i - 1) for h, i in zip(heatmap[::-1], image[::-1], strict=True)]
    return xy * xy.new_tensor(factor)


def to_image(xy: Tensor, image: tuple[int, int], heatmap: tuple[int, int]) -> Tensor:
    """Heatmap pixels back to image pixels: the exact inverse of `to_heatmap`."""
    return to_heatmap(xy, heatmap, image)


def encode(xy: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """Gaussians of peak 1 at sub-pixel centres xy [B, K, 2] (heatmap pixels), cut at 3 sigma: [B, K, h, w]."""
    h, w = size
    x = torch.arange(w, device=xy.device, dtype=xy.dtype)
    y = torch.arange(h, device=xy.device, dtype=xy.dtype)
    dx, dy = x - xy[..., :1], y - xy[..., 1:]
    near_x, near_y = (dx.abs() <= 3 * sigma).to(xy.dtype), (dy.abs() <= 3 * sigma).to(xy.dtype)
    gx = torch.exp(-dx.square() / (2 * sigma**2)) * near_x
    gy = torch.exp(-dy.square() / (2 * sigma**2)) * near_y
    return gy[..., :, None] * gx[..., None, :]


def _blurred(heatmaps: Tensor, kernel: int) -> Tensor:
    """Gaussian blur per map, OpenCV's sigma for the kernel, rescaled to the former maximum."""
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    x = torch.arange(kernel, device=heatmaps.device, dtype=heatmaps.dtype) - kernel // 2
    g = torch.exp(-x.square() / (2 * sigma**2))
    g = g / g.sum()
    flat = F.pad(heatmaps.flatten(0, 1).unsqueeze(1), [kernel // 2] * 4)
    out = F.conv2d(F.conv2d(flat, g.view(1, 1, -1, 1)), g.view(1, 1, 1, -1)).view_as(heatmaps)
    return out * (heatmaps.amax((-2, -1), keepdim=True) / out.amax((-2, -1), keepdim=True).clamp(min=1e-12))


def decode(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Heatmaps [B, K, h, w] to sub-pixel places [B, K, 2] (x, y, heatmap pixels) and scores [B, K] (the maxima).

    The maximum, moved by one Newton step on the logarithm of the blurred map (DARK): by at most one pixel, on the map.
    """
    h, w = heatmaps.shape[-2:]
    heatmaps = heatmaps.float()
    scores, index = heatmaps.flatten(2).max(-1)
    x, y = index % w, index // w
    kernel = max(3, 2 * round((BLUR - 1) / 2 * w / REFERENCE[1]) + 1)
    log = _blurred(heatmaps, kernel).clamp(1e-3, 50).log()
    padded = F.pad(log, (1, 1, 1, 1), mode="replicate").flatten(2)

    def at(dx: int, dy: int) -> Tensor:
        return padded.gather(2, ((y + 1 + dy) * (w + 2) + x + 1 + dx).unsqueeze(-1)).squeeze(-1)

    gx, gy = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    xx, yy = at(1, 0) - 2 * at(0, 0) + at(-1, 0), at(0, 1) - 2 * at(0, 0) + at(0, -1)
    xy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    det = xx * yy - xy * xy
    # Only a true maximum has a step: both curvatures negative.
    peak = (det > 1e-9) & (xx < 0)
    safe = torch.where(peak, det, torch.ones_like(det))
    step = torch.stack([-(yy * gx - xy * gy) / safe, -(xx * gy - xy * gx) / safe], -1)
    step = torch.where(peak.unsqueeze(-1), step.clamp(-1, 1), torch.zeros_like(step))
    place = torch.stack([x, y], -1).to(step.dtype) + step
    return place.clamp(min=0).minimum(place.new_tensor([w - 1, h - 1])), scores


def mirrored(heatmaps: Tensor) -> Tensor:
    """Heatmaps [B, 308, h, w] of a picture from those of its mirror image: turned round, left and right changed over.

    UDP coordinates make the mirror exact, so nothing is shifted.
    """
    order = torch.as_tensor(keypoints().flip, device=heatmaps.device)
    return heatmaps[:, order].flip(-1)
