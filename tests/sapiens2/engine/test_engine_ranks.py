"""Two ranks under FSDP2 train as one process does, and resume bit for bit; their states load at another size."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toy_process import Toy
from toy_run import ToyObjective, ToySource, toy_config

from sapiens2.engine.loop import train


def test_two_ranks_equal_one_and_resume_exactly(tmp_path: Path) -> None:
    # With Muon, whose groups AdamW has a part of.
    toy = Toy(tmp_path / "two")
    both = toy.ranks(2, "--dropout", "0", "--resume-at", "10", "--poisoned", "7", "--optimizer", "muon")
    assert [told["resumed_from"] for told in both] == [10, 10]
    assert both[0]["digest"] == both[1]["digest"] == both[0]["undisturbed"] == both[1]["undisturbed"]

    alone = tmp_path / "one"
    config = toy_config(optimizer="muon")
    source = ToySource(poisoned=(7,))
    summary = train(ToyObjective(dropout=0.0), source, config, out=str(alone / "out"), state=str(alone / "state"))
    assert summary.skipped == 1
    assert both[0]["losses"] == pytest.approx([row["loss"] for row in summary.history], rel=1e-6)

    # The state that two ranks saved after step 10, continued by one process.
    shutil.rmtree(toy.state / "step_20")
    shutil.rmtree(toy.state / "step_15")
    objective = ToyObjective(dropout=0.0)
    merged = train(objective, source, config, out=str(alone / "merged"), state=str(toy.state))
    assert merged.resumed_from == 10
    assert [row["loss"] for row in merged.history] == pytest.approx(both[0]["losses"], rel=1e-6)
