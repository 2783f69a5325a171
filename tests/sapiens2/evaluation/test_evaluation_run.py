"""A whole fine-tuning run and its evaluation, two steps small."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sapiens2 import build_backbone, save_weights
from sapiens2.evaluation import recipes as evaluations
from sapiens2.evaluation.config import EvaluateConfig
from sapiens2.evaluation.measure import MAIN
from sapiens2.evaluation.run import evaluate
from sapiens2.tasks import recipes
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.run import finetune


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("backbone") / "model.safetensors"
    save_weights(build_backbone("tiny"), path)
    return str(path)


@pytest.mark.parametrize("task", TASKS)
def test_a_checkpoint_is_measured_and_drawn(task: str, backbone: str, tmp_path: Path) -> None:
    finetune(recipes.micro(task), backbone=backbone, out=str(tmp_path / "out"), state=str(tmp_path / "state"))  # type: ignore[arg-type]
    config = evaluations.micro(task)  # type: ignore[arg-type]
    metrics = evaluate(config, checkpoint=str(tmp_path / "out"), out=str(tmp_path / "eval"))
    assert metrics == json.loads((tmp_path / "eval" / "metrics.json").read_text())
    main = metrics["metrics"][MAIN[task][0]]
    assert main["low"] <= main["value"] <= main["high"] and metrics["main"] == MAIN[task][0]
    assert set(metrics["baseline"]) == set(metrics["metrics"])
    fragment = json.loads((tmp_path / "eval" / "fragment.json").read_text())
    table = next(s for s in fragment["sections"] if s["type"] == "table")
    assert any(row[0] == metrics["main"] for row in table["rows"])
    *published, ours = csv.reader((tmp_path / "eval" / "table.csv").read_text().splitlines())
    row = dict(zip(published[0], ours, strict=True))
    assert row.pop("evaluation") == row.pop("checkpoint") == "" and all(row.values())
    assert row["model"] == "tiny" and row["origin"] == "measured here"
    assert row["test set"] == f"{config.n_test} synthetic scenes, 64 x 48"
    assert (tmp_path / "eval" / "table.tex").read_text().count(r" \\") == len(published) + 2  # intervals below ours
    assert any(s["title"].startswith("In the layout of the paper") for s in fragment["sections"])
    pictures = next(s for s in fragment["sections"] if s["type"] == "images")["items"]
    assert len(pictures) == 2
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]["jpeg"]))) as picture:
        assert picture.width == 4 * 48 and picture.height == 64
    again = evaluate(config, checkpoint=str(tmp_path / "out"), out=str(tmp_path / "again"), name=f"{task}=3fd2")
    assert again | {"seconds": 0} == metrics | {"seconds": 0}
    assert "tiny (3fd2)" in (tmp_path / "again" / "table.tex").read_text()
    assert ("picture" in metrics) == (task == "albedo")
    if task == "albedo":
        the_picture_itself_is_shown(metrics, fragment["sections"])


def the_picture_itself_is_shown(metrics: dict[str, Any], sections: list[dict[str, Any]]) -> None:
    """Of albedo: with its interval wherever the mean of the labels is, and in what is said."""
    found = metrics["picture"]["mae"]
    assert set(metrics["picture"]) == set(metrics["metrics"]) and found["low"] <= found["value"] <= found["high"]
    assert metrics["picture_gain"] == pytest.approx(1 - metrics["value"] / found["value"])
    assert re.search(r"\d+ % (less|more) error than the mean and ", sections[0]["body"].replace("%", " %"))
    assert "than the picture itself, taken as albedo." in sections[0]["body"]
    beside = [s for s in sections if "mean of the training labels" in s.get("columns", ())]
    assert beside and all(s["columns"][-1] == "the picture itself" for s in beside)
    assert all(len(row) == len(s["columns"]) for s in beside for row in s["rows"])
    text = f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
    assert next(row for row in sections[1]["rows"] if row[0] == "mae")[-1] == text


def test_a_checkpoint_of_another_task_is_refused(backbone: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    finetune(recipes.micro("albedo"), backbone=backbone, out=out, state=str(tmp_path / "state"))
    with pytest.raises(ValueError, match="albedo model, not pose"):
        evaluate(EvaluateConfig(task="pose"), checkpoint=out, out=str(tmp_path / "eval"))
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        evaluate(EvaluateConfig(task="pose"), checkpoint=str(tmp_path / "none"), out=str(tmp_path / "eval"))
