"""The teacher's weights: a running mean of the student's, always in fp32.

In bfloat16 a step of (1 - 0.992) times a small difference rounds to nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, parameter by parameter, in a few fused kernels.

    Sharded models are alike in their shares: each rank moves its own.
    """
    torch._foreach_lerp_(_shares(teacher), _shares(student), 1.0 - momentum)


def _shares(module: nn.Module) -> list[Tensor]:
    return [p.to_local() if isinstance(p, DTensor) else p for p in module.parameters()]


@torch.no_grad()
def copy(teacher: nn.Module, student: nn.Module) -> None:
    """Makes the teacher equal to the student and closes it to gradients."""
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
