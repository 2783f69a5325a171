"""Axial rotary position embedding over the patch grid (specification 1.4).

Coordinates run over [-1, 1] on each axis whatever the resolution, so one set of weights serves every image size. The
released weights were trained with everything in bfloat16: table, and q and k while they are rotated. `dtype` chooses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

BASE = 100.0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CACHED_GRIDS = 16


class RopeRows(NamedTuple):
    """The table's rows for a sequence of tokens; the first axis is 1 when all images share them."""

    cos: Tensor  # [1 or B, n, head_dim]
    sin: Tensor  # [1 or B, n, head_dim]; negative in the first half, which meets the channels' second half

    def gather(self, kept: Tensor) -> RopeRows:
        """The rows of the kept tokens of each image; kept: int64 [B, n]."""
        return RopeRows(self.cos[0][kept], self.sin[0][kept])

    def expand(self, batch: int) -> RopeRows:
        """The same rows for every image of a batch."""
        return RopeRows(self.cos.expand(batch, -1, -1), self.sin.expand(batch, -1, -1))

    def with_prefix(self, count: int) -> RopeRows:
        """`count` rows in front that rotate by nothing: the class token and the registers have no place."""
        ones = self.cos.new_ones(self.cos.shape[0], count, self.cos.shape[2])
        return RopeRows(torch.cat([ones, self.cos], 1), torch.cat([torch.zeros_like(ones), self.sin], 1))

    def first(self, count: int | None) -> RopeRows:
        """The rows of the first `count` tokens; all of them for None."""
        return self if count is None else RopeRows(self.cos[:, :count], self.sin[:, :count])


def concatenate(parts: list[RopeRows]) -> RopeRows:
    """Rows of several groups of images with equally many tokens, one after the other along the batch."""
    return RopeRows(torch.cat([part.cos for part in parts]), torch.cat([part.sin for part in parts]))


def periods(head_dim: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """The head_dim / 4 periods 100^(2i / (head_dim / 2)), rounded as `dtype` does."""
    steps = torch.arange(head_dim // 4, dtype=dtype, device=device)
    return BASE ** (2 * steps / (head_dim // 2))


def compute_rows(height: int, width: int, head_dim: int, dtype: torch.dtype, device: torch.device | str) -> RopeRows:
    """The table of a grid of height x width tokens, row-major; every operation is carried out in `dtype`.

    Along a head: row frequencies, column frequencies, and both once more, as the half-split rotation pairs d, d + Dh/2.
    """
    axes = [_coordinates(size, dtype, device) for size in (height, width)]
    y, x = torch.meshgrid(*axes, indexing="ij")
    coordinates = torch.stack([y.flatten(), x.flatten()], dim=1)  # [N, 2]
    angles = 2 * math.pi * coordinates[:, :, None] / periods(head_dim, dtype, device)  # [N, 2, Dh / 4]
    angles = angles.flatten(1)[None]  # [1, N, Dh / 2]
    cos, sin = angles.cos(), angles.sin()
    return RopeRows(cos.tile(2), torch.cat([-sin, sin], dim=-1))


def _coordinates(size: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Centres of `size` cells over [-1, 1]."""
    centres = (torch.arange(size, device=device) + 0.5).to(dtype)
    return 2.0 * (centres / size) - 1.0


def rotate(x: Tensor, rows: RopeRows) -> Tensor:
    """Rotates q or k by position, in the table's dtype; x: [B, heads, n, head_dim], whose layout in memory is kept.

    The halves are swapped by a flip, which compiles to plain loads; the customary cat of -second and first does not.
    Where nothing is recorded for a backward pass, nor compiled, they are rotated in place, without a turned copy of x:
    7 passes over its memory instead of 10. The result is the same to the last bit.
    """
    cos, sin = rows.cos.unsqueeze(1), rows.sin.unsqueeze(1)
    x = x.to(cos.dtype)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x * cos + x.unflatten(-1, (2, -1)).flip(-2).flatten(-2) * sin
    first, second = x.chunk(2, dim=-1)
    turned, half = x * cos, first.shape[-1]
    turned[..., :half] += second * sin[..., :half]
    turned[..., half:] += first * sin[..., half:]
    return turned


def plain_inference(x: Tensor) -> bool:
    """Whether a CPU computes x eagerly and keeps nothing: there every pass over memory counts, and none is fused."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


class RopeTables:
    """Tables by grid and device, computed once each; not a module, as nothing here is learned or saved."""

    def __init__(self, head_dim: int, dtype: str) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"rope_dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
        self.head_dim = head_dim
        self.dtype = dtype
        self._tables: dict[tuple[int, int, str], RopeRows] = {}

    def rows(self, height: int, width: int, device: torch.device) -> RopeRows:
        """The rows of a grid of height x width tokens, [1, height * width, head_dim]."""
        key = (height, width, str(device))
        if key not in self._tables:
            if len(self._tables) >= CACHED_GRIDS:
                self._tables.pop(next(iter(self._tables)))
            # A table made under inference_mode could not be used by a later training step.
            with torch.inference_mode(False), torch.no_grad():
                self._tables[key] = compute_rows(height, width, self.head_dim, DTYPES[self.dtype], device)
        return self._tables[key]
