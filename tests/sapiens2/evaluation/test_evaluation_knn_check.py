"""k-NN before and after a phase: the verdict on backbones that know everything or nothing, and inside a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "pretrain"))  # shards made by code

import shard_files

from sapiens2.evaluation import knn_check as module
from sapiens2.evaluation.knn_check import KnnCheck, knn_check, scenes_for
from sapiens2.model.backbone import build_backbone
from sapiens2.model.sizes import SIZES, Architecture
from sapiens2.model.weights import save_weights
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.recipes import micro
from sapiens2.pretrain.run import pretrain

POSES = ["standing", "sitting", "walking"]


class Scenes:
    """Pictures whose first pixel tells the class; the rest is noise."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self._classes = {name: rng.integers(0, 3, count) for name in ("fit", "transfer")}

    def classes(self, name: str) -> list[str]:
        return [POSES[k] for k in self._classes[name]]

    def images(self, name: str) -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        images = [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in self._classes[name]]
        for image, k in zip(images, self._classes[name]):
            image[0, 0] = k
        return images


class Knows:
    """A backbone that tells the class of a share of the pictures, by their second pixel, and guesses the others."""

    name, dim = "knows", 3

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        noise = images[:, 1:].flatten(1).float()[:, :3] / 255
        told = torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 3).float() * 100
        lucky = images[:, 0, 1, :1].float() < 256 * self.share
        cls = torch.where(lucky, told, torch.zeros(())) + noise
        return cls, torch.zeros(len(images), 3, 1, 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return 1, 1


def checked(before: float, after: float, count: int = 300) -> KnnCheck:
    return knn_check(Knows(before), Knows(after), Scenes(count))  # type: ignore[arg-type]


def test_what_is_lost_is_worse_and_what_is_won_is_better() -> None:
    lost = checked(1.0, 0.0)
    assert lost.before == 1.0 and lost.after == pytest.approx(1 / 3, abs=0.1) and lost.verdict == "worse"
    assert lost.difference == pytest.approx(lost.after - lost.before) and lost.low <= lost.difference <= lost.high < 0
    assert checked(0.0, 1.0).verdict == "better"
    assert checked(1.0, 0.8).verdict == "worse"


def test_the_same_is_even_without_an_interval() -> None:
    same = checked(0.5, 0.5)
    assert (same.difference, same.low, same.high, same.verdict) == (0, 0, 0, "even")
    assert "even" in same.text() and same.told()["verdict"] == "even"


def test_pictures_are_small_and_whole_tokens() -> None:
    assert scenes_for(16, (2048, 1536))._stores["fit"].height == 256
    assert scenes_for(64, (4096, 3072))._stores["fit"].width == 768
    assert scenes_for(16, (64, 64))._stores["transfer"].height == 64


@pytest.fixture
def phase(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A reconstruction phase of two steps, and what it starts from."""
    monkeypatch.setitem(SIZES, "tiny", Architecture(dim=32, layers=2, heads=2))
    monkeypatch.setattr(module, "KNOWN", 24)
    monkeypatch.setattr(module, "ASKED", 12)
    monkeypatch.setenv("SAPIENS2_CACHE", str(tmp_path / "cache"))
    fields = micro().model_dump() | {"knn_check": True, "contrastive_weight": 0.0, "koleo_weight": 0.0}
    fields["engine"] |= {"threads": 1, "device": "cpu", "tensorboard": False, "lr": 1e-12, "min_lr": 0.0}
    torch.manual_seed(0)  # a backbone drawn by chance may know none of twelve pictures
    save_weights(build_backbone("tiny"), str(tmp_path / "before.safetensors"))
    places = {"out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    return {
        "config": PretrainConfig(**fields),
        "train_files": shard_files.shards(tmp_path, 6),
        "val_files": [],
    } | places


def test_a_phase_reports_before_after_and_verdict(phase: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="knn_check compares with the weights that a run starts from: give --init"):
        pretrain(**phase)
    metrics = pretrain(**phase, init=str(tmp_path / "before.safetensors"))
    assert metrics["knn"]["verdict"] == "even" and metrics["knn"]["scenes"] == 12
    assert metrics["knn"]["before"] == metrics["knn"]["after"] > 0  # two steps at a rate of 1e-12 change no weight
    assert "k-NN of pose classes" in (tmp_path / "out" / "fragment.json").read_text()
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["knn"] == metrics["knn"]
