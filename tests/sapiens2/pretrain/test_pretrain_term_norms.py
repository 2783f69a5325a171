"""The gradient norm of each loss term: right, and without a trace in the training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import shard_files
import torch

from sapiens2.engine.control import Control
from sapiens2.engine.loop import train
from sapiens2.engine.term_norms import term_norms
from sapiens2.model.sizes import SIZES, Architecture
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.recipes import micro
from sapiens2.pretrain.source import PretrainSource


@pytest.fixture(autouse=True)
def smaller_tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", Architecture(dim=32, layers=2, heads=2))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return shard_files.shards(tmp_path_factory.mktemp("shards"), 8)


def test_norms_are_those_of_single_gradients_and_leave_no_trace(files: list[str]) -> None:
    config = micro()
    objective, batch = PretrainObjective(config), PretrainSource(files, config).batch(0, 0, 1)
    trained = [p for p in objective.parameters() if p.requires_grad]
    weights = objective.weights(0)
    before = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    random = torch.get_rng_state()
    found = term_norms(objective, trained, lambda part: objective(part, 0), [batch], weights)
    assert all(p.grad is None for p in objective.parameters())
    assert all(buffer.equal(before[name]) for name, buffer in objective.named_buffers())
    assert torch.get_rng_state().equal(random)
    losses = objective(batch, 0)
    for name, weight in weights.items():
        gradients = torch.autograd.grad(weight * losses[name], trained, retain_graph=True, allow_unused=True)
        expected = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
        assert found[f"grad_norm_{name}"].item() == pytest.approx(expected, rel=1e-4)


def test_a_run_with_measurements_is_the_run_without(files: list[str], tmp_path: Path) -> None:
    digests, rows = [], []
    for every in (0, 2):
        config = micro()
        engine = config.engine.model_copy(update={"steps": 4, "term_norms_every": every, "checkpoint_every": 4})
        config = config.model_copy(update={"engine": engine})
        place = tmp_path / str(every)
        summary = train(
            PretrainObjective(config),
            PretrainSource(files, config),
            engine,
            out=str(place / "out"),
            state=str(place / "state"),
            control=Control(shows=False),
        )
        digests.append(summary.digest)
        rows.append(summary.history)
    assert digests[0] == digests[1]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    measured = [row["step"] for row in rows[1] if "grad_norm_mae" in row]
    assert measured == [2, 4] and not any("grad_norm_mae" in row for row in rows[0])
