"""From 8-bit pixels to what the network reads, on the device that will run it."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB, 0..255
STD = (58.395, 57.12, 57.375)


def normalise(images: Tensor) -> Tensor:
    """uint8 or 0..255 float [..., H, W, 3] RGB -> float32 [..., 3, H, W], zero mean and unit deviation."""
    mean, std = (torch.tensor(values, device=images.device) for values in (MEAN, STD))
    return ((images.float() - mean) / std).movedim(-1, -3)


def denormalise(images: Tensor) -> Tensor:
    """The inverse: float [..., 3, H, W] -> uint8 [..., H, W, 3], clipped to what a pixel can hold."""
    mean, std = (torch.tensor(values, device=images.device) for values in (MEAN, STD))
    return (images.float().movedim(-3, -1) * std + mean).round().clamp(0, 255).to(torch.uint8)
