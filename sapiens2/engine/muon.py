"""Muon: hidden matrices move by their momentum with all its directions made equally long, the rest by AdamW.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon); that a matrix moves as far as AdamW would move it, at
the same rate and decay, is of Liu et al. 2025 (arXiv 2502.16982). torch.optim.Muon takes no convolutions and computes
in bfloat16, which is slow on CPUs without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from sapiens2.engine.parallel import whole

MOMENTUM = 0.95
ROUNDS = 5
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
"""Of Jordan et al.: singular values in (0, 1] come to lie about 1, between 0.7 and 1.2, the small ones fastest."""
ROOT_MEAN_SQUARE = 0.2  # of AdamW's usual update
LEAST_SIDE = 24
"""Rows or columns below which a matrix has little to be balanced."""
_EDGE = re.compile(r"token|embed|predict\.|prototypes|(^|\.)conv_(?!layers\.)")
"""What reads pictures or positions, or gives answers, by its name."""
Groups = Iterable[dict[str, Any]]


def is_hidden(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix between others: convolutions are, as [out, in * height * width]."""
    if parameter.ndim < 2 or _EDGE.search(name):
        return False
    return min(parameter.shape[0], parameter.numel() // parameter.shape[0]) >= LEAST_SIDE


def split(groups: Groups, names: dict[nn.Parameter, str]) -> list[dict[str, Any]]:
    """Each group of an optimiser in two, `muon` and not; empty ones are left out."""
    parts = []
    for group in groups:
        for muon in (True, False):
            chosen = [p for p in group["params"] if is_hidden(names[p], p) == muon]
            if chosen:
                parts.append({**group, "params": chosen, "muon": muon})
    return parts


def balanced(updates: Tensor) -> Tensor:
    """Nearly U V^T for each U S V^T of [N, R, C], R <= C: Newton and Schulz's iteration, on R x R matrices alone.

    An iterate is P X, where P is a polynomial of X X^T; so only P and the Gram matrix are iterated, which for wide
    matrices is half the work.
    """
    a, b, c = POLYNOMIAL
    x = updates / (updates.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram, product = x @ x.mT, None
    for number in range(ROUNDS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if number < ROUNDS - 1:
            gram = factor @ gram @ factor
    assert product is not None
    return product @ x


class Muon(torch.optim.AdamW):
    """Groups of `split`: those with `muon` by Muon, the others by fused AdamW. State: `momentum`, like its parameter.

    Of sharded matrices (DTensor) the momentum is gathered; every rank computes the whole update and keeps its share.
    A parameter without a gradient stays, as in AdamW. Where `found_inf` is not 0 nothing changes.
    """

    found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                self._move([p for p in group["params"] if p.grad is not None], group["lr"], group["weight_decay"])

    def _move(self, parameters: list[Tensor], rate: float, decay: float) -> None:
        bad = None if self.found_inf is None else self.found_inf > 0
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for parameter in parameters:
            update = whole(self._update(parameter, bad)).flatten(1)
            wide = update if update.shape[0] <= update.shape[1] else update.mT
            alike.setdefault((wide.shape[0], wide.shape[1]), []).append((parameter, wide))
        for (_, columns), members in alike.items():
            moves = balanced(torch.stack([wide for _, wide in members])) * (ROOT_MEAN_SQUARE * columns**0.5)
            for (parameter, _), move in zip(members, moves, strict=True):
                upright = move if move.shape[0] == parameter.shape[0] else move.mT
                change = _like(upright.reshape(parameter.shape), parameter) + decay * parameter
                parameter.sub_(change if bad is None else torch.where(bad, 0.0, change), alpha=rate)

    def _update(self, parameter: Tensor, bad: Tensor | None) -> Tensor:
        """Nesterov's look ahead from the momentum that takes in the gradient; after a bad one it is as it was."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        if bad is not None:
            gradient = torch.where(bad, momentum, gradient)
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)


def _like(full: Tensor, parameter: Tensor) -> Tensor:
    """A tensor that every rank holds whole, sharded like a parameter where that is."""
    if not isinstance(parameter, DTensor):
        return full
    # src_data_rank None: every rank cuts its own share, nothing is sent.
    return distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
