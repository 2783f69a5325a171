"""A non-finite gradient in the real pretraining: weights, moments, teacher and centre stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import shard_files
import torch
from torch import Tensor

from sapiens2.engine import checkpoint
from sapiens2.engine.loop import Diverged, train
from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.engine.training_state import collect, digest
from sapiens2.engine.world import World
from sapiens2.model.sizes import SIZES, Architecture
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.recipes import micro
from sapiens2.pretrain.source import PretrainSource


class Poisoned(PretrainObjective):
    """Its loss, and so its gradient, is not a number at chosen steps; the teacher's answers are sound."""

    poison: frozenset[int] = frozenset()

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        terms = super().forward(batch, step)
        return terms | {"loss": terms["loss"] * (float("nan") if step in self.poison else 1.0)}


@pytest.fixture(autouse=True)
def smaller_tiny_size(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(SIZES, "tiny", Architecture(dim=64, layers=2, heads=2))
    yield


@pytest.fixture
def config() -> PretrainConfig:
    fields = micro().model_dump() | {"centring": "centre"}
    fields["engine"] |= {
        "steps": 8,
        "checkpoint_every": 2,
        "threads": 1,
        "device": "cpu",
        "max_skipped": 2,
        "tensorboard": False,
    }
    return PretrainConfig(**fields)


@pytest.fixture
def source(config: PretrainConfig, tmp_path: Path) -> PretrainSource:
    return PretrainSource(shard_files.shards(tmp_path, 8), config)


def test_a_poisoned_step_leaves_every_bit_alone(config: PretrainConfig, source: PretrainSource) -> None:
    world, objective = World(0, 1, torch.device("cpu")), Poisoned(config)
    step = Step(objective, make_optimizer(objective, config.engine), config.engine, world, FiniteGate(world.device))
    for number in range(2):
        step(number, [source.batch(number, 0, 1)])
    assert objective.centre.abs().sum() > 0
    before = digest(collect(objective, step.optimizer))
    objective.poison = frozenset({2})
    _, norm, finite = step(2, [source.batch(2, 0, 1)])
    assert not finite and not torch.isfinite(norm) and step.gate.skipped == 1
    state = collect(objective, step.optimizer)
    assert digest(state) == before and objective.logit_count == 0
    assert {name.partition(".")[0] for name in state} == {"model", "optimizer"}
    step(3, [source.batch(3, 0, 1)])
    assert digest(collect(objective, step.optimizer)) != before and step.gate.in_row == 0


def test_two_in_a_row_end_the_run_and_are_not_saved(
    config: PretrainConfig, source: PretrainSource, tmp_path: Path
) -> None:
    objective = Poisoned(config)
    objective.poison = frozenset({4, 5})
    state = str(tmp_path / "state")
    with pytest.raises(Diverged, match=r"2 steps in a row up to step 6 .* the last saved state is step 4"):
        train(objective, source, config.engine, out=str(tmp_path / "out"), state=state)
    assert [saved.step for saved in checkpoint.saved_states(state)] == [4, 2]
