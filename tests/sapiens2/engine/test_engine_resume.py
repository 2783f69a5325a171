"""A run that was stopped or killed anywhere ends as an undisturbed one, bit for bit."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_process import Toy
from toy_run import ToyObjective, ToySource, toy_config

from sapiens2.engine import checkpoint
from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.engine.loop import TrainSummary, train


def run(folder: Path, stop_after: int | None = None, **changes: object) -> TrainSummary:
    objective, done = ToyObjective(), iter(range(1, 1000))
    stop = None if stop_after is None else lambda: next(done) >= stop_after
    config = toy_config(**changes)
    out, state = str(folder / "out"), str(folder / "state")
    return train(objective, ToySource(), config, out=out, state=state, control=Control(stop=stop))


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainSummary:
    return run(tmp_path_factory.mktemp("undisturbed"))


def test_twenty_steps_equal_ten_and_ten(tmp_path: Path, undisturbed: TrainSummary) -> None:
    with pytest.raises(Interrupted, match="stopped after step 10 of 20"):
        run(tmp_path, stop_after=10)
    torch.manual_seed(999)  # the state of global generators must not matter
    resumed = run(tmp_path)
    assert resumed.resumed_from == 10
    assert resumed.digest == undisturbed.digest
    timings = {"seconds_per_step", "data_wait"}
    rows, whole = ([{k: r[k] for k in r if k not in timings} for r in s.history] for s in (resumed, undisturbed))
    assert rows == whole
    lines = (tmp_path / "out" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == resumed.history


def test_a_finished_run_is_not_trained_again(tmp_path: Path, undisturbed: TrainSummary) -> None:
    run(tmp_path)
    again = run(tmp_path)
    assert again.resumed_from == 20 and again.digest == undisturbed.digest


def test_execution_settings_do_not_change_the_result(tmp_path: Path, undisturbed: TrainSummary) -> None:
    other = run(tmp_path, checkpoint_every=7, log_every=3, prefetch=0)
    assert other.digest == undisturbed.digest


def test_another_recipe_does_not_continue_a_state(tmp_path: Path) -> None:
    run(tmp_path, steps=4)
    with pytest.raises(ValueError, match=r"was written with lr=0\.01, this run has lr=0\.02: continue with the same"):
        run(tmp_path, steps=4, lr=0.02)


def test_micro_batches_keep_the_global_batch(tmp_path: Path) -> None:
    losses = []
    for parts in (1, 4):
        objective = ToyObjective(dropout=0.0)
        config = toy_config(steps=6, log_every=1, micro_batches=parts)
        where = tmp_path / str(parts)
        summary = train(objective, ToySource(), config, out=str(where / "out"), state=str(where / "state"))
        losses.append([row["loss"] for row in summary.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_kill_in_the_middle(toy: Toy, undisturbed: TrainSummary) -> None:
    process = toy.start("--slow", "0.05")
    deadline = time.monotonic() + 60
    while not (toy.state / "step_10" / checkpoint.MARKER).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    resumed = run(toy.out.parent)
    assert resumed.resumed_from in (10, 15)
    assert resumed.digest == undisturbed.digest


def test_kill_between_data_and_marker(toy: Toy, undisturbed: TrainSummary) -> None:
    process = toy.start("--kill-before-marker", "10")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert list((toy.state / "step_10").glob("*.distcp")), "the data of step 10 was written"
    resumed = run(toy.out.parent)
    assert resumed.resumed_from == 5
    assert resumed.digest == undisturbed.digest


def test_sigterm_saves_and_exits(toy: Toy, undisturbed: TrainSummary) -> None:
    process = toy.start("--slow", "0.1")
    deadline = time.monotonic() + 60
    while not (toy.state / "step_5" / checkpoint.MARKER).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 1 and "Interrupted: stopped after step" in complaints
    newest = checkpoint.newest(str(toy.state))
    assert newest is not None
    told = int(complaints.split("stopped after step ")[1].split()[0])
    assert newest.step == told
    assert run(toy.out.parent).digest == undisturbed.digest


def test_weights_along_the_way_are_those_of_a_shorter_run_whatever_stopped_it(tmp_path: Path) -> None:
    def advance(folder: Path, steps: int = 20, stop_after: int | None = None) -> Path:
        done = iter(range(1, 1000))
        control = Control(stop=None if stop_after is None else lambda: next(done) >= stop_after)
        config = toy_config(steps=steps, min_lr=1e-2, warmup_steps=0, checkpoint_every=4)
        places = {"out": str(folder / "out"), "state": str(folder / "state")}
        train(ToyObjective(), ToySource(), config, **places, publish_at=(4, 10), control=control)
        return folder / "out"

    whole = advance(tmp_path / "whole")
    assert {p.name for p in (whole / "checkpoints").iterdir()} == {"step_4.safetensors", "step_10.safetensors"}
    with pytest.raises(Interrupted):
        advance(tmp_path / "stopped", stop_after=4)
    stopped = advance(tmp_path / "stopped")
    shorter = advance(tmp_path / "shorter", steps=10)
    for step in (4, 10):
        name = f"checkpoints/step_{step}.safetensors"
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    kept, last = (load_file(p) for p in (whole / "checkpoints/step_10.safetensors", shorter / "model.safetensors"))
    assert kept.keys() == last.keys()
    assert all(torch.equal(tensor, last[name]) for name, tensor in kept.items())
