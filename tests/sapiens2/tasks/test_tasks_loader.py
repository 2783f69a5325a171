"""Fine-tuning whose batches other processes prepare, and the count of samples that no process could read.

Started as a program it is one of several ranks: the labelled folder and the folder of the run are its arguments.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from test_tasks_mixture import write

from sapiens2.data.labelled import LabelError, LabelledDataset
from sapiens2.engine.control import Control
from sapiens2.engine.feeder import Feeder
from sapiens2.engine.interrupt import Interrupted
from sapiens2.engine.world import World
from sapiens2.model.backbone import build_backbone
from sapiens2.model.weights import save_weights
from sapiens2.tasks import recipes
from sapiens2.tasks.assemble import assemble
from sapiens2.tasks.config import DataSource, FinetuneConfig
from sapiens2.tasks.mixture import Deck
from sapiens2.tasks.objective import TaskObjective
from sapiens2.tasks.run import finetune
from sapiens2.tasks.source import TaskSource

STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return weights(tmp_path_factory.mktemp("backbone"))


def weights(folder: Path) -> str:
    torch.manual_seed(5)
    path = folder / "model.safetensors"
    save_weights(build_backbone("tiny"), path)
    return str(path)


def config(task: str = "segmentation", workers: int = 0, **changes: Any) -> FinetuneConfig:
    fields = recipes.micro(task).model_dump() | changes  # type: ignore[arg-type]
    engine = {"steps": STEPS, "checkpoint_every": 100, "threads": 1, "device": "cpu", "loader_workers": workers}
    return FinetuneConfig.model_validate(fields | {"engine": fields["engine"] | engine})


def labelled(folder: str, workers: int = 0) -> FinetuneConfig:
    return config(workers=workers, sources=(DataSource(path=folder),), scenes=6, unreadable="skip")


def damage(folder: str, *positions: int) -> None:
    """Breaks the masks of the samples that training takes at these positions."""
    dataset, deck = LabelledDataset(folder, "segmentation"), TaskSource(labelled(folder)).mixture.decks[0]
    for position in positions:
        mask = dataset.rows[deck.index(position)].mask
        assert mask is not None
        (Path(folder) / mask).write_bytes(b"broken")


def places(folder: Path) -> dict[str, Any]:
    return {"out": str(folder / "out"), "state": str(folder / "state")}


def test_processes_give_the_batches_of_the_thread(tmp_path: Path) -> None:
    """Of synthetic people before other backgrounds, and of a labelled folder."""
    (tmp_path / "rooms").mkdir()
    cv2.imwrite(str(tmp_path / "rooms/a.png"), np.full((40, 90, 3), 77, np.uint8))
    sources = (DataSource(backgrounds=str(tmp_path / "rooms")), DataSource(path=write(tmp_path / "data")))
    chosen = config(sources=sources, augment={"background": 0.5}, batch=4)
    made: list[list[dict[str, torch.Tensor]]] = []
    for workers in (0, 1):
        world, source = World(0, 1, torch.device("cpu")), TaskSource(chosen)
        with Feeder(source, world, micro_batches=2, prefetch=1, first=1, last=3, workers=workers) as feeder:
            made.append([*feeder.next(), *feeder.next()])
    for ours, theirs in zip(*made, strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_with_a_process_is_the_run_without(backbone: str, tmp_path: Path) -> None:
    first, second = (
        finetune(config("normal", workers), backbone=backbone, **places(tmp_path / str(workers))) for workers in (0, 1)
    )
    assert first["digest"] == second["digest"] and second["unreadable"] == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_skipped_samples_are_counted_over_a_restart(workers: int, backbone: str, tmp_path: Path) -> None:
    """One is met before the stop alone, one after it; the folder lies elsewhere by then."""
    folder = write(tmp_path / "data", 6)
    damage(folder, 0, 5)
    whole = finetune(labelled(folder, workers), backbone=backbone, **places(tmp_path / "whole"))
    done = iter(range(1, 100))
    with pytest.raises(Interrupted, match="step 2 of 3"):
        stop = Control(stop=lambda: next(done) >= 2)
        finetune(labelled(folder, workers), backbone=backbone, **places(tmp_path / "cut"), control=stop)
    moved = str(Path(folder).rename(tmp_path / "moved"))
    resumed = finetune(labelled(moved, workers), backbone=backbone, **places(tmp_path / "cut"))
    assert (whole["unreadable"], resumed["unreadable"]) == (2, 2) and whole["digest"] == resumed["digest"]
    facts = json.loads((tmp_path / "cut/out/fragment.json").read_text())["sections"][0]
    assert ["samples that could not be read", 2] in facts["rows"]


def test_a_missing_picture_is_skipped_counted_and_named(
    backbone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / "data", 6)
    picture = Path(folder) / LabelledDataset(folder, "segmentation").rows[0].image
    picture.unlink()
    assert finetune(labelled(folder), backbone=backbone, **places(tmp_path / "skip"))["unreadable"] == 1
    assert [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()] == [
        f"skipped: {picture}: is not there; paths in the index are relative to its folder"
    ]
    with pytest.raises(LabelError, match="is not there"):
        finetune(config(sources=(DataSource(path=folder),), scenes=6), backbone=backbone, **places(tmp_path / "error"))


def test_skipped_samples_of_all_ranks_are_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 6)
    damage(folder, 1)  # the second rank's
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = str(Path(__file__).parents[3])
    command = [sys.executable, __file__, folder, str(tmp_path), weights(tmp_path)]
    ranks = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | shared | {"RANK": str(r), "LOCAL_RANK": str(r)},
        )
        for r in range(2)
    ]
    told = [process.communicate(timeout=300) for process in ranks]
    assert all(process.returncode == 0 for process in ranks), told[0][1] + told[1][1]
    assert [out.splitlines()[-1] for out, _ in told] == ["unreadable 1"] * 2


def test_a_sample_is_known_by_its_source_and_index() -> None:
    source = TaskSource(config("pose", scenes=8))
    deck: Deck = pickle.loads(pickle.dumps(source.mixture.decks[0]))
    assert sorted(deck.index(position) for position in range(8, 16)) == list(range(8))
    copy: TaskSource = pickle.loads(pickle.dumps(source))
    copy.skipped.add("0:3")
    assert copy.mixture.unreadable == {"0:3"} and not source.skipped


def test_a_frozen_backbone_keeps_its_statistics_and_drops_nothing() -> None:
    pytest.importorskip("timm", reason="needs timm")
    chosen = config("normal", backbone="timm:resnet18:random", freeze_backbone=True)
    made = TaskObjective(chosen, assemble(chosen, weights=True))
    made.model.backbone.add_module("dropout", torch.nn.Dropout())  # not called: its mode is what counts
    batch = TaskSource(chosen).batch(0, 0, 1)
    before = {name: value.clone() for name, value in made.model.backbone.state_dict().items()}
    assert "net.bn1.running_mean" in before
    assert made.train() is made and made.training and made.model.decode_head.training
    assert not any(module.training for module in made.model.backbone.modules())
    made.before_step([batch], 0)
    losses = [float(made(batch, 0)["loss"].detach()) for _ in range(2)]
    assert losses[0] == losses[1]
    after = made.model.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    free = config("normal", backbone="timm:resnet18:random")
    assert TaskObjective(free, assemble(free)).train().model.backbone.training


if __name__ == "__main__":
    metrics = finetune(labelled(sys.argv[1]), backbone=sys.argv[3], **places(Path(sys.argv[2])))
    print("unreadable", metrics["unreadable"])
