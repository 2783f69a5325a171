"""A whole pretraining run at its smallest: it learns, resumes bit for bit, and publishes what a reader needs."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "pretrain"))  # shards made by code

import shard_files

from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.model.backbone import build_backbone
from sapiens2.model.sizes import Architecture
from sapiens2.model.weights import load_weights, save_weights
from sapiens2.pretrain import memory, run
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.held_out import held_out_batches, held_out_loss
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.recipes import micro
from sapiens2.pretrain.run import pretrain


def config(steps: int = 6, **engine: Any) -> PretrainConfig:
    base = micro().model_dump() | {"probe_checkpoints": 2}
    base["engine"] |= {
        "steps": steps,
        "lr": 2e-3,
        "warmup_steps": 2,
        "checkpoint_every": 3,
        "log_every": 1,
        "threads": 1,
    }
    base["engine"] |= engine
    return PretrainConfig(**base)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    train = shard_files.shards(tmp_path_factory.mktemp("train"), 10)
    return {"train_files": train, "val_files": shard_files.shards(tmp_path_factory.mktemp("val"), 5)}


@pytest.fixture(scope="module")
def undisturbed(shards: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    pretrain(config(), **shards, out=str(folder / "out"), state=str(folder / "state"))
    return folder / "out"


def test_what_is_published(undisturbed: Path, shards: dict[str, list[str]]) -> None:
    assert {p.name for p in undisturbed.iterdir()} == {
        "model.safetensors",
        "config.json",
        "history.jsonl",
        "fragment.json",
        "held_out.json",
        "metrics.json",
        "checkpoints",
        "tensorboard",
    }
    kept = [f"step_{step}.safetensors" for step in config().kept_steps]
    assert kept == ["step_2.safetensors", "step_4.safetensors"]
    assert sorted(p.name for p in (undisturbed / "checkpoints").iterdir()) == kept
    metrics = json.loads((undisturbed / "metrics.json").read_text())
    assert metrics["images"] == 24 and metrics["pictures"] == 10 and metrics["epochs"] == 2.4
    assert metrics["held_out_pictures"] == 5 and 0 < metrics["held_out_mae"] < 3
    assert metrics["held_out_mae_interval"][0] <= metrics["held_out_mae"] <= metrics["held_out_mae_interval"][1]
    rows = [json.loads(line) for line in (undisturbed / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert metrics["loss_final"] == rows[-1]["loss"] and metrics["loss_first"] == rows[0]["loss"]
    about = json.loads((undisturbed / "config.json").read_text())
    assert PretrainConfig(**about["config"]) == config()
    backbone = build_backbone(about["size"], window_tokenizer=about["window_tokenizer"])
    load_weights(backbone, undisturbed / "model.safetensors")


def test_the_fragment_shows_curves_and_pictures(undisturbed: Path) -> None:
    fragment = json.loads((undisturbed / "fragment.json").read_text())
    sections = {section["title"]: section for section in fragment["sections"]}
    lines = {s["name"] for s in sections["Losses"]["series"]}
    assert lines == {"loss", "mae", "contrastive", "koleo"}
    assert len(sections["Learning rate"]["series"][0]["y"]) == 6
    shown = sections["Masked reconstruction"]["items"]
    data = np.frombuffer(base64.b64decode(shown[0]["jpeg"]), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert len(shown) == 5 and picture.shape == (64, 192, 3) and picture.std() > 10


def test_resume_gives_the_same_weights(undisturbed: Path, shards: dict[str, list[str]], tmp_path: Path) -> None:
    places = {"out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    asked = iter([False, False, False, True])
    with pytest.raises(Interrupted, match="step 4 of 6"):
        pretrain(config(), **shards, **places, control=Control(stop=lambda: next(asked)))
    assert not (tmp_path / "out" / "metrics.json").exists()
    again = pretrain(config(), **shards, **places)
    before = json.loads((undisturbed / "metrics.json").read_text())
    assert again["digest"] == before["digest"] and again["held_out_mae"] == before["held_out_mae"]
    for weights in ("model.safetensors", "checkpoints/step_2.safetensors", "checkpoints/step_4.safetensors"):
        assert (tmp_path / "out" / weights).read_bytes() == (undisturbed / weights).read_bytes()
    with pytest.raises(ValueError, match=r"was written with engine\.seed=0, this run has engine\.seed=1"):
        pretrain(config(seed=1), **shards, **places)


def test_loader_processes_give_the_same_weights(
    undisturbed: Path, shards: dict[str, list[str]], tmp_path: Path
) -> None:
    places = {"out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    metrics = pretrain(config(loader_workers=1), **shards, **places)
    assert metrics["digest"] == json.loads((undisturbed / "metrics.json").read_text())["digest"]


def test_unreadable_pictures_are_counted_over_a_restart(tmp_path: Path) -> None:
    """Every picture is due in the first three steps; the second run starts after them, with a process of its own."""
    rows = [shard_files.row(i, shard_files.encode(shard_files.picture(i))) for i in range(12)]
    for i in (2, 3, 8):
        rows[i]["bytes"] = b"no picture"
    file = shard_files.write(tmp_path / "shard.parquet", rows)
    given = {"train_files": [file], "val_files": [], "out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    asked = iter([False, False, True])
    with pytest.raises(Interrupted, match="step 3 of 4"):
        pretrain(config(4), **given, control=Control(stop=lambda: next(asked)))
    assert pretrain(config(4, loader_workers=1), **given)["unreadable_pictures"] == 3


def test_start_from_weights_and_nothing_held_out(
    undisturbed: Path, shards: dict[str, list[str]], tmp_path: Path
) -> None:
    start = str(undisturbed / "model.safetensors")
    places = {"out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    few = config(1, lr=1e-9, min_lr=0.0, warmup_steps=0)
    metrics = pretrain(few, train_files=shards["train_files"], val_files=[], init=start, **places)
    assert metrics["held_out_mae"] is None and metrics["held_out_pictures"] == 0
    before, after = build_backbone("tiny"), build_backbone("tiny")
    load_weights(before, start)
    load_weights(after, tmp_path / "out" / "model.safetensors")
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=1e-6)


def test_held_out_loss_of_a_decoder_that_answers_nothing_is_one(shards: dict[str, list[str]]) -> None:
    objective = PretrainObjective(config())
    with torch.no_grad():
        for parameter in objective.decoder.parameters():
            parameter.zero_()
    measured = held_out_loss(objective, list(held_out_batches(shards["val_files"], config())), seed=0)
    # (n - 1) / n for unbiased deviations over n = 768 values.
    assert measured.mae == pytest.approx(1 - 1 / 768, abs=2e-3) and measured.pictures == 5


def test_what_cannot_run_is_refused_before_anything_is_built(
    shards: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(_: PretrainConfig) -> PretrainObjective:
        raise AssertionError("the objective was built")

    monkeypatch.setattr(run, "PretrainObjective", built)
    places = {"out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    save_weights(build_backbone(Architecture(dim=32, layers=2, heads=2)), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        pretrain(config(), **shards, **places, init=str(tmp_path / "other.safetensors"))
    with pytest.raises(FileNotFoundError, match="none"):
        pretrain(config(), **shards, **places, init=str(tmp_path / "none.safetensors"))
    (row,) = [shard_files.row(0, shard_files.encode(shard_files.picture(0)))]
    del row["width"]
    bare = shard_files.write(tmp_path / "bare.parquet", [row])
    with pytest.raises(ValueError, match=r"bare\.parquet lacks the columns \['width'\]"):
        pretrain(config(), train_files=[bare], val_files=[], **places)
    with pytest.raises(ValueError, match=r"batch=4 in engine\.micro_batches=2 .* no multiple of koleo_group=4"):
        config(micro_batches=2)
    three = config().model_copy(update={"engine": config().engine.model_copy(update={"micro_batches": 3})})
    with pytest.raises(ValueError, match="batch=4 does not divide among 3 ranks or micro-batches"):
        pretrain(three, **shards, **places)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2**20)
    with pytest.raises(ValueError, match=r"would need .* and 0\.0 GiB are free"):
        pretrain(config(), **shards, **places)
    assert not (tmp_path / "out").exists() and not (tmp_path / "state").exists()


def test_empty_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run the export step first"):
        pretrain(config(), train_files=[], val_files=[], out=str(tmp_path / "out"), state=str(tmp_path / "state"))
    assert not (tmp_path / "out").exists()
