"""An evaluation that is killed goes on with the part that it was in, and says what a calm one says."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sapiens2 import build_backbone, save_weights
from sapiens2.evaluation import parts
from sapiens2.evaluation import recipes as evaluations
from sapiens2.evaluation.remains import keep
from sapiens2.evaluation.run import evaluate
from sapiens2.tasks import recipes
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.run import finetune

BATCH, SCENES = 3, 10


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(parts, "LEAST", 4)  # two batches of three: parts of 6 and 4 scenes


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a model of a task, made once."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_weights(build_backbone("tiny"), folder / "backbone.safetensors")

    def model(task: str) -> str:
        out = folder / task
        if not out.exists():
            recipe = recipes.micro(task)  # type: ignore[arg-type]
            finetune(
                recipe, backbone=str(folder / "backbone.safetensors"), out=str(out), state=str(folder / f"{task}-s")
            )
        return str(out)

    return model


class Killed(BaseException):
    """What no code catches."""


def measured(checkpoint: str, task: str, folder: Path, stop: int = 0, state: bool = True) -> tuple[Any, list[int]]:
    """What an evaluation wrote, and after which samples it said so; it dies at sample `stop`."""
    config = evaluations.micro(task).model_copy(update={"n_test": SCENES, "batch": BATCH, "pictures": 8})  # type: ignore[arg-type]
    told: list[int] = []

    def said(done: int, total: int) -> None:
        told.append(done)
        assert total == SCENES
        if done == stop:
            raise Killed

    work = str(folder / "work") if state else ""
    metrics = evaluate(config, checkpoint=checkpoint, out=str(folder / "out"), state=work, said=said)
    metrics.pop("seconds")
    return (metrics, json.loads((folder / "out" / "fragment.json").read_text())), told


@pytest.mark.parametrize("task", TASKS)
def test_a_killed_evaluation_goes_on_and_says_the_same(task: str, models: Callable[[str], str], tmp_path: Path) -> None:
    calm, told = measured(models(task), task, tmp_path / "calm", state=False)
    assert told == list(range(1, SCENES + 1))
    with pytest.raises(Killed):
        measured(models(task), task, tmp_path / "killed", stop=8)
    assert [path.name for path in (tmp_path / "killed" / "work").iterdir()] == ["part_0.measured"]
    again, told = measured(models(task), task, tmp_path / "killed")
    assert told == [6, 7, 8, 9, 10] and again == calm  # pictures and all


@pytest.mark.parametrize("damage", ["torn", "bit", "other", "foreign"])
def test_a_part_that_is_not_what_was_written_is_measured_again(
    damage: str,
    models: Callable[[str], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    calm, _ = measured(models("normal"), "normal", tmp_path)
    part = tmp_path / "work" / "part_0.measured"
    data = part.read_bytes()
    match damage:
        case "torn":
            part.write_bytes(data[:-9])
        case "bit":
            middle = len(data) // 2  # in the numbers of an array, which read as well with it
            part.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case "other":  # of another length
            (tmp_path / "work" / "part_6.measured").replace(part)
        case "foreign":  # whole, but it would run something
            keep(Run(), str(part))
    again, told = measured(models("normal"), "normal", tmp_path)
    assert told[:6] == [1, 2, 3, 4, 5, 6] and again == calm
    assert "measuring a part again" in caplog.text and not (tmp_path / "ran").exists()
    assert pickle.loads(part.read_bytes()[32:]).count == 6  # it is whole again


class Run:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> Any:
        return exec, ("open('ran', 'w').close()",)


def test_a_test_set_of_one_part_leaves_nothing(
    models: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LEAST", 64)
    measured(models("albedo"), "albedo", tmp_path)
    assert not (tmp_path / "work").exists()


def test_parts_lie_on_s3_as_well(models: Callable[[str], str], tmp_path: Path, s3_root: str) -> None:
    config = evaluations.micro("albedo").model_copy(update={"n_test": SCENES, "batch": BATCH})
    told: list[int] = []
    for _ in range(2):
        told.clear()
        run = {"checkpoint": models("albedo"), "out": str(tmp_path / "out"), "state": f"{s3_root}/work"}
        evaluate(config, **run, said=lambda done, _: told.append(done))
    assert told == [6, 10]  # the second time nothing was left to measure
