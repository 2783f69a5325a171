"""The encoder written once more, slowly and plainly, from the specification: the reference of the fast paths."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sapiens2.model.backbone import Backbone


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Makes every parameter count: gains, biases and LayerScale away from 1 and 0, so that no mistake hides."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = any(part in name for part in ("ln1", "ln2", "norm", "gamma"))
        scale = 0.3 if parameter.ndim < 2 or "token" in name or "w_cls" in name else parameter[0].numel() ** -0.5
        with torch.no_grad():
            parameter.copy_(noise * scale + (1.0 if gain else 0.0))


def angles(height: int, width: int, head_dim: int) -> Tensor:
    """Rotation angles [height * width, head_dim / 2], in double precision: row frequencies, then column ones."""
    out = torch.empty(height * width, head_dim // 2, dtype=torch.float64)
    quarter = head_dim // 4
    for row in range(height):
        for column in range(width):
            for i in range(quarter):
                period = 100.0 ** (2 * i / (head_dim / 2))
                out[row * width + column, i] = 2 * math.pi * (2 * (row + 0.5) / height - 1) / period
                out[row * width + column, quarter + i] = 2 * math.pi * (2 * (column + 0.5) / width - 1) / period
    return out


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain


def turn(x: Tensor, theta: Tensor) -> Tensor:
    """Rotates dimension d with d + half as a complex number; x [heads, n, head_dim], theta [n, head_dim / 2]."""
    half = x.shape[-1] // 2
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(theta), theta)
    return torch.cat([z.real, z.imag], -1)


def encode(backbone: Backbone, tokens: Tensor, grid: tuple[int, int], seen: Tensor) -> Tensor:
    """One image: tokens [N, D] of the whole grid, of which keys and values show only `seen` (bool [N]); double.

    Returns the normed sequence [9 + N, D].
    """
    x = torch.cat([backbone.cls_token[0], backbone.storage_tokens[0], tokens]).double()
    prefix = backbone.prefix
    theta = torch.cat(
        [torch.zeros(prefix, backbone.architecture.head_dim // 2), angles(*grid, backbone.architecture.head_dim)]
    )
    shown = torch.cat([torch.ones(prefix, dtype=torch.bool), seen])
    for index, block in enumerate(backbone.blocks):
        weights = {name: p.double() for name, p in block.named_parameters()}
        x = x + attention(rms(x, weights["ln1.weight"]), weights, backbone, index, theta, shown)
        hidden = rms(x, weights["ln2.weight"]) @ weights["ffn.w12.weight"].T + weights["ffn.w12.bias"]
        gate, value = hidden[:, : hidden.shape[1] // 2], hidden[:, hidden.shape[1] // 2 :]
        x = x + (gate * torch.sigmoid(gate) * value) @ weights["ffn.w3.weight"].T + weights["ffn.w3.bias"]
    return rms(x, backbone.ln1.weight.double())


def attention(
    x: Tensor, weights: dict[str, Tensor], backbone: Backbone, index: int, theta: Tensor, shown: Tensor
) -> Tensor:
    heads, dh = backbone.architecture.heads, backbone.architecture.head_dim
    q, k, v = (x @ weights[f"attn.w{n}.weight"].T + weights[f"attn.w{n}.bias"] for n in "qkv")
    shared = heads // (k.shape[1] // dh)
    out = []
    for head in range(heads):
        own, other = slice(head * dh, head * dh + dh), slice(head // shared * dh, head // shared * dh + dh)
        qh = turn(rms(q[:, own], weights["attn.q_norm.weight"]), theta)
        kh = turn(rms(k[:, other], weights["attn.k_norm.weight"]), theta)
        score = (qh @ kh.T / dh**0.5).masked_fill(~shown, -torch.inf)
        out.append(score.softmax(-1) @ v[:, other])
    return (torch.cat(out, 1) @ weights["attn.proj.weight"].T + weights["attn.proj.bias"]) * weights[
        "attn.gamma.weight"
    ]
