"""Colour jitter, grey, blur and solarisation of the local views, on the device.

The host draws a few numbers per view, keyed by the sample; applying them is arithmetic, so the outcome does not depend
on workers or ranks. Strengths are those of DINOv2 and DINOv3 (specification 8.2, 17).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sapiens2.model.normalise import constant

JITTER = (0.4, 0.4, 0.2, 0.1)  # brightness, contrast, saturation: factors 1 +- x; hue: +- x turns
JITTER_SHARE, GREY_SHARE, BLUR_SHARE, SOLARISE_SHARE = 0.8, 0.2, 0.5, 0.2
BLUR_SIGMA = (0.1, 2.0)  # pixels of the view
BLUR_RADIUS = 6
SOLARISE_ABOVE = 128.0
LUMA = (0.299, 0.587, 0.114)
PARAMETERS = 7  # brightness, contrast, saturation, hue in radians, grey, blur sigma, solarise
# From RGB to luma and two chroma axes (NTSC), where a change of hue is a rotation.
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
YIQ_TO_RGB = tuple(tuple(float(value) for value in row) for row in np.linalg.inv(YIQ))


def draw(rng: np.random.Generator, views: int) -> NDArray[np.float32]:
    """Parameters of `views` views, float32 [views, 7]; what is not applied has its neutral value."""
    u = rng.uniform(-1, 1, (views, 4)) * np.array(JITTER)
    coins = rng.random((views, 4)) < np.array([JITTER_SHARE, GREY_SHARE, BLUR_SHARE, SOLARISE_SHARE])
    factors = np.where(coins[:, :1], 1 + u[:, :3], 1.0)
    hue = np.where(coins[:, 0], 2 * math.pi * u[:, 3], 0.0)
    sigma = np.where(coins[:, 2], rng.uniform(*BLUR_SIGMA, views), 0.0)
    return np.column_stack([factors, hue, coins[:, 1], sigma, coins[:, 3]]).astype(np.float32)


def augment(images: Tensor, parameters: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] and float32 [N, 7] -> float32 [N, H, W, 3] in 0..255.

    Brightness, contrast about the mean grey, then saturation, hue and grey as one 3 x 3 matrix, blur, solarisation.
    """
    luma = constant(LUMA, images.device)
    brightness, contrast, saturation, hue, grey, sigma, solarise = parameters[:, :, None, None, None].unbind(1)
    x = (images.float() * brightness).clamp(0, 255)
    mean = (x @ luma).mean((1, 2))[:, None, None, None]
    x = (mean + contrast * (x - mean)).clamp(0, 255)
    colour = colour_matrix(saturation.flatten(), hue.flatten(), grey.flatten())
    x = torch.einsum("nhwc,ndc->nhwd", x, colour).clamp(0, 255)
    x = blur(x, sigma.flatten())
    return torch.where((solarise > 0) & (x >= SOLARISE_ABOVE), 255 - x, x)


def colour_matrix(saturation: Tensor, hue: Tensor, grey: Tensor) -> Tensor:
    """[N] each -> [N, 3, 3], to be multiplied with RGB columns."""
    device = saturation.device
    eye = torch.eye(3, device=device)
    to_grey = constant(LUMA, device).expand(3, 3)
    saturate = saturation[:, None, None] * eye + (1 - saturation)[:, None, None] * to_grey
    cos, sin, zero, one = hue.cos(), hue.sin(), torch.zeros_like(hue), torch.ones_like(hue)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).unflatten(1, (3, 3))
    turned = constant(YIQ_TO_RGB, device) @ turn @ constant(YIQ, device) @ saturate
    return torch.where(grey[:, None, None] > 0, to_grey, turned)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a deviation per image, pixels; [N, H, W, 3]. A deviation of 0 changes nothing."""
    n, h, w, _ = x.shape
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-2)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]  # [3 N, 1, taps]
    planes = x.permute(0, 3, 1, 2).reshape(1, n * 3, h, w)
    planes = F.pad(planes, [BLUR_RADIUS] * 4, mode="reflect")
    planes = F.conv2d(planes, kernel[:, :, None, :], groups=n * 3)
    planes = F.conv2d(planes, kernel[:, :, :, None], groups=n * 3)
    return planes.reshape(n, 3, h, w).permute(0, 2, 3, 1)
