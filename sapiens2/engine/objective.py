"""What the engine trains, and what feeds it: protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class Objective(Protocol):
    """An `nn.Module` that turns a batch into losses. Everything that must survive a restart is in its state_dict."""

    def __call__(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Named scalar losses; `loss` is the total that is minimised, the others are logged."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As every module's."""

    def after_step(self, step: int) -> None:
        """Work that follows the optimiser step: the EMA teacher, the centre.

        Called after a step with a non-finite gradient too, to forget what its forward gathered; parameters that are
        not trained and buffers of the state_dict are then put back to what they were before that step.
        """

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimiser groups by role; each has `params`, `lr` and `weight_decay`."""

    def export_state(self) -> dict[str, Tensor]:
        """The weights to publish as model.safetensors."""


class WeighsTerms(Protocol):
    """What an objective may offer beside: the weights of its terms, for which single gradients can be measured."""

    def weights(self, step: int) -> dict[str, float]:
        """The weight in the total of each named loss at a step."""


@runtime_checkable
class LooksAhead(Protocol):
    """An objective that wants to see all micro-batches of a step before their first forward pass."""

    def before_step(self, parts: Sequence[dict[str, Tensor]], step: int) -> None:
        """Take note of what belongs to the whole batch, in itself or in the micro-batches.

        Every rank is here at once, so collectives are allowed.
        """


class BatchSource(Protocol):
    """Batches as a pure function of the step, so that a run resumes from one integer."""

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The batch of `rank` out of `world` at `step`."""


@runtime_checkable
class SharedSource(BatchSource, Protocol):
    """A source that splits its work: this process reads, others may prepare. `batch` must give the same."""

    def job(self, step: int, rank: int, world: int) -> Any:
        """What a process needs to prepare that batch; picklable. Asked for in the order of the steps."""

    def worker(self) -> Callable[[Any], Any]:
        """What makes of a job most of a batch, tensors; picklable, and called in the processes."""

    def completed(self, made: Any, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The batch, from what the worker made of its job."""


@runtime_checkable
class Passing(Protocol):
    """A source that passes over rows it cannot read. The ids met so far are kept with a saved state."""

    skipped: set[str]


class Key(NamedTuple):
    """Which batch: the arguments of `BatchSource.batch`."""

    step: int
    rank: int
    world: int
