"""The projection head: a class token to similarities with K prototypes (DINOv2 and DINOv3's shape)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.model.block import init_linear


class ProjectionHead(nn.Module):
    """Three linear maps with GELU, a unit vector in fp32, and one bias-free map to the prototypes.

    Prototypes are free vectors (DINOv3) or, with `unit_prototypes`, directions (DINOv2).
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int, *, unit_prototypes: bool) -> None:
        super().__init__()
        self.unit_prototypes = unit_prototypes
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Linear(bottleneck, prototypes, bias=False)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Sets every parameter."""
        for module in self.modules():
            init_linear(module, generator)

    def forward(self, cls: Tensor, *, freeze_prototypes: bool = False) -> Tensor:
        """[..., D] -> logits [..., K]. Frozen prototypes pass gradients on but get none."""
        unit = F.normalize(self.mlp(cls).float(), dim=-1)
        weight = self.prototypes.weight.detach() if freeze_prototypes else self.prototypes.weight
        return F.linear(unit, F.normalize(weight.float(), dim=-1) if self.unit_prototypes else weight)
