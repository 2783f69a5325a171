"""The event files say what history.jsonl says, once, whatever stopped the run in between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_run import ToyObjective, ToySource, toy_config

from sapiens2.engine import speed, tensorboard
from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.engine.loop import train
from sapiens2.engine.world import World


def test_the_events_are_the_rows(tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    places = {"out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    config, done = toy_config(tensorboard=True), iter(range(1, 100))
    with pytest.raises(Interrupted):
        train(ToyObjective(), ToySource(), config, control=Control(stop=lambda: next(done) >= 12), **places)
    summary = train(ToyObjective(), ToySource(), config, images_per_step=8, **places)
    read = loader.EventAccumulator(str(tmp_path / "out" / tensorboard.FOLDER))
    read.Reload()
    for name in ("loss", "grad_norm", "lr", "seconds_per_step"):
        found = [(event.step, event.value) for event in read.Scalars(name)]
        assert found == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in summary.history]
    assert {"step", "mfu"}.isdisjoint(read.Tags()["scalars"]) and "images_per_s" in read.Tags()["scalars"]


def test_without_tensorboard_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    assert tensorboard.events(str(tmp_path), [], wanted=True) is None
    assert "pip install tensorboard" in caplog.text
    assert tensorboard.events(str(tmp_path), [], wanted=False) is None and not list(tmp_path.iterdir())


def test_peaks_are_those_of_the_data_sheets() -> None:
    assert speed.peak_flops("NVIDIA H200", "bf16") == speed.peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert speed.peak_flops("NVIDIA H100 PCIe", "bf16") == 756e12
    assert speed.peak_flops("NVIDIA A100-SXM4-40GB", "bf16") == 312e12
    assert speed.peak_flops("NVIDIA H200", "fp32") is None and speed.peak_flops("some card", "bf16") is None
    assert speed.speed(World(0, 1, torch.device("cpu")), "bf16", 5.0, 1e12) == {"images_per_s": 5.0}
