"""Low-rank adaptation (LoRA, arXiv 2106.09685): W x + (alpha / rank) B A x, with W frozen and B zero at the start.

The adapted layers keep the names of their weights, so that files load before and after; merging gives plain weights
back, which is what is published.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sapiens2.model.foreign import ForeignBackbone

TARGETS = ("wq", "wk", "wv", "proj", "w12", "w3")
"""Names of the linear maps of our blocks: attention and SwiGLU."""
DOWN, UP = "lora_down", "lora_up"


class LoraLinear(nn.Module):
    """A frozen linear map with a trained correction of low rank; takes over the parameters of `linear`."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        # Not by its name, which ForeignLoraLinear gives to another matrix.
        self._parameters["weight"] = linear.get_parameter("weight")
        self.bias, self.gain = linear.bias, alpha / rank
        place, dtype = linear.weight.device, linear.weight.dtype
        self.lora_down = nn.Parameter(torch.empty(rank, linear.in_features, device=place, dtype=dtype))
        self.lora_up = nn.Parameter(torch.zeros(linear.out_features, rank, device=place, dtype=dtype))
        if not self.lora_down.is_meta:
            nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        correction = F.linear(F.linear(x, self.lora_down), self.lora_up)
        return F.linear(x, self._parameters["weight"], self.bias) + self.gain * correction  # type: ignore[arg-type]


class ForeignLoraLinear(LoraLinear):
    """The same where a network may take `weight` and multiply by itself, as timm's EVA, BEiT and Swin v2 do."""

    @property
    def weight(self) -> Tensor:
        """[out, in] with its correction; the frozen matrix keeps this name in files.

        A shard of the frozen matrix is given as it is: FSDP looks for it here, and puts the whole one here for a pass.
        """
        frozen = self._parameters["weight"]
        if isinstance(frozen, DTensor):
            return frozen
        return frozen + self.gain * (self.lora_up @ self.lora_down)  # type: ignore[operator]


def add_lora(model: nn.Module, rank: int, alpha: float) -> int:
    """Freeze `model` and give each linear map of its attention and feed-forward layers a trained correction.

    Foreign backbones have other names: there every linear map inside a numbered block is adapted. Returns how many
    were; raises ValueError when there are none or the rank is larger than a map.
    """
    model.requires_grad_(False)
    foreign = isinstance(model, ForeignBackbone)
    found = [
        (parent, name, child)
        for prefix, parent in model.named_modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and (_in_block(f"{prefix}.{name}") if foreign else name in TARGETS)
    ]
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear maps in its blocks for LoRA to adapt: set lora_rank=0")
    for parent, name, linear in found:
        if rank > min(linear.in_features, linear.out_features):
            raise ValueError(
                f"lora_rank={rank} is more than {name} has ({linear.in_features} to {linear.out_features}): lower it"
            )
        setattr(parent, name, (ForeignLoraLinear if foreign else LoraLinear)(linear, rank, alpha))
    return len(found)


def _in_block(path: str) -> bool:
    return any(part.isdigit() for part in path.split("."))


def merged(
    model: nn.Module, state: dict[str, Tensor], whole: Callable[[Tensor], Tensor] = lambda t: t
) -> dict[str, Tensor]:
    """`state`, the model's, with every correction added to its weight and its own two matrices gone.

    whole: makes a sharded tensor full.
    """
    out = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            prefix = f"{name}." if name else ""
            down, up = (whole(out.pop(prefix + part)).float() for part in (DOWN, UP))
            weight = whole(out[f"{prefix}weight"])
            out[f"{prefix}weight"] = (weight.float() + module.gain * (up @ down)).to(weight.dtype)
    return out
