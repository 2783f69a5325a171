"""From 8-bit pixels to what the network reads, on the device that will run it."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB, 0..255
STD = (58.395, 57.12, 57.375)

Numbers = tuple[float, ...] | tuple[tuple[float, ...], ...]


@lru_cache(maxsize=64)
def constant(values: Numbers, device: torch.device) -> Tensor:
    """A small fp32 tensor that stays on the device: sending it anew would make the host wait in every step."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)


def normalise(images: Tensor) -> Tensor:
    """uint8 or 0..255 float [..., H, W, 3] RGB -> float32 [..., 3, H, W], zero mean and unit deviation."""
    return ((images.float() - constant(MEAN, images.device)) / constant(STD, images.device)).movedim(-1, -3)


def brightness(images: Tensor) -> Tensor:
    """What a pixel shows, as a share of the largest value: normalised [..., 3, H, W] -> float32 of that shape."""
    deviation, mean = (constant(values, images.device)[:, None, None] for values in (STD, MEAN))
    return (images.float() * deviation + mean) / 255


def denormalise(images: Tensor) -> Tensor:
    """The inverse: float [..., 3, H, W] -> uint8 [..., H, W, 3], clipped to what a pixel can hold."""
    pixels = images.float().movedim(-3, -1) * constant(STD, images.device) + constant(MEAN, images.device)
    return pixels.round().clamp(0, 255).to(torch.uint8)
