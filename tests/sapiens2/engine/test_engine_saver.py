"""States written beside the training are those that waiting would have written, one at a time, and fail aloud."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_run import ToyObjective, ToySource, toy_config

from sapiens2.engine import checkpoint
from sapiens2.engine.loop import train
from sapiens2.engine.saver import Saver
from sapiens2.engine.training_state import digest
from sapiens2.engine.world import World

ALONE = World(0, 1, torch.device("cpu"))
MEBIBYTE = 2**20


def held(root: Path, step: int, like: dict[str, Tensor]) -> str:
    saved = next(s for s in checkpoint.saved_states(str(root)) if s.step == step)
    into = {name: torch.zeros_like(tensor) for name, tensor in like.items()}
    checkpoint.load(saved, lambda names: into, world=ALONE)
    return digest(into)


def test_a_state_is_that_of_its_step_whatever_happens_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights move on, and the next save waits, while the files of the first are held up."""
    go, began = threading.Event(), threading.Event()
    write = checkpoint._write_data

    def held_up(*arguments: object) -> None:
        began.set()
        assert go.wait(30)
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "_write_data", held_up)
    tensors = {"model.w": torch.ones(3), "optimizer.w.step": torch.tensor(5.0)}
    first = digest(tensors)
    with Saver(str(tmp_path), ALONE, keep=2, beside=True) as saver:
        saver.save(tensors, {}, 5)
        assert began.wait(30)
        tensors["model.w"].mul_(2)
        saver.look()
        assert checkpoint.saved_states(str(tmp_path)) == [] and saver.saved_at == 0
        threading.Timer(0.05, go.set).start()
        saver.save(tensors, {}, 6)
        assert saver.saved_at >= 5 and held(tmp_path, 5, tensors) == first
    assert saver.saved_at == 6 and held(tmp_path, 6, tensors) == digest(tensors) != first


def test_both_ways_of_saving_leave_the_same_states(tmp_path: Path) -> None:
    found = []
    for beside in (True, False):
        state = tmp_path / str(beside)
        config = toy_config(async_checkpoints=beside, keep_checkpoints=4)
        train(ToyObjective(), ToySource(), config, out=str(tmp_path / "out"), state=str(state))
        states = checkpoint.saved_states(str(state))
        assert all(checkpoint.damage(saved) is None for saved in states)
        files = [{name: about["sha256"] for name, about in s.files.items() if name != ".metadata"} for s in states]
        found.append(([saved.step for saved in states], files))
    assert found[0] == found[1] and found[0][0] == [20, 15, 10, 5]


def test_a_save_that_fails_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = checkpoint._write_data

    def full_disk(tensors: dict[str, Tensor], folder: Path, world: World) -> None:
        if folder.name == "step_10":
            raise OSError(28, "No space left on device")
        write(tensors, folder, world)

    monkeypatch.setattr(checkpoint, "_write_data", full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        train(ToyObjective(), ToySource(), toy_config(), out=str(tmp_path / "out"), state=str(tmp_path / "state"))
    newest = checkpoint.newest(str(tmp_path / "state"))
    assert newest is not None and newest.step == 5


def test_memory_does_not_grow_with_the_saves(tmp_path: Path) -> None:
    tensors = {"model.w": torch.ones(2 * MEBIBYTE)}  # 8 MiB

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    with Saver(str(tmp_path), ALONE, keep=1, beside=True) as saver:
        for step in range(1, 6):
            saver.save(tensors, {}, step)
        saver.wait()
        before = resident()
        for step in range(6, 26):
            saver.save(tensors, {}, step)
        saver.wait()
    assert resident() - before < 40 * MEBIBYTE  # a copy kept by each save would be 160
