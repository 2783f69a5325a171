"""Sums over the ranks of a run, not differentiable; a single process is its own sum."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def all_sum(x: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, on each of them."""
    return _reduced(x, dist.ReduceOp.SUM)


def all_max(x: Tensor) -> Tensor:
    """The elementwise maximum over all ranks, on each of them."""
    return _reduced(x, dist.ReduceOp.MAX)


def all_logsumexp(x: Tensor) -> Tensor:
    """log of the sum of exp over the rows of all ranks: [N, K] -> [K]."""
    top = all_max(x.amax(0))
    return top + torch.log(all_sum(torch.exp(x - top).sum(0)))


def _reduced(x: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total, op=operation)
    return total
