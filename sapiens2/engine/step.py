"""One optimiser step: forward and backward of every micro-batch, global clip, finite gate, teacher and centre.

Nothing here waits for a GPU: whether the gradient is finite stays on the device and decides there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sapiens2.engine.config import EngineConfig
from sapiens2.engine.muon import Muon, split
from sapiens2.engine.objective import LooksAhead, Objective
from sapiens2.engine.schedule import learning_rate
from sapiens2.engine.term_norms import term_norms
from sapiens2.engine.world import World


def make_optimizer(objective: Objective, config: EngineConfig) -> torch.optim.AdamW:
    """Fused AdamW, or Muon, over the objective's groups; each group keeps its own ratio to the scheduled rate."""
    groups = objective.param_groups(config.lr, config.weight_decay)
    kind = torch.optim.AdamW
    if config.optimizer == "muon":
        kind, groups = Muon, split(groups, {parameter: name for name, parameter in objective.named_parameters()})
    optimizer = kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    for group in optimizer.param_groups:
        group["ratio"] = group["lr"] / config.lr
    return optimizer


class FiniteGate:
    """Counts, on the device, the steps whose gradient was not finite."""

    def __init__(self, device: torch.device) -> None:
        self.skipped = torch.zeros((), device=device)
        self.in_row = torch.zeros((), device=device)
        self.worst_row = torch.zeros((), device=device)

    def count(self, finite: Tensor) -> None:
        """Take note of one step; `finite` is a boolean scalar."""
        self.skipped += ~finite
        self.in_row = torch.where(finite, torch.zeros_like(self.in_row), self.in_row + 1)
        self.worst_row = torch.maximum(self.worst_row, self.in_row)


class Step:
    """Runs one optimiser step. Holds what a step needs, and no number that a restart would miss."""

    def __init__(
        self, objective: nn.Module, optimizer: torch.optim.AdamW, config: EngineConfig, world: World, gate: FiniteGate
    ) -> None:
        self.objective, self.optimizer, self.config, self.world, self.gate = objective, optimizer, config, world, gate
        self._trained = [p for group in optimizer.param_groups for p in group["params"]]
        self._passing = {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in objective.named_modules()
            for name in module._non_persistent_buffers_set
        }

    def __call__(self, step: int, parts: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Train on the micro-batches of `step`; returns mean losses, gradient norm and whether the step counted."""
        self._set_rate(step)
        if isinstance(self.objective, LooksAhead):
            with self._arithmetic():
                self.objective.before_step(parts, step)
        norms = self._term_norms(step, parts)
        buffers = {name: buffer.clone() for name, buffer in self._lasting_buffers().items()}
        losses = self._backward(step, parts) | norms
        norm = self._clip()
        finite = torch.isfinite(norm)
        # The fused kernel leaves weights, moments and its step count alone where found_inf is not zero.
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._follow(step, finite, buffers)
        self.gate.count(finite)
        return losses, norm, finite

    def _set_rate(self, step: int) -> None:
        rate = learning_rate(step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["ratio"]

    def _losses(self, part: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        with self._arithmetic():
            losses: dict[str, Tensor] = self.objective(part, step)
        return losses

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _term_norms(self, step: int, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Gradient norms of single terms, on the steps that end a window of `term_norms_every`."""
        every = self.config.term_norms_every
        if not every or (step + 1) % every or not hasattr(self.objective, "weights"):
            return {}
        weights = self.objective.weights(step)  # type: ignore[operator]
        return term_norms(self.objective, self._trained, lambda part: self._losses(part, step), parts, weights)

    def _backward(self, step: int, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        total: dict[str, Tensor] = {}
        for part in parts:
            losses = self._losses(part, step)
            (losses["loss"] / len(parts)).backward()
            for name, value in losses.items():
                total[name] = total.get(name, 0.0) + value.detach().float() / len(parts)
        return total

    def _clip(self) -> Tensor:
        norm = nn.utils.clip_grad_norm_(self._trained, self.config.clip_norm, foreach=True)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _follow(self, step: int, finite: Tensor, buffers: dict[str, Tensor]) -> None:
        """Teacher and centre. After a skipped step they must be as before it, and what the objective gathered in
        the bad forward must be gone: so it runs its `after_step` always, and the outcome is put back.

        On a GPU the teacher is not put back, which would need a copy of it: its student did not move and is finite,
        so that it takes one more ordinary step towards it.
        """
        followers = self._followers() if finite.device.type == "cpu" and not finite else {}
        before = {name: tensor.clone() for name, tensor in followers.items()}
        with torch.no_grad():
            self.objective.after_step(step)  # type: ignore[operator]
            for name, tensor in before.items():
                followers[name].copy_(tensor)
            for name, buffer in self._lasting_buffers().items():
                if name in buffers:
                    buffer.copy_(torch.where(finite, buffer, buffers[name]))

    def _followers(self) -> dict[str, Tensor]:
        """Parameters that the optimiser does not train: the teacher."""
        trained = {id(p) for p in self._trained}
        return {name: p.detach() for name, p in self.objective.named_parameters() if id(p) not in trained}

    def _lasting_buffers(self) -> dict[str, Tensor]:
        """Buffers that are part of the state: the centre."""
        return {name: buffer for name, buffer in self.objective.named_buffers() if name not in self._passing}
