"""The decoder of the masked reconstruction: visible tokens in, pixels of the hidden ones out.

A small transformer over the whole grid. The class token comes along, the registers stay behind; a fixed sine-cosine
code says where every token is, or rotation as in the encoder (specification 8.2, training notes B 11 and 12).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sapiens2.model.block import NORM_EPS, Block, Norm, block_flops, init_linear, init_normal
from sapiens2.model.rope import RopeRows, RopeTables

SINE_BASE = 10000.0


class MaskedDecoder(nn.Module):
    """Predicts `pixels` values for each hidden token."""

    def __init__(
        self, encoder_dim: int, dim: int, layers: int, heads: int, pixels: int, *, position: str = "sine"
    ) -> None:
        super().__init__()
        self.rope = RopeTables(dim // heads, "float32") if position == "rope" else None
        hidden = (8 * dim // 3 + 7) // 8 * 8  # a SwiGLU with the cost of a plain MLP four times as wide as the stream
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, heads, hidden, layer_scale=False) for _ in range(layers))
        self.norm = Norm(dim, eps=NORM_EPS)
        self.predict = nn.Linear(dim, pixels)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Sets every parameter."""
        for module in self.modules():
            init_linear(module, generator)
        with torch.no_grad():
            init_normal(self.mask_token, generator)

    def forward(self, cls: Tensor, visible: Tensor, kept: Tensor, masked: Tensor, grid: tuple[int, int]) -> Tensor:
        """cls [B, D], visible [B, n, D] at indices kept [B, n]; masked [B, m] -> predictions [B, m, pixels]."""
        x = self.fill(visible, kept, grid)
        x, rows = torch.cat([self.embed(cls[:, None]), x], dim=1), self._rows(grid, x.device)
        for block in self.blocks:
            x = block(x, rows)
        hidden = take(x[:, 1:], masked)  # before the last map: it would be wasted on the visible ones
        return self.predict(self.norm(hidden))

    def _rows(self, grid: tuple[int, int], device: torch.device) -> RopeRows | None:
        return None if self.rope is None else self.rope.rows(*grid, device).with_prefix(1)

    def fill(self, visible: Tensor, kept: Tensor, grid: tuple[int, int]) -> Tensor:
        """The whole grid in order: visible tokens at their places, mask token elsewhere, with the sine-cosine code."""
        x = self.embed(visible)
        full = self.mask_token.to(x.dtype).expand(len(x), grid[0] * grid[1], -1)
        full = full.scatter(1, kept[..., None].expand_as(x), x)
        return full if self.rope is not None else full + sine_cosine(grid, x.shape[-1], x.device).to(x.dtype)

    def flops(self, visible: int, tokens: int) -> int:
        """FLOPs of a forward pass over one view."""
        ends = (visible + 1) * self.embed.weight.numel() + (tokens - visible) * self.predict.weight.numel()
        return 2 * ends + sum(block_flops(block, tokens + 1) for block in self.blocks)


def take(x: Tensor, indices: Tensor) -> Tensor:
    """The tokens at `indices` [B, n] of x [B, N, ...] -> [B, n, ...]."""
    index = indices.reshape(*indices.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return x.gather(1, index)


def complement(kept: Tensor, tokens: int) -> Tensor:
    """The indices that are not kept, ascending: [B, n] -> [B, tokens - n]."""
    hidden = torch.ones(len(kept), tokens, dtype=torch.int8, device=kept.device).scatter(1, kept, 0)
    return hidden.argsort(dim=1, descending=True, stable=True)[:, : tokens - kept.shape[1]]


def sine_cosine(grid: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    """Fixed positions of a grid, [h * w, dim]: a quarter each for sine and cosine of row and column."""
    rates = SINE_BASE ** (-torch.arange(dim // 4, device=device) / (dim // 4))
    rows, columns = (torch.arange(size, device=device)[:, None] * rates for size in grid)  # [h, dim / 4], [w, dim / 4]
    rows = rows[:, None].expand(-1, grid[1], -1).flatten(0, 1)
    columns = columns[None].expand(grid[0], -1, -1).flatten(0, 1)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=1)
