"""`sapiens2 predict` on real photographs: a small network finds the people, a model trained for seconds answers.

Needs SAPIENS2_ACCEPTANCE: a folder with data/pool and models. The overlays lie where -s prints, to be looked at.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from components.prediction.boxes import choose_detector
from components.prediction.inputs import list_inputs
from components.prediction.run import make_job, predict_all
from sapiens2.model.backbone import build_backbone
from sapiens2.model.weights import save_weights
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.recipes import demo
from sapiens2.tasks.run import finetune

PEOPLE = ("00006.jpg", "00020.jpg", "00027.jpg", "00090.jpg", "00118.jpg")
NOBODY = ("00008.png",)


@pytest.fixture(scope="module")
def pictures(acceptance: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People, a screenshot, and a photograph that breaks off."""
    folder = tmp_path_factory.mktemp("pool")
    for name in (*PEOPLE, *NOBODY):
        shutil.copy(acceptance / "data" / "pool" / "images" / name, folder / name)
    (folder / "broken.jpg").write_bytes((folder / PEOPLE[-1]).read_bytes()[:30_000])
    return folder


def trained(task: str, folder: Path) -> str:
    """A tiny model after 80 steps on synthetic people."""
    recipe = demo(task).model_dump()  # type: ignore[arg-type]
    recipe["engine"] |= {"steps": 80, "threads": 2}
    torch.manual_seed(0)
    save_weights(build_backbone("tiny"), folder / "backbone.safetensors")
    places = {"out": str(folder / task), "state": str(folder / "state" / task)}
    finetune(FinetuneConfig(**recipe), backbone=str(folder / "backbone.safetensors"), **places)
    return str(folder / task)


@pytest.mark.timeout(600)
def test_people_of_the_pool_are_found_and_answered(
    acceptance: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAPIENS2_MODELS", str(acceptance / "models"))
    parts, out = trained("segmentation", tmp_path), tmp_path / "answers"
    job = make_job("segmentation", parts, str(out), detector=choose_detector("small", None))
    summary: dict[str, Any] = predict_all(job, list_inputs(str(pictures)))
    print(f"\noverlays: {out}/overlays  {json.dumps(summary['counts'])}")
    status = {p["image"]: p["status"] for p in summary["pictures"]}
    assert status == dict.fromkeys(PEOPLE, "done") | dict.fromkeys(NOBODY, "no_person") | {"broken.jpg": "unreadable"}
    people = {p["image"]: p["people"] for p in summary["pictures"]}
    assert people["00027.jpg"] == people["00118.jpg"] == 1
    assert all(people[name] >= 3 for name in ("00006.jpg", "00020.jpg", "00090.jpg"))
    for name in PEOPLE:
        with Image.open(pictures / name) as photograph, Image.open(out / "data" / f"{name[:5]}.png") as mask:
            assert mask.size == photograph.size and mask.mode == "P"
            share = float((np.asarray(mask) > 0).mean())
        assert 0.02 < share < 0.9, f"{name}: {share:.2f} of the picture is people"
