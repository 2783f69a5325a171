"""Evaluation on labels of their own size: a model that knows the answer is measured as perfect, whatever the size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from sapiens2 import build_backbone, save_weights
from sapiens2.data.labelled import DatasetWriter, LabelError
from sapiens2.data.labelled.check import check
from sapiens2.data.synthetic import render
from sapiens2.evaluation.config import EvaluateConfig
from sapiens2.evaluation.measure import MAIN
from sapiens2.evaluation.run import evaluate
from sapiens2.tasks import recipes
from sapiens2.tasks.build import TASKS
from sapiens2.tasks.config import DataSource, FinetuneConfig
from sapiens2.tasks.run import finetune
from sapiens2.tasks.sample import from_scene
from sapiens2.tasks.vocabulary import keypoints


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
    assert sum(s["images"] for s in trained["sources"]) == trained["images"] == 4
    assert all(s["epochs"] == s["images"] / s["samples"] for s in trained["sources"])
    assert "epochs" not in trained and trained["scenes"] == 4  # the sources are gone through at different rates
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


def test_people_of_points_in_a_line_are_trained_and_measured_to_the_end(folder: str, tmp_path: Path) -> None:
    """Rows that pass the check, more of them in a batch than there are scenes, none of which is rendered."""
    points = np.zeros((3, 308, 3))
    points[0, :9] = np.stack([np.arange(20, 29), np.full(9, 40), np.full(9, 2)], 1)  # a row
    points[1, :9] = [30, 40, 2]  # all at one place
    points[2, 7] = [69.5, 109.5, 2]  # one alone, on the edge
    pictures = Path(folder)
    (tmp_path / "d/images").mkdir(parents=True)
    (tmp_path / "d/images/a.png").write_bytes((pictures / "images/2.png").read_bytes())
    rows = [{"image": "images/a.png", "keypoints": one.tolist()} for one in points]
    (tmp_path / "d/index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not check(str(tmp_path / "d"), ["pose"]).errors
    torch.manual_seed(0)
    save_weights(build_backbone("tiny"), tmp_path / "b.safetensors")
    source = DataSource(path=str(tmp_path / "d"))
    config = FinetuneConfig(**recipes.micro("pose").model_dump() | {"sources": (source.model_dump(),), "batch": 6})
    backbone = str(tmp_path / "b.safetensors")
    trained = finetune(config, backbone=backbone, out=str(tmp_path / "o"), state=str(tmp_path / "s"))
    assert trained["images"] == 12 and trained["epochs"] == 4 and "scenes" not in trained
    sections = json.loads((tmp_path / "o" / "fragment.json").read_text())["sections"]
    facts = next(s for s in sections if s["title"] == "Fine-tuning for pose")
    assert ["images seen", "12 (4.0 times 3 labelled samples)"] in [list(row) for row in facts["rows"]]
    assert len(next(s for s in sections if s["title"] == "Answers")["items"]) == 3
    chosen = EvaluateConfig(task="pose", rounds=5, pictures=2, labelled=source)
    metrics = evaluate(chosen, checkpoint=str(tmp_path / "o"), out=str(tmp_path / "e"))
    assert metrics["n_test"] == 3 and np.isfinite(metrics["value"])


def test_people_without_a_body_and_pictures_without_a_label_are_evaluated(folder: str, tmp_path: Path) -> None:
    """Faces alone have no body to be found; where nothing is known at all nothing is measured, and that is told."""
    made = tmp_path / "trained"
    torch.manual_seed(0)
    save_weights(build_backbone("tiny"), tmp_path / "b.safetensors")
    config = FinetuneConfig(**recipes.micro("pose").model_dump())
    finetune(config, backbone=str(tmp_path / "b.safetensors"), out=str(made), state=str(tmp_path / "s"))
    face = keypoints().group("face")
    for name, keep in (("faces", face), ("nothing", [])):
        points = np.zeros((2, 308, 3))
        points[:, keep, :2] = np.random.default_rng(0).uniform(20, 50, (2, len(keep), 2))
        points[:, keep, 2] = 2
        (tmp_path / name).mkdir()
        shutil.copytree(Path(folder) / "images", tmp_path / name / "images")
        rows = [{"image": "images/2.png", "keypoints": one.tolist(), "box": [10, 10, 60, 60]} for one in points]
        (tmp_path / name / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        chosen = EvaluateConfig(task="pose", rounds=5, pictures=1, labelled=DataSource(path=str(tmp_path / name)))
        metrics = evaluate(chosen, checkpoint=str(made), out=str(tmp_path / f"{name}-out"))
        sections = json.loads((tmp_path / f"{name}-out" / "fragment.json").read_text())["sections"]
        if name == "faces":
            assert metrics["main"] == "PCK@0.1 all" and np.isfinite(metrics["value"])
            assert metrics["metrics"]["PCK@0.1 body"]["value"] is None
        else:
            assert metrics["main"] == "PCK@0.1 body" and metrics["value"] is None and metrics["gain"] is None
            assert sections[0]["body"] == "On 2 labelled samples PCK@0.1 body is not measured."


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
    from sapiens2.evaluation import measure as module_measure
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
    if task == "pointmap":  # in canonical units, before any is aligned
        for answer, sample in zip(answers, samples, strict=True):
            truth = sample.points * module_measure.canonical_per_metre(sample)
            ratios = answer["map"][sample.valid][:, 2] / truth[sample.valid][:, 2]
            assert np.median(ratios) == pytest.approx(1, abs=2e-3)
    found = statistic_of(task, answers, samples)(np.arange(len(samples)))
    main, higher = MAIN[task]
    limit = {"normal": 8.0, "pointmap": 0.08, "albedo": 0.05}
    assert found[main] > 0.9 if higher else found[main] < limit[task], found
    assert samples[0].image.shape != samples[1].image.shape
