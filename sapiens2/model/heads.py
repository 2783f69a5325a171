"""Decoders from the patch grid to pixels, in the released layouts (specification section 2).

Two families: transposed convolutions (pose, segmentation) and pixel shuffle (normal, pointmap, albedo). Every stage
doubles the grid. Parameter names are those of the released checkpoints, so their files load strictly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE_GRID = (8, 6)
"""Rows and columns that the released scale branch is built for: 1024 x 768 pixels, stride 16, halved three times."""


class PixelNorm(nn.Module):
    """RMSNorm over the channels of each pixel, with a gain: the albedo head's norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        out: Tensor = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return out


def _norm(channels: int, per_pixel: bool) -> nn.Module:
    return PixelNorm(channels) if per_pixel else nn.InstanceNorm2d(channels)


def _convs(channels: int, outs: Sequence[int], kernel: int, per_pixel: bool = False) -> tuple[nn.Sequential, int]:
    """Convolution, norm, SiLU for each width in `outs`."""
    layers: list[nn.Module] = []
    for out in outs:
        layers += [nn.Conv2d(channels, out, kernel, padding=kernel // 2), _norm(out, per_pixel), nn.SiLU()]
        channels = out
    return nn.Sequential(*layers), channels


def init_head(head: nn.Module, transposed: bool) -> None:
    """Kaiming initialisation as in the release; ConvTranspose2d keeps PyTorch's own unless `transposed`."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d) or (transposed and isinstance(module, nn.ConvTranspose2d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class DeconvHead(nn.Module):
    """Transposed convolutions, then 1 x 1 convolutions: pose heatmaps or class logits.

    name: "pose" or "seg", the suffix of the last layer's parameters.
    """

    def __init__(self, dim: int, ups: Sequence[int], convs: Sequence[int], out: int, name: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = dim
        for up in ups:
            layers += [nn.ConvTranspose2d(channels, up, 4, 2, 1, bias=False), nn.InstanceNorm2d(up), nn.SiLU()]
            channels = up
        self.deconv_layers = nn.Sequential(*layers)
        self.conv_layers, channels = _convs(channels, convs, 1)
        self.last = f"conv_{name}"
        self.add_module(self.last, nn.Conv2d(channels, out, 1))
        init_head(self, transposed=name == "pose")

    def forward(self, features: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, out, h * 2^stages, w * 2^stages]."""
        out: Tensor = self.get_submodule(self.last)(self.conv_layers(self.deconv_layers(features)))
        return out


class ShuffleHead(nn.Module):
    """3 x 3 convolutions with pixel shuffle: normals, albedo, and the map of the pointmap head.

    name: "normal", "albedo" or "pointmap"; albedo has the per-pixel norm.
    """

    def __init__(self, dim: int, ups: Sequence[int], convs: Sequence[int], name: str) -> None:
        super().__init__()
        per_pixel = name == "albedo"
        self.input_conv = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), _norm(dim, per_pixel), nn.SiLU())
        blocks, channels = [], dim
        for up in ups:
            conv = nn.Conv2d(channels, 4 * up, 3, padding=1)
            blocks.append(nn.Sequential(conv, nn.PixelShuffle(2), _norm(up, per_pixel), nn.SiLU()))
            channels = up
        self.upsample_blocks = nn.ModuleList(blocks)
        self.conv_layers, channels = _convs(channels, convs, 3, per_pixel)
        self.last = f"conv_{name}"
        self.add_module(self.last, nn.Conv2d(channels, 3, 1))
        init_head(self, transposed=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, 3, h * 2^stages, w * 2^stages], no activation."""
        x = self.input_conv(features)
        for block in self.upsample_blocks:
            x = block(x)
        out: Tensor = self.get_submodule(self.last)(self.conv_layers(x))
        return out


class PointmapHead(ShuffleHead):
    """Canonical points and the scale that turns them into metres: X, Y, Z = points / scale (release convention).

    scale_convs: widths of the 1 x 1 stride 2 convolutions; scale_hidden: widths of the MLP. `pooled` averages the grid
    instead of flattening it, so that any input size works; the released heads flatten and take 1024 x 768 only.
    """

    def __init__(
        self,
        dim: int,
        ups: Sequence[int],
        convs: Sequence[int],
        scale_convs: Sequence[int],
        scale_hidden: Sequence[int],
        pooled: bool,
    ) -> None:
        super().__init__(dim, ups, convs, "pointmap")
        self.pooled = pooled
        layers: list[nn.Module] = []
        channels = dim
        for out in scale_convs:
            # A 1 x 1 map has no spread: an instance norm would erase it, so pooled heads do without.
            norm: list[nn.Module] = [nn.Identity()] if pooled else [nn.InstanceNorm2d(out)]
            layers += [nn.Conv2d(channels, out, 1, stride=1 if pooled else 2), *norm, nn.SiLU()]
            channels = out
        self.scale_conv_layers = nn.Sequential(*layers)
        width = channels if pooled else channels * SCALE_GRID[0] * SCALE_GRID[1]
        final: list[nn.Module] = [nn.Flatten()]
        for out in scale_hidden:
            final += [nn.Linear(width, out), nn.SiLU()]
            width = out
        self.scale_final_layer = nn.Sequential(*final, nn.Linear(width, 1))
        init_head(self, transposed=False)

    def scale(self, features: Tensor) -> Tensor:
        """[B, D, h, w] -> [B]; raises ValueError for a grid that a released head was not built for."""
        if not self.pooled and features.shape[-2:] != (SCALE_GRID[0] * 8, SCALE_GRID[1] * 8):
            raise ValueError(
                f"the released pointmap head needs 1024 x 768 pixels (a grid of 64 x 48), not a grid of "
                f"{features.shape[-2]} x {features.shape[-1]}: letterbox the image to 1024 x 768"
            )
        x = self.scale_conv_layers(features)
        if self.pooled:
            x = F.adaptive_avg_pool2d(x, 1)
        out: Tensor = self.scale_final_layer(x)
        return out.squeeze(-1)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def flops(head: nn.Module, dim: int, height: int, width: int) -> int:
    """FLOPs (2 per multiply-accumulate) of a head on a [1, dim, height, width] map, counted by its convolutions."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        pixels = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
        total += 2 * module.weight.numel() * pixels.shape[-1] * pixels.shape[-2]  # type: ignore[operator]

    handles = [m.register_forward_hook(count) for m in head.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    with torch.no_grad():
        device = next(head.parameters()).device
        head(torch.empty(1, dim, height, width, device=device))
    for handle in handles:
        handle.remove()
    return total
