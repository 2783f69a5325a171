"""What the engine trains, and what feeds it: two protocols."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Objective(Protocol):
    """An `nn.Module` that turns a batch into losses. Everything that must survive a restart is in its state_dict."""

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Named scalar losses; `loss` is the total that is minimised, the others are logged."""

    def after_step(self, step: int) -> None:
        """Work that follows the optimiser step: the EMA teacher, the centre.

        Called after a step with a non-finite gradient too, to forget what its forward gathered; parameters that are
        not trained and buffers of the state_dict are then put back to what they were before that step.
        """

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups by role; each has `params`, `lr` and `weight_decay`."""

    def export_state(self) -> dict[str, Tensor]:
        """The weights to publish as model.safetensors."""


class BatchSource(Protocol):
    """Batches as a pure function of the step, so that a run resumes from one integer."""

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The batch of `rank` out of `world` at `step`."""
