"""How hard each term of the loss pulls: the norm of its own gradient, measured beside the training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

Losses = Mapping[str, Tensor]


def term_norms(
    objective: nn.Module,
    trained: Sequence[nn.Parameter],
    losses_of: Callable[[dict[str, Tensor]], Losses],
    parts: Sequence[dict[str, Tensor]],
    weights: Mapping[str, float],
) -> dict[str, Tensor]:
    """The gradient norm over all trained parameters of each weighted term, over the micro-batches of a step.

    One forward and backward pass per term. Gradients are left empty, buffers and random numbers as they were, so the
    step that follows is the same to the last bit. Collective over the ranks.
    """
    found = {}
    for name, weight in weights.items():
        with _untouched(objective):
            for part in parts:
                losses = losses_of(part)
                if name not in losses:
                    break
                (weight * losses[name] / len(parts)).backward()
            else:
                norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
                found[f"grad_norm_{name}"] = norm.full_tensor() if isinstance(norm, DTensor) else norm
            for parameter in trained:
                parameter.grad = None
    return found


@contextmanager
def _untouched(objective: nn.Module) -> Iterator[None]:
    """Put back what a forward pass leaves behind: what buffers gathered, and the generators' places."""
    before = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    devices = {p.device for p in objective.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        yield
    for buffer, value in before:
        buffer.copy_(value)
