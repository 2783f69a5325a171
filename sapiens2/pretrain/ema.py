"""The teacher's weights: a running mean of the student's, always in fp32.

In bfloat16 a step of (1 - 0.992) times a small difference rounds to nothing.
"""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, parameter by parameter, in a few fused kernels."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1.0 - momentum)


@torch.no_grad()
def copy(teacher: nn.Module, student: nn.Module) -> None:
    """Makes the teacher equal to the student and closes it to gradients."""
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
