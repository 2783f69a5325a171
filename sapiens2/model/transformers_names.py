"""The same weights under the names of the `transformers` port, which keeps the two halves of the SwiGLU apart."""

from __future__ import annotations

import re

import torch
from torch import Tensor

# Ours to theirs, outside and inside a block. `ffn.w12` has no single counterpart.
_OUTER = {
    "cls_token": "embeddings.cls_token",
    "storage_tokens": "embeddings.register_tokens",
    "patch_embed.projection.weight": "embeddings.patch_embeddings.weight",
    "patch_embed.projection.bias": "embeddings.patch_embeddings.bias",
    "ln1.weight": "norm.weight",
}
_INNER = {
    "ln1.weight": "norm1.weight",
    "ln2.weight": "norm2.weight",
    "attn.q_norm.weight": "attention.q_norm.weight",
    "attn.k_norm.weight": "attention.k_norm.weight",
    "attn.gamma.weight": "layer_scale1.lambda1",
    **{
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in (
            ("attn.wq", "attention.q_proj"),
            ("attn.wk", "attention.k_proj"),
            ("attn.wv", "attention.v_proj"),
            ("attn.proj", "attention.o_proj"),
            ("ffn.w3", "mlp.down_proj"),
        )
        for kind in ("weight", "bias")
    },
}
_HALVES = ("mlp.gate_proj", "mlp.up_proj")  # the first and the second half of ffn.w12
_OUTER_BACK = {theirs: ours for ours, theirs in _OUTER.items()}
_INNER_BACK = {theirs: ours for ours, theirs in _INNER.items()}


def is_transformers(state: dict[str, Tensor]) -> bool:
    """Whether a state dict bears the port's names."""
    return "embeddings.cls_token" in state


def to_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's state dict under the port's names; raises ValueError for a part that the port does not have."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if name in _OUTER:
            out[_OUTER[name]] = tensor
        elif block and block[2] in _INNER:
            out[f"model.layer.{block[1]}.{_INNER[block[2]]}"] = tensor
        elif block and block[2].startswith("ffn.w12."):
            kind = block[2].removeprefix("ffn.w12.")
            for half, part in zip(_HALVES, tensor.chunk(2)):
                out[f"model.layer.{block[1]}.{half}.{kind}"] = part.contiguous()
        elif name != "rope_embed.periods":
            raise ValueError(f"{name} has no place in the transformers port (it has no window tokenizer)")
    return out


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse; names that are not the port's stay as they are, for the loader to complain about."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = re.fullmatch(r"model\.layer\.(\d+)\.(.+)", name)
        half, _, kind = (block[2] if block else "").rpartition(".")
        if name in _OUTER_BACK:
            out[_OUTER_BACK[name]] = tensor
        elif block and block[2] in _INNER_BACK:
            out[f"blocks.{block[1]}.{_INNER_BACK[block[2]]}"] = tensor
        elif block and half in _HALVES:
            other = state.get(f"model.layer.{block[1]}.{_HALVES[1]}.{kind}")
            if half == _HALVES[0] and other is not None:
                out[f"blocks.{block[1]}.ffn.w12.{kind}"] = torch.cat([tensor, other])
        else:
            out[name] = tensor
    return out
