"""What the ranks of a run have together; a single process is all there is."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's place among the ranks."""
    return dist.get_rank() if _joined() else 0


def size() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if _joined() else 1


def gathered(x: Tensor) -> Tensor:
    """The rows of all ranks, in order of rank: [N, ...] -> [size * N, ...], N alike on all ranks.

    A gradient reaches this rank's own rows only; nothing travels in the backward pass.
    """
    if size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(size())]
    dist.all_gather(parts, x.detach().contiguous())
    parts[rank()] = x
    return torch.cat(parts)


def all_sum(x: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, on each of them; not differentiable, nor are the next two."""
    return _reduced(x, dist.ReduceOp.SUM)


def all_max(x: Tensor) -> Tensor:
    """The elementwise maximum over all ranks, on each of them."""
    return _reduced(x, dist.ReduceOp.MAX)


def all_logsumexp(x: Tensor) -> Tensor:
    """log of the sum of exp over the rows of all ranks: [N, K] -> [K]."""
    top = all_max(x.amax(0))
    return top + torch.log(all_sum(torch.exp(x - top).sum(0)))


def _reduced(x: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if size() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total, op=operation)
    return total


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
