"""Two fused kernels for uncompiled inference on a GPU, in Triton: passes over memory that PyTorch makes one by one.

Their slow references are what `block` and `rope` compute elsewhere: `Norm` and `rotate`, and silu(gate) * value. Sums,
norms and products are taken in fp32, and the result is rounded once. Compiled code does without them, and so does
whatever is recorded for a backward pass.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sapiens2.model.rope import RopeRows

try:
    import triton
    import triton.language as tl
except ImportError:  # a platform that has none
    triton = None

COLUMNS = 1024  # of a program of `silu_product`
_LOG = logging.getLogger(__name__)


def usable(x: Tensor) -> bool:
    """Whether the kernels may take x: on a GPU, nothing recorded for a backward pass, nothing compiled or fake."""
    real = x.is_cuda and type(x) is Tensor
    return real and not torch.is_grad_enabled() and not torch.compiler.is_compiling() and _works(x.device)


@cache
def _works(device: torch.device) -> bool:
    """Whether Triton runs there; it needs a C compiler. Tried once, and told where not."""
    if triton is None:
        return False
    try:
        silu_product(torch.zeros(1, 2, device=device))
    except Exception as error:  # whatever a compiler or a driver raises, PyTorch's own kernels do as well
        _LOG.warning("Triton does not run here, inference takes PyTorch's own kernels (slower): %s", error)
        return False
    return True


def norm_rotate(x: Tensor, weight: Tensor, eps: float, rows: RopeRows) -> Tensor:
    """RMSNorm over the channels of each head, then the rotation by position: [B, n, heads, Dh], contiguous again."""
    batch, tokens, heads, width = x.shape
    x, half = x.contiguous(), width // 2
    out = torch.empty_like(x)
    shared = rows.cos.shape[0] == 1 or rows.cos.stride(0) == 0
    cos, sin = (table[:1].contiguous() if shared else table.contiguous() for table in rows)
    sizes: dict[str, Any] = {"HALF": triton.next_power_of_2(half), "HEADS": triton.next_power_of_2(heads)}
    table_rows = 0 if shared else tokens
    with torch.cuda.device_of(x):  # Triton launches on the current device, whichever x is on
        _norm_rotate[(batch * tokens,)](x, weight, cos, sin, out, tokens, table_rows, heads, half, eps, **sizes)
    return out


def silu_product(x: Tensor) -> Tensor:
    """silu of the first half of the channels times the second: [..., 2 h] -> [..., h]."""
    x, width = x.contiguous(), x.shape[-1] // 2
    out = x.new_empty(*x.shape[:-1], width)
    grid = (out.numel() // width, triton.cdiv(width, COLUMNS))
    with torch.cuda.device_of(x):
        _silu_product[grid](x, out, width, COLUMNS=COLUMNS)
    return out


if triton is not None:

    @triton.jit
    def _norm_rotate(  # type: ignore[no-untyped-def]
        x_at,
        weight_at,
        cos_at,
        sin_at,
        out_at,
        tokens,
        table_rows,
        heads,
        half,
        eps,
        HALF: tl.constexpr,
        HEADS: tl.constexpr,
    ):
        """A program per token: all its heads, each as two halves."""
        row = tl.program_id(0).to(tl.int64)
        place = row // tokens * table_rows + row % tokens
        head, channel = tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
        inside = (head < heads) & (channel < half)
        at = (row * heads + head) * (2 * half) + channel
        first = tl.load(x_at + at, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(x_at + at + half, mask=inside, other=0.0).to(tl.float32)
        power = tl.sum(first * first + second * second, axis=1) / (2 * half)
        scale = tl.rsqrt(power + eps)[:, None]
        within = channel < half
        first *= scale * tl.load(weight_at + channel, mask=within, other=0.0).to(tl.float32)
        second *= scale * tl.load(weight_at + channel + half, mask=within, other=0.0).to(tl.float32)
        table = place * (2 * half) + channel
        cos = tl.load(cos_at + table, mask=within, other=0.0).to(tl.float32)
        sin = tl.load(sin_at + table, mask=within, other=0.0).to(tl.float32)  # of the first half, negative
        kind = out_at.dtype.element_ty
        tl.store(out_at + at, (first * cos + second * sin).to(kind), mask=inside)
        tl.store(out_at + at + half, (second * cos - first * sin).to(kind), mask=inside)

    @triton.jit
    def _silu_product(  # type: ignore[no-untyped-def]
        x_at, out_at, width, COLUMNS: tl.constexpr
    ):
        """A program per row and stretch of columns."""
        row = tl.program_id(0).to(tl.int64)
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        inside = column < width
        gate = tl.load(x_at + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(x_at + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
        product = gate * tl.sigmoid(gate) * value
        tl.store(out_at + row * width + column, product.to(out_at.dtype.element_ty), mask=inside)
