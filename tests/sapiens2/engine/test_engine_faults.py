"""A non-finite gradient touches nothing; many in a row stop the run without saving it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_run import ToyObjective, ToySource, toy_config

from sapiens2.engine import checkpoint
from sapiens2.engine.loop import Diverged, train
from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.engine.training_state import collect, digest
from sapiens2.engine.world import World

ALONE = World(0, 1, torch.device("cpu"))


def stepper(objective: ToyObjective) -> Step:
    config = toy_config()
    return Step(objective, make_optimizer(objective, config), config, ALONE, FiniteGate(ALONE.device))


def test_a_poisoned_step_leaves_every_bit_alone() -> None:
    objective = ToyObjective(dropout=0.0)
    step = stepper(objective)
    source = ToySource(poisoned=(3,))
    for number in range(3):
        step(number, [source.batch(number, 0, 1)])
    before = digest(collect(objective, step.optimizer))
    assert float(objective.centre.abs().sum()) > 0 and step.gate.skipped == 0
    _, norm, finite = step(3, [source.batch(3, 0, 1)])
    assert not finite and not torch.isfinite(norm)
    assert digest(collect(objective, step.optimizer)) == before
    assert step.gate.skipped == 1 and step.gate.in_row == 1


def test_the_step_after_a_poisoned_one_is_as_if_it_had_not_been() -> None:
    poisoned, clean = ToyObjective(dropout=0.0), ToyObjective(dropout=0.0)
    first, second = stepper(poisoned), stepper(clean)
    source = ToySource(poisoned=(3,))
    for number in range(6):
        first(number, [source.batch(number, 0, 1)])
        if number != 3:
            second(number, [source.batch(number, 0, 1)])
    assert digest(collect(poisoned, first.optimizer)) == digest(collect(clean, second.optimizer))
    assert first.gate.in_row == 0 and first.gate.worst_row == 1


def test_skipped_steps_are_counted_and_kept_out_of_the_means(tmp_path: Path) -> None:
    config = toy_config(log_every=5)
    source = ToySource(poisoned=(6, 7, 11))
    summary = train(ToyObjective(), source, config, out=str(tmp_path / "out"), state=str(tmp_path / "state"))
    assert summary.skipped == 3
    assert [row["skipped"] for row in summary.history] == [0, 2, 3, 3]
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in summary.history)


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_run_of_poisoned_steps_stops_without_saving(tmp_path: Path, log_every: int) -> None:
    config = toy_config(log_every=log_every, max_skipped=3)
    source = ToySource(poisoned=(12, 13, 14))
    with pytest.raises(Diverged, match=r"3 steps in a row up to step 15 .* the last saved state is step 10: lower"):
        train(ToyObjective(), source, config, out=str(tmp_path / "out"), state=str(tmp_path / "state"))
    assert [saved.step for saved in checkpoint.saved_states(str(tmp_path / "state"))] == [10, 5]


def test_an_error_of_the_source_surfaces_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a batch of 8 does not divide into 3 parts") as caught:
        config = toy_config(micro_batches=3)
        train(ToyObjective(), ToySource(), config, out=str(tmp_path / "out"), state=str(tmp_path / "state"))
    assert caught.value.__notes__ == ["in step 1 of 20; no state was saved before"]


def test_an_error_late_in_a_run_says_from_where_it_continues(tmp_path: Path) -> None:
    class Short(ToySource):
        def batch(self, step: int, rank: int, world: int) -> dict[str, torch.Tensor]:
            if step == 12:
                raise OSError("row group 7 is damaged")
            return super().batch(step, rank, world)

    with pytest.raises(OSError, match="row group 7") as caught:
        train(ToyObjective(), Short(), toy_config(), out=str(tmp_path / "out"), state=str(tmp_path / "state"))
    assert caught.value.__notes__ == ["in step 13 of 20; the state of step 10 is kept, a rerun continues from it"]


def test_adamw_matches_the_textbook() -> None:
    """Two steps of the optimiser against the update written out (Loshchilov and Hutter, algorithm 2)."""
    objective = ToyObjective(dropout=0.0)
    config = toy_config(warmup_steps=0, schedule="poly", min_lr=1e-2, lr=1e-2, weight_decay=0.1, clip_norm=0.05)
    step = Step(objective, make_optimizer(objective, config), config, ALONE, FiniteGate(ALONE.device))
    source = ToySource()
    weight = objective.student[0].weight
    expected = weight.detach().clone().double()
    first, second = torch.zeros_like(expected), torch.zeros_like(expected)
    for number in range(2):
        batch = source.batch(number, 0, 1)
        gradient = _clipped_gradient(objective, batch, weight, config.clip_norm).double()
        first = 0.9 * first + 0.1 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        expected = expected * (1 - 1e-2 * 0.1)
        unbiased = (first / (1 - 0.9 ** (number + 1)), second / (1 - 0.95 ** (number + 1)))
        expected = expected - 1e-2 * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        step(number, [batch])
        torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-7)


def _clipped_gradient(objective: ToyObjective, batch: dict[str, Tensor], weight: Tensor, limit: float) -> Tensor:
    parameters = list(objective.student.parameters())
    gradients = torch.autograd.grad(objective(batch, 0)["loss"], parameters)
    objective._seen.pop()
    norm = torch.sqrt(sum(g.square().sum() for g in gradients))
    assert norm > limit
    index = next(i for i, p in enumerate(parameters) if p is weight)
    return gradients[index] * limit / (norm + 1e-6)
