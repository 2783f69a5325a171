"""A light decoder of our own for the tiny backbone: tokens for what is where, a few convolutions on the picture for
where exactly.

A plain transformer of 16-pixel patches learns detail slowly; a detail branch as in ViTMatte (arXiv 2305.15272) gives
it to a model that is trained for seconds on a CPU. Rotary embedding and convolutions know relative places only, so the
decoder is also told the absolute one. Works for any input size that divides into patches.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.model.normalise import brightness

Only = tuple[int, int] | Literal["apart"] | None
"""Which sub-pixels a head is asked for, see `SmallHead.forward`."""
WAVES = 3  # of each axis: 1, 2 and 4 half turns across the picture


def _stage(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(8, out),
        nn.SiLU(),
    )


def places(height: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of each pixel's place, [1, 4 * WAVES, height, width]; dtype and device of `like`."""
    rows = []
    for count, axis in ((height, -1), (width, -2)):
        t = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count
        for wave in range(WAVES):
            angle = math.pi * 2**wave * t
            rows += [f(angle).unsqueeze(axis).expand(height, width) for f in (torch.sin, torch.cos)]
    return torch.stack(rows)[None]


def unshaded(images: Tensor, change: Tensor) -> Tensor:
    """Albedo as the picture without its light: images [B, 3, H, W] normalised and their change [B, 6, h, w], the
    logarithm of a factor and an offset of each channel, on a coarser grid -> sRGB [B, 3, H, W].

    Patterns, which are of the surface, come from the picture at its own size; a change of 0 answers the picture.
    """
    factor, offset = F.interpolate(change.float(), images.shape[-2:], mode="bilinear").chunk(2, 1)
    return brightness(images) * factor.exp() + offset


class Residual(nn.Module):
    """Two convolutions of C channels added to what they are given, at first nothing: [B, C, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _stage(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.norm(self.second(self.first(x))))


class SmallHead(nn.Module):
    """Feature pyramid over stem maps at strides 2, 4, 8 and the tokens; output at stride 4 (heatmaps) or 2.

    width: channels before the last layer; stride: 2 or 4; gain: factor on the output, by which answers of large values
    (logits) are reached in few small steps; scalar: also predict one number per image from the mean token; shading: the
    last layer answers by how the picture is to be changed, see `unshaded`, and the output has the picture's size.
    fine: sub-pixels of the output along each side of a pixel at the stride. deep: pairs of convolutions at stride 8, of
    `broad` channels there, and half as many at stride 4.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        stride: int,
        width: int,
        gain: float = 1.0,
        scalar: bool = False,
        shading: bool = False,
        fine: int = 1,
        deep: int = 0,
        broad: int = 64,
    ) -> None:
        super().__init__()
        self.shading, self.fine = shading, fine
        self.stem2, self.stem4, self.stem8 = _stage(3, 16, 2), _stage(16, 32, 2), _stage(32, 64, 2)
        self.tokens, self.place = nn.Conv2d(dim, 64, 1), nn.Conv2d(4 * WAVES, 64, 1, bias=False)
        last = width if stride == 4 else 48
        self.mix8, self.up4, self.mix4 = _stage(64, broad), nn.Conv2d(broad, 32, 1), _stage(32, last)
        self.deep8 = nn.Sequential(*(Residual(broad) for _ in range(deep)))
        self.deep4 = nn.Sequential(*(Residual(last) for _ in range(deep // 2)))
        self.stride, self.gain = stride, gain
        if stride == 2:
            self.up2, self.side2, self.mix2 = nn.Conv2d(48, 24, 1), nn.Conv2d(16, 24, 1), _stage(24, width)
        self.conv_out = nn.Conv2d(width, out * fine**2, 1)
        self.scalar = nn.Sequential(nn.Linear(dim, 64), nn.SiLU(), nn.Linear(64, 1)) if scalar else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        # Starting near zero, the first steps go into learning and not into undoing a random answer.
        nn.init.normal_(self.conv_out.weight, std=0.01)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, images: Tensor, only: Only = None) -> Tensor:
        """features: [B, D, h, w]; images: [B, 3, H, W] normalised -> [B, out, H / stride * fine, W / stride * fine].

        With shading: [B, 3, H, W]. only: row and column of one sub-pixel; the answers of the others are not computed,
        and the output is [B, out, H / stride, W / stride]. "apart": all sub-pixels, row by row, along an axis,
        [B, out, fine^2, H / stride, W / stride], which spares their shuffling.
        """
        # Channels last: the kernels for few channels are then many times as fast on a CPU.
        two = self.stem2(images.contiguous(memory_format=torch.channels_last))
        four = self.stem4(two)
        eight = self.stem8(four)
        h, w = eight.shape[-2:]
        told = self.place(places(h, w, eight))
        x = self.deep8(self.mix8(eight + told + F.interpolate(self.tokens(features), (h, w), mode="bilinear")))
        x = self.deep4(self.mix4(four + F.interpolate(self.up4(x), four.shape[-2:], mode="bilinear")))
        if self.stride == 2:
            x = self.mix2(self.side2(two) + F.interpolate(self.up2(x), two.shape[-2:], mode="bilinear"))
        out = self._answers(x, only)
        if only == "apart":
            return out.unflatten(1, (-1, self.fine**2))
        if only is None and self.fine > 1:
            out = F.pixel_shuffle(out, self.fine)
        return unshaded(images, out) if self.shading else out

    def _answers(self, x: Tensor, only: Only) -> Tensor:
        """The last layer, for all sub-pixels or for one. A plain product: on one thread of a CPU the convolution of 1 x
        1 pixels copies what it is given and what it gives."""
        weight, bias = self.conv_out.weight.flatten(1), self.conv_out.bias
        assert bias is not None
        if isinstance(only, tuple):
            one = slice(only[0] * self.fine + only[1], None, self.fine**2)
            weight, bias = weight[one], bias[one]
        out = torch.matmul(weight * self.gain, x.flatten(2)) + (bias * self.gain).unsqueeze(-1)
        return out.unflatten(2, x.shape[-2:])

    def scale(self, features: Tensor) -> Tensor:
        """[B, D, h, w] -> [B]."""
        assert self.scalar is not None
        out: Tensor = self.scalar(features.mean((-2, -1)))
        return out.squeeze(-1)
