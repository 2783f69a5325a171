"""The sizes of the backbone: one table (specification 1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SizeName = Literal["nano", "tiny", "0.1b", "0.4b", "0.8b", "1b", "5b"]

FULL_ATTENTION_EDGE = 8  # the first and the last eight layers keep one key and value head per query head


@dataclass(frozen=True)
class Architecture:
    """What a backbone is made of; lengths in pixels or channels.

    Raises ValueError when the heads do not divide the width or RoPE's four groups do not divide a head.
    """

    dim: int
    layers: int
    heads: int
    tokenizer_layers: int = 2
    patch: int = 16
    registers: int = 8
    window: int = 4  # the 4K tokenizer pools window x window patches into one token
    gqa: bool = True
    qk_norm: bool = True
    swiglu: bool = True

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by {self.heads} heads; change one of them")
        if self.head_dim % 4:
            raise ValueError(f"a head has {self.head_dim} channels; RoPE needs a multiple of 4: change dim or heads")
        if self.gqa and self.heads % 2 and self.layers > 2 * FULL_ATTENTION_EDGE:
            raise ValueError(f"{self.heads} heads cannot share keys in pairs; use an even number or gqa=False")

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.dim // self.heads

    @property
    def hidden(self) -> int:
        """Width inside the SwiGLU: the full 4 x dim, not the customary 8/3. A plain MLP of as many weights: 6 x dim."""
        return (4 if self.swiglu else 6) * self.dim

    def kv_heads(self, layer: int) -> int:
        """Key and value heads of a layer (0-based): half of the query heads away from both ends."""
        middle = FULL_ATTENTION_EDGE <= layer < self.layers - FULL_ATTENTION_EDGE
        return self.heads // 2 if self.gqa and middle else self.heads


SIZES: dict[str, Architecture] = {
    "nano": Architecture(dim=192, layers=6, heads=3, patch=8),  # ours: 64 x 48 pixels, for experiments on CPUs
    "tiny": Architecture(dim=192, layers=6, heads=3),  # ours: for CPUs, tests and demonstrations
    "0.1b": Architecture(dim=768, layers=12, heads=12, tokenizer_layers=2),
    "0.4b": Architecture(dim=1024, layers=24, heads=16, tokenizer_layers=2),
    "0.8b": Architecture(dim=1280, layers=32, heads=16, tokenizer_layers=3),
    "1b": Architecture(dim=1536, layers=40, heads=24, tokenizer_layers=4),
    "5b": Architecture(dim=2432, layers=56, heads=32, tokenizer_layers=6),
}


def architecture(size: str | Architecture) -> Architecture:
    """The row of the table, or what is given if it is none of them; raises ValueError with the known names."""
    if isinstance(size, Architecture):
        return size
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; choose one of {', '.join(SIZES)}")
    return SIZES[size]
