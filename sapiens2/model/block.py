"""The transformer block: pre-norm attention with QK-norm, RoPE and shared key heads, then a SwiGLU.

One class serves the encoder, the 4K tokenizer and the pretraining decoder; they differ by what is switched off. The
parameters bear the released names (specification 1.2 and 1.5).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.model import kernels
from sapiens2.model.rope import RopeRows, plain_inference, rotate

NORM_EPS = 1e-6
LAYER_SCALE_INIT = 1e-4
HALVES = (torch.bfloat16, torch.float16)
KERNEL_MULTIPLE = 8  # channels of a head that flash and cuDNN attention take
SHORT = 128  # tokens up to which a CPU trains faster in 16 bits with the score matrix written out


class Norm(nn.RMSNorm):
    """RMSNorm of a block, in the width of its weight: under autocast, fp32. A narrow one stays in its input's 16 bits.

    A GPU's autocast widens by itself, a CPU's does not, and computes the mixed widths at half the speed. The kernel
    sums in fp32 either way; what narrowness saves is the fp32 copy of the input and a cast for every linear map that
    reads the result.
    """

    narrow = False

    def forward(self, x: Tensor) -> Tensor:
        if not (self.narrow and x.dtype in HALVES):
            return super().forward(x.to(torch.promote_types(x.dtype, self.weight.dtype)))
        with torch.autocast(x.device.type, enabled=False):
            return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class LayerScale(nn.Module):
    """A learned gain per channel, small at the start."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim,), LAYER_SCALE_INIT))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Attention(nn.Module):
    """Multi-head self-attention; with fewer key and value heads, consecutive query heads share one (GQA)."""

    def __init__(self, dim: int, heads: int, kv_heads: int, *, qk_norm: bool, layer_scale: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.wq = nn.Linear(dim, dim)
        self.wk = nn.Linear(dim, kv_heads * self.head_dim)
        self.wv = nn.Linear(dim, kv_heads * self.head_dim)
        self.q_norm = Norm(self.head_dim, eps=NORM_EPS) if qk_norm else nn.Identity()
        self.k_norm = Norm(self.head_dim, eps=NORM_EPS) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)
        self.gamma = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, rows: RopeRows | None, queries: int | None = None) -> Tensor:
        """x: [B, n, D] -> [B, n, D], or [B, queries, D] when only the first tokens ask."""
        q, k, v = self.wq(x[:, :queries]), self.wk(x), self.wv(x)
        q = self._placed(q, self.heads, self.q_norm, None if rows is None else rows.first(queries))
        k = self._placed(k, self.kv_heads, self.k_norm, rows)
        mixed = attend(q, k, v.unflatten(2, (self.kv_heads, -1)).transpose(1, 2))
        return self.gamma(self.proj(mixed.transpose(1, 2).flatten(2)))

    def _placed(self, x: Tensor, heads: int, norm: nn.Module, rows: RopeRows | None) -> Tensor:
        """Queries or keys normed and rotated, in the width that they came in: [B, n, heads * Dh] -> [B, heads, n, Dh].

        In memory they stay token by token, as linear maps leave and take them: nothing is copied around attention.
        """
        x = x.unflatten(2, (heads, self.head_dim))
        if isinstance(norm, Norm) and rows is not None and kernels.usable(x):
            return kernels.norm_rotate(x, norm.weight, norm.eps or NORM_EPS, rows).transpose(1, 2)
        placed = norm(x).transpose(1, 2)
        return (placed if rows is None else rotate(placed, rows)).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention; q: [B, heads, m, Dh], k and v: [B, kv_heads, n, Dh] -> [B, heads, m, Dh].

    In 16 bits the kernels share key heads by themselves. In fp32 that request falls to the slow plain-matrix path
    (23 ms against 7.5 ms for the 1B shape on an H100, pytorch #181528), so there the heads are repeated.
    """
    if q.dtype not in HALVES:
        return attend_repeated(q, k, v)
    if q.is_cuda and q.shape[-1] % KERNEL_MULTIPLE:
        return attend_padded(q, k, v)
    if q.device.type == "cpu" and torch.is_grad_enabled() and k.shape[2] <= SHORT:
        return attend_written(q, k, v)
    return attend_shared(q, k, v)


def attend_repeated(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attend` with a key and value head for every query head; consecutive query heads share one."""
    shared = q.shape[1] // k.shape[1]
    if shared > 1:
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    return F.scaled_dot_product_attention(q, k, v)


def attend_written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attend` as it stands in the textbook, scores and softmax at least in fp32 as the fused kernels have them.

    In 16 bits on one CPU thread, forward and back for 192 sequences of 21 tokens: 12 ms, the fused kernel's 44.
    """
    shared = q.shape[1] // k.shape[1]
    if shared > 1:
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):  # it would narrow the scores again
        scores = (q.to(wide) * q.shape[-1] ** -0.5) @ k.to(wide).transpose(-1, -2)
        return scores.softmax(-1).to(v.dtype) @ v


def attend_shared(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """`attend` with the sharing left to the kernel."""
    return F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=q.shape[1] != k.shape[1])


def attend_padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attend_shared` with heads filled up to a multiple of 8 channels, which all fast CUDA kernels take.

    Zeros add nothing to a score, and what they make of v is cut off again; the scale stays that of the true width. The
    5B heads of 76 channels become 80: 5 % more arithmetic (training notes A.3, 8).
    """
    width = q.shape[-1]
    missing = -width % KERNEL_MULTIPLE
    q, k, v = (F.pad(x, (0, missing)) for x in (q, k, v))
    return attend_shared(q, k, v, scale=width**-0.5)[..., :width]


class SwiGLU(nn.Module):
    """w3(silu(a) * b) where one matrix makes both halves; the first is the gate.

    Both halves come from maps of their own where that is quicker. Inference on a CPU, compiled or not: of half the
    size, they stay in memory that the process already has, and the product needs no further copy (20 % of a small
    network's time). On a GPU: the backward pass need not join their gradients.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        if kernels.usable(x):
            return self.w3(kernels.silu_product(self.w12(x)))
        apart = x.is_cuda or (x.device.type == "cpu" and not torch.is_grad_enabled())
        if not apart or type(self.w12) is not nn.Linear:
            gate, value = self.w12(x).chunk(2, dim=-1)
            return self.w3(F.silu(gate) * value)
        gate, value = (F.linear(x, w, b) for w, b in zip(self.w12.weight.chunk(2), self.w12.bias.chunk(2)))
        return self.w3(F.silu(gate, inplace=True).mul_(value) if plain_inference(x) else F.silu(gate) * value)


class MLP(nn.Module):
    """The plain w2(gelu(w1 x)), for the ablation that takes the gate away."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.gelu(self.w1(x)))


class Block(nn.Module):
    """Attention and SwiGLU, each behind an RMSNorm and added to the residual stream."""

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        hidden: int,
        *,
        qk_norm: bool = True,
        layer_scale: bool = True,
        swiglu: bool = True,
    ) -> None:
        super().__init__()
        self.ln1 = Norm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads, kv_heads, qk_norm=qk_norm, layer_scale=layer_scale)
        self.ln2 = Norm(dim, eps=NORM_EPS)
        self.ffn = (SwiGLU if swiglu else MLP)(dim, hidden)

    def forward(self, x: Tensor, rows: RopeRows | None, queries: int | None = None) -> Tensor:
        """x: [B, n, D] -> [B, n, D]; with `queries`, only the first tokens are computed: [B, queries, D]."""
        x = added(x[:, :queries], self.attn(self.ln1(x), rows, queries))
        return added(x, self.ffn(self.ln2(x)))


def added(stream: Tensor, branch: Tensor) -> Tensor:
    """The residual stream with a branch added: in the stream's own dtype, where that is a narrow one.

    A gain in fp32 widens the branch under autocast; the sum must not widen the stream with it.
    """
    return stream + (branch.to(stream.dtype) if stream.dtype in HALVES else branch)


def init_linear(module: nn.Module, generator: torch.Generator | None) -> None:
    """Initialises a norm, a gain or a linear map: ones, 1e-4, or a normal of std 0.02 with a zero bias."""
    if isinstance(module, nn.RMSNorm):
        nn.init.ones_(module.weight)
    elif isinstance(module, LayerScale):
        nn.init.constant_(module.weight, LAYER_SCALE_INIT)
    elif isinstance(module, nn.Linear | nn.Conv2d):
        init_normal(module.weight, generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_normal(parameter: Tensor, generator: torch.Generator | None) -> None:
    """Normal with std 0.02; the published cut at +-2 lies a hundred deviations out and does nothing."""
    nn.init.normal_(parameter, std=0.02, generator=generator)


def block_flops(block: nn.Module, tokens: int) -> int:
    """FLOPs of a block's forward pass over one sequence: 2 per multiply-accumulate, attention included."""
    macs = 0
    for module in block.modules():
        if isinstance(module, nn.Linear):
            macs += tokens * module.weight.numel()
        elif isinstance(module, Attention):
            macs += 2 * tokens**2 * module.heads * module.head_dim  # q k^T, and the weighted sum of v
    return 2 * macs
