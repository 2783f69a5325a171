"""The Sapiens2 backbone: a plain vision transformer over 16 x 16 patches, for images of any size.

patches -> [4K: one token per window] -> [class token, 8 registers, patches] -> blocks -> RMSNorm (specification 1.2)

`forward` is the whole network. Pretraining calls its three parts (`patchify`, `embed`, `encode`) itself, to drop masked
tokens before the encoder and to run crops of several sizes as one batch. Parameters bear the released names, so that
`ln1` is the final norm. The module knows nothing of sharding, checkpointing or compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.model.block import NORM_EPS, Block, block_flops, init_linear, init_normal
from sapiens2.model.rope import RopeRows, RopeTables
from sapiens2.model.sizes import Architecture, architecture
from sapiens2.model.tokenizer import WindowTokenizer


class Features(NamedTuple):
    """What the backbone sees in a batch of images."""

    cls: Tensor  # [B, D], after the final norm
    registers: Tensor  # [B, 8, D], after the final norm
    patches: Tensor  # [B, D, h, w], after the final norm
    taps: tuple[Tensor, ...]  # [B, D, h, w] after the blocks asked for; only the last block's is normed


class PatchEmbed(nn.Module):
    """The linear map of a patch, kept as the convolution that the released weights hold."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)

    def forward(self, patches: Tensor) -> Tensor:
        """[..., 3 * patch * patch] -> [..., D]."""
        return F.linear(patches, self.projection.weight.flatten(1), self.projection.bias)


class Backbone(nn.Module):
    """The encoder. `rope_dtype` is part of the weights' meaning: released ones need bfloat16 (specification 1.4).

    `narrow`: under autocast, keep the residual stream in autocast's dtype instead of fp32.
    """

    narrow = False

    def __init__(
        self, architecture: Architecture, *, window_tokenizer: bool = False, rope_dtype: str = "float32"
    ) -> None:
        super().__init__()
        arch = self.architecture = architecture
        self.patch_embed = PatchEmbed(arch.dim, arch.patch)
        self.tokenizer = WindowTokenizer(arch) if window_tokenizer else None
        self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.dim))
        self.storage_tokens = nn.Parameter(torch.zeros(1, arch.registers, arch.dim))
        self.rope = RopeTables(arch.head_dim, rope_dtype)
        self.blocks = nn.ModuleList(
            Block(arch.dim, arch.heads, arch.kv_heads(i), arch.hidden, qk_norm=arch.qk_norm, swiglu=arch.swiglu)
            for i in range(arch.layers)
        )
        self.ln1 = nn.RMSNorm(arch.dim, eps=NORM_EPS)
        if not self.cls_token.is_meta:
            self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Sets every parameter; call it after `to_empty` when the module was built on the meta device."""
        for module in self.modules():
            init_linear(module, generator)
        init_normal(self.cls_token, generator)
        init_normal(self.storage_tokens, generator)
        if self.tokenizer is not None:
            self.tokenizer.init_tokens(generator)

    @property
    def prefix(self) -> int:
        """Tokens in front of the patches: the class token and the registers."""
        return 1 + self.architecture.registers

    @property
    def stride(self) -> int:
        """Pixels per token along one axis: 16, or 64 with the window tokenizer."""
        return self.architecture.patch * (self.architecture.window if self.tokenizer is not None else 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of an image; raises ValueError when the size does not divide."""
        if height <= 0 or width <= 0 or height % self.stride or width % self.stride:
            near = [max(1, round(size / self.stride)) * self.stride for size in (height, width)]
            raise ValueError(
                f"an image of {height} x {width} pixels does not divide into tokens of {self.stride} pixels; "
                f"resize or pad it, for instance to {near[0]} x {near[1]}"
            )
        return height // self.stride, width // self.stride

    def forward(self, images: Tensor, *, taps: Sequence[int] = ()) -> Features:
        """images: [B, 3, H, W] normalised -> Features; `taps` are block indices, negative ones count from the end."""
        h, w = self.grid(*images.shape[-2:])
        tokens = self.embed(self.patchify(images))
        hidden, tapped = self.encode(tokens, self.rope.rows(h, w, images.device), taps=taps)
        x = self.ln1(hidden)
        last = len(self.blocks) - 1
        maps = tuple(self._map(x if i % len(self.blocks) == last else tapped[i % len(self.blocks)], h, w) for i in taps)
        return Features(x[:, 0], x[:, 1 : self.prefix], self._map(x, h, w), maps)

    def patchify(self, images: Tensor) -> Tensor:
        """Pixels by token, row-major: [B, 3, H, W] -> [B, N, 3 * 16 * 16], or [B, N, 16 patches, 768] by window."""
        patches = patchify(images, self.architecture.patch)
        if self.tokenizer is None:
            return patches
        h, w = self.grid(*images.shape[-2:])
        k = self.architecture.window
        windows = patches.unflatten(1, (h, k, w, k)).transpose(2, 3)  # [B, h, w, k, k, pixels]
        return windows.flatten(3, 4).flatten(1, 2)

    def embed(self, patches: Tensor) -> Tensor:
        """What `patchify` gave, or any of its tokens, to [B, n, D]."""
        x = self.patch_embed(patches)
        return x if self.tokenizer is None else self.tokenizer(x)

    def encode(
        self, tokens: Tensor, rows: RopeRows, *, taps: Sequence[int] = (), class_only: bool = False
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The blocks, before the final norm: tokens [B, n, D] -> ([B, 9 + n, D], hidden states by block index).

        `rows` are the tokens' places. With `class_only` the last block computes nothing else and the result is
        [B, 1, D]: all that the teacher of the pretraining needs.
        """
        layers = len(self.blocks)
        if any(not -layers <= tap < layers for tap in taps):
            raise ValueError(f"taps {list(taps)} are not all blocks of this backbone; it has {layers}")
        wanted = {tap % layers for tap in taps}
        batch = tokens.shape[0]  # not len(): an exported graph would keep that number
        prefix = [self.cls_token.expand(batch, -1, -1), self.storage_tokens.expand(batch, -1, -1)]
        x, rows = torch.cat([*prefix, tokens], dim=1), rows.with_prefix(self.prefix)
        if self.narrow and torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        tapped: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = block(x, rows, 1 if class_only and index == layers - 1 else None)
            if index in wanted:
                tapped[index] = x
        return x, tapped

    def _map(self, x: Tensor, h: int, w: int) -> Tensor:
        """[B, 9 + h * w, D] -> [B, D, h, w]."""
        return x[:, self.prefix :].transpose(1, 2).unflatten(2, (h, w))

    def flops(self, height: int, width: int) -> int:
        """FLOPs of a forward pass over one image: 2 per multiply-accumulate, attention included."""
        h, w = self.grid(height, width)
        patches = (height // self.architecture.patch) * (width // self.architecture.patch)
        total = 2 * patches * self.patch_embed.projection.weight.numel()
        if self.tokenizer is not None:
            total += self.tokenizer.flops(h * w)
        return total + sum(block_flops(block, self.prefix + h * w) for block in self.blocks)


def patchify(images: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] -> [B, (H / patch) * (W / patch), C * patch * patch], tokens row-major, channels first inside."""
    b, c, height, width = images.shape
    x = images.reshape(b, c, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch * patch)


def unpatchify(patches: Tensor, h: int, w: int, patch: int) -> Tensor:
    """The inverse of `patchify`: [B, h * w, C * patch * patch] -> [B, C, h * patch, w * patch]."""
    x = patches.unflatten(2, (-1, patch, patch)).unflatten(1, (h, w))  # [B, h, w, C, p, p]
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def build_backbone(
    size: str | Architecture, *, window_tokenizer: bool = False, rope_dtype: str = "float32"
) -> Backbone:
    """A freshly initialised backbone on the default device.

    size: "nano", "tiny", "0.1b", "0.4b", "0.8b", "1b", "5b", or an architecture of your own. Under
    `torch.device("meta")` nothing is allocated: follow with `to_empty` and `init_weights` or `load_weights`. Raises
    ValueError for an unknown size or RoPE dtype.
    """
    device = torch.get_default_device()
    with torch.device("meta"):  # so that torch's own initialisation, soon overwritten, costs nothing
        model = Backbone(architecture(size), window_tokenizer=window_tokenizer, rope_dtype=rope_dtype)
    if device.type != "meta":
        model.to_empty(device=device)
        model.init_weights()
    return model
