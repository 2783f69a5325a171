"""KoLeo of the images of several ranks, as one of them: started by test_pretrain_ranks.py, prints a line of JSON."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sapiens2.pretrain import ranks
from sapiens2.pretrain.losses import koleo_over_ranks

IMAGES, VIEWS, DIM, FLOOR = 12, 2, 16, 0.05


def drawn() -> tuple[Tensor, Tensor]:
    """Inputs [IMAGES, VIEWS, DIM] and the weights that make features of them."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(IMAGES, VIEWS, DIM, generator=generator), torch.randn(DIM, DIM, generator=generator)


def loss_and_gradient(group: int) -> tuple[float, list[float], int]:
    """Loss and gradient as the mean over ranks, which is what sharding makes of them; and the collectives."""
    inputs, weights = drawn()
    weights.requires_grad_()
    own = inputs.chunk(ranks.size())[ranks.rank()]
    gather, calls = dist.all_gather, 0

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        return gather(*given, **more)

    dist.all_gather = counted
    try:
        loss = koleo_over_ranks(own @ weights, group, FLOOR)
        loss.backward()
    finally:
        dist.all_gather = gather
    assert weights.grad is not None
    mean = [ranks.all_sum(x) / ranks.size() for x in (loss.detach(), weights.grad)]
    return mean[0].item(), mean[1].flatten().tolist(), calls


def refusal(group: int) -> str:
    """What is said of images that do not fill whole groups."""
    inputs, weights = drawn()
    try:
        koleo_over_ranks(inputs.chunk(ranks.size())[ranks.rank()] @ weights, group, FLOOR)
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    dist.init_process_group("gloo")
    told = {group: loss_and_gradient(group) for group in (2, 3, 4, 6, 12)}
    print(json.dumps(told | {"refused": refusal(5)}))
    dist.destroy_process_group()
