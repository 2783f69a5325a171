"""The window tokenizer of the 4K models: 16 patches become one token (specification 1.3).

A learned class token reads each window of 4 x 4 patches through a few small transformer blocks and is what remains of
it, so 4096 x 3072 pixels reach the encoder as the same 64 x 48 tokens as 1024 x 768. Windows never see each other:
running only the visible ones is exact, and that is how masked pretraining runs it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sapiens2.model.block import Block, block_flops, init_normal
from sapiens2.model.sizes import Architecture

WINDOWS_PER_CHUNK = 1024


class WindowTokenizer(nn.Module):
    """Windows of patch tokens to one token each; no RoPE, QK-norm or LayerScale inside, and no final norm."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        dim, heads, patches = architecture.dim, architecture.heads, architecture.window**2
        self.w_cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.local_pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, dim))
        self.blocks = nn.ModuleList(
            Block(dim, heads, heads, architecture.hidden, qk_norm=False, layer_scale=False, swiglu=architecture.swiglu)
            for _ in range(architecture.tokenizer_layers)
        )

    def init_tokens(self, generator: torch.Generator | None) -> None:
        """Initialises the class token and the positions; the linear maps are done by the backbone."""
        init_normal(self.w_cls, generator)
        init_normal(self.local_pos_embed, generator)

    def forward(self, windows: Tensor) -> Tensor:
        """[B, n, patches, D] -> [B, n, D], in chunks that bound the memory; recomputed in the backward pass."""
        chunks = windows.flatten(0, 1).split(WINDOWS_PER_CHUNK)
        keep_little = self.training and torch.is_grad_enabled()
        pooled = [checkpoint(self._pool, c, use_reentrant=False) if keep_little else self._pool(c) for c in chunks]
        return torch.cat(pooled).unflatten(0, windows.shape[:2])

    def _pool(self, windows: Tensor) -> Tensor:
        """[W, patches, D] -> [W, D]; in the last block only the class token asks."""
        x = torch.cat([self.w_cls.expand(len(windows), -1, -1), windows], dim=1) + self.local_pos_embed
        for block in self.blocks[:-1]:
            x = block(x, None)
        return self.blocks[-1](x, None, queries=1)[:, 0]

    def flops(self, windows: int) -> int:
        """FLOPs of a forward pass over `windows` windows, every token computed in every block."""
        tokens = self.local_pos_embed.shape[1]
        return windows * sum(block_flops(block, tokens) for block in self.blocks)
