"""Evaluation on labels of their own size: a model that knows the answer is measured as perfect, whatever the size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from sapiens2 import build_backbone, save_weights
from sapiens2.data.labelled import DatasetWriter, LabelError
from sapiens2.data.synthetic import render
from sapiens2.evaluation.config import EvaluateConfig
from sapiens2.evaluation.measure import MAIN
from sapiens2.evaluation.run import evaluate
from sapiens2.tasks import recipes
from sapiens2.tasks.build import TASKS
from sapiens2.tasks.config import DataSource
from sapiens2.tasks.run import finetune
from sapiens2.tasks.sample import from_scene


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pictures of several sizes: two to learn from, two to measure on."""
    path = tmp_path_factory.mktemp("labelled")
    with DatasetWriter(str(path)) as writer:
        for k, size in enumerate([(90, 130), (128, 96), (110, 70), (100, 100)]):
            writer.add(from_scene(render(200 + k, *size)), str(k), split="train" if k < 2 else "test")
    return str(path)


@pytest.mark.parametrize("task", TASKS)
def test_trained_and_measured_on_labelled_data(task: str, folder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_weights(build_backbone("tiny"), tmp_path / "b.safetensors")
    source = DataSource(path=folder)
    config = recipes.micro(task).model_copy(update={"sources": (source, DataSource(weight=0.5))})  # type: ignore[arg-type]
    trained = finetune(
        config, backbone=str(tmp_path / "b.safetensors"), out=str(tmp_path / "o"), state=str(tmp_path / "s")
    )
    assert trained["unreadable"] == 0
    assert [(s["samples"], s["share"]) for s in trained["sources"]] == [(2, 0.667), (4, 0.333)]
    sections = json.loads((tmp_path / "o" / "fragment.json").read_text())["sections"]
    notes = {s["title"]: (s["note"], len(s["items"])) for s in sections if s["type"] == "images"}
    assert notes["Answers"] == ("Labelled pictures of the split test, not trained on.", 2)
    assert notes["Training samples"][0].startswith("Of 2 sources") and notes["Training samples"][1] == 4
    chosen = EvaluateConfig(task=task, rounds=5, pictures=2, labelled=DataSource(path=folder, split="test"))  # type: ignore[arg-type]
    metrics = evaluate(chosen, checkpoint=str(tmp_path / "o"), out=str(tmp_path / "e"))
    assert metrics["n_test"] == 2 and np.isfinite(metrics["value"])
    if task == "pose":  # beside the labelled boxes, those of a detector that finds nobody in the second picture
        (tmp_path / "boxes.json").write_text(json.dumps({"2.png": [[5, 5, 60, 100, 0.9]], "3.png": []}))
        given = evaluate(
            chosen.model_copy(update={"boxes": str(tmp_path / "boxes.json")}),
            checkpoint=str(tmp_path / "o"),
            out=str(tmp_path / "g"),
        )
        assert set(given["boxes"]) == {"given", "labelled"} and given["metrics"] == metrics["metrics"]
        assert all(given["boxes"]["labelled"][name] == metrics["metrics"][name] for name in ("AP", "AR"))
        assert (tmp_path / "g" / "table.csv").read_text().splitlines()[-1].startswith('"tiny, given boxes",')
    assert metrics["baseline"][MAIN[task][0]]["value"] is not None


def test_a_broken_sample_is_an_error_in_evaluation(folder: str, tmp_path: Path) -> None:
    from sapiens2.evaluation.labelled import load_labelled

    with DatasetWriter(str(tmp_path)) as writer:
        writer.add(from_scene(render(1, 64, 48)), "a", split="test")
    (tmp_path / "normals/a.npz").write_bytes(b"no")
    with pytest.raises(LabelError, match=r"normals/a\.npz"):
        list(load_labelled(DataSource(path=str(tmp_path), split="test"), "normal"))


@pytest.mark.parametrize("task", TASKS)
def test_who_knows_the_answer_is_perfect_at_any_size(task: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth, seen through the network's frame and brought back, meets the truth."""
    from sapiens2.evaluation import labelled as module
    from sapiens2.evaluation.measure import statistic_of
    from sapiens2.tasks.mixture import framed

    size = (256, 192)
    samples = list(module.load_labelled(DataSource(path=folder, split="test"), task))
    answers: list[Any] = []
    for sample in samples:
        seen = framed(task, sample, size)
        if task == "pose":
            mean: Any = {"keypoints": seen.keypoints, "scores": np.ones(308, np.float32)}
        elif task == "segmentation":
            mean = {"labels": seen.mask}
        elif task == "pointmap":
            assert seen.points is not None and seen.intrinsics is not None
            mean = {"map": seen.points * np.float32(size[1] / seen.intrinsics[0, 0])}
        else:
            mean = {"map": seen.normals if task == "normal" else seen.albedo}
        if "map" in mean:  # the surface goes on beyond the silhouette, as a network's answer does
            nearest = ndimage.distance_transform_edt(~seen.valid, return_distances=False, return_indices=True)
            mean = {"map": np.ascontiguousarray(mean["map"][tuple(nearest)])}
        answers.append(module.placed(task, mean, sample, size))
    found = statistic_of(task, answers, samples)(np.arange(len(samples)))
    main, higher = MAIN[task]
    limit = {"normal": 8.0, "pointmap": 0.08, "albedo": 0.05}
    assert found[main] > 0.9 if higher else found[main] < limit[task], found
    assert samples[0].image.shape != samples[1].image.shape
