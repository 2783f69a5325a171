"""What is measured: answers with the flip test on every path, averaged here by hand, and albedo as it was said."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sapiens2 import save_weights
from sapiens2.data.labelled import DatasetWriter
from sapiens2.data.synthetic import render
from sapiens2.evaluation import given_boxes, labelled
from sapiens2.evaluation import recipes as evaluations
from sapiens2.evaluation.config import EvaluateConfig
from sapiens2.evaluation.measure import MAIN, statistic_of
from sapiens2.evaluation.run import answer, evaluate, load_scenes
from sapiens2.model.normalise import normalise
from sapiens2.tasks import recipes
from sapiens2.tasks.assemble import assemble
from sapiens2.tasks.build import TaskModel, build_task
from sapiens2.tasks.config import DataSource
from sapiens2.tasks.head_specs import OUTPUT, TASKS, TaskName
from sapiens2.tasks.heatmaps import decode, to_image
from sapiens2.tasks.predict import Prediction, predict
from sapiens2.tasks.regions import crop, person_region
from sapiens2.tasks.sample import Sample, flip, from_scene
from sapiens2.tasks.vocabulary import keypoints

Array = np.ndarray
SIZE = (64, 48)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def checkpoint(task: TaskName, path: Path) -> str:
    """The folder of a run whose weights are chance."""
    config = recipes.micro(task)
    torch.manual_seed(0)
    path.mkdir()
    save_weights(assemble(config), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    return str(path)


def seen_and_mirrored(model: TaskModel, seen: Array) -> tuple[Tensor, Tensor]:
    """Raw outputs of a picture, and those of its mirror image turned back, left and right not changed over yet."""
    crops = normalise(torch.from_numpy(np.ascontiguousarray(np.stack([seen, seen[:, ::-1]]))))
    with torch.no_grad():
        one, other = model.eval()(crops)[OUTPUT[model.task]].double()
    return one, other.flip(-1)


def pose_by_hand(model: TaskModel, image: Array, box: Array) -> Array:
    """Keypoints [308, 2] in the picture from the mean of both heatmaps."""
    region = person_region(box, SIZE[1] / SIZE[0])
    one, other = seen_and_mirrored(model, crop(image, region, SIZE))
    mean = torch.stack([(one[k] + other[partner]) / 2 for k, partner in enumerate(keypoints().flip.tolist())])
    xy = to_image(decode(mean[None])[0], SIZE, (mean.shape[-2], mean.shape[-1]))[0].numpy()
    return np.stack([xy[:, k] * (region[2 + k] - region[k]) / (SIZE[1 - k] - 1) + region[k] for k in (0, 1)], -1)


def some_people() -> list[Sample]:
    return [from_scene(render(210 + k, *size)) for k, size in enumerate([(64, 48), (90, 70)])]


@pytest.mark.parametrize("task", TASKS)
def test_a_flip_test_is_another_answer_on_either_path(task: TaskName) -> None:
    torch.manual_seed(0)
    model, people = build_task(task, "tiny"), some_people()
    paths: list[Callable[[bool], Any]] = [
        lambda flip: answer(model, people[:1], 2, flip=flip),
        lambda flip: labelled.answer_native(model, people, SIZE, 2, flip=flip),
    ]
    for path in paths:
        for plain, tested in zip(path(False), path(True), strict=True):
            assert plain.keys() == tested.keys()
            assert any((plain[name] != tested[name]).any() for name in plain)


def test_evaluation_on_synthetic_people_measures_the_mean_of_both(tmp_path: Path) -> None:
    path = checkpoint("albedo", tmp_path / "o")
    config = evaluations.micro("albedo").model_copy(update={"flip": True})
    metrics = evaluate(config, checkpoint=path, out=str(tmp_path / "e"))
    samples = load_scenes(4, SIZE, "test", 0, None)
    torch.manual_seed(0)
    model = assemble(recipes.micro("albedo"))

    def mean(sample: Sample) -> Array:
        raw = torch.stack(seen_and_mirrored(model, sample.image)).mean(0, keepdim=True)
        return torch.nn.functional.interpolate(raw, SIZE, mode="bilinear")[0].movedim(0, -1).numpy()

    expected = statistic_of("albedo", [{"map": mean(s)} for s in samples], samples)(np.arange(4))
    found = {name: figure["value"] for name, figure in metrics["metrics"].items()}
    assert found == pytest.approx(expected, rel=1e-4) and metrics["flip"] is True
    plain = evaluate(evaluations.micro("albedo"), checkpoint=path, out=str(tmp_path / "p"))
    assert plain["flip"] is False and plain["metrics"]["mae"] != metrics["metrics"]["mae"]
    assert plain["baseline"] == metrics["baseline"]
    said = [(tmp_path / out / "fragment.json").read_text().lower().count("flip test") for out in ("e", "p")]
    assert said[0] >= 2 and said[1] == 0
    names = [list(csv.reader((tmp_path / out / "table.csv").read_text().splitlines()))[-1][0] for out in ("e", "p")]
    assert names == ["tiny, flip test", "tiny"]


def test_labelled_and_given_boxes_are_answered_by_the_mean_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every person that either path asks for, against the mean of two heatmaps."""
    with DatasetWriter(str(tmp_path / "data")) as writer:
        for k, person in enumerate(some_people()):
            writer.add(person, str(k), split="test")
    (tmp_path / "boxes.json").write_text(json.dumps({"0.png": [[4, 3, 40, 60, 0.9]], "1.png": [[9, 9, 60, 80, 0.8]]}))
    asked: dict[str, list[tuple[TaskModel, Array, Prediction]]] = {}

    def spy(name: str) -> Callable[..., list[list[Prediction]]]:
        def spied(model: TaskModel, images: list[Array], **options: Any) -> list[list[Prediction]]:
            found = predict(model, images, **options)
            asked.setdefault(name, []).extend((model, i, one) for i, own in zip(images, found) for one in own)
            return found

        return spied

    monkeypatch.setattr(labelled, "predict", spy("labelled"))
    monkeypatch.setattr(given_boxes, "predict", spy("given"))
    path = checkpoint("pose", tmp_path / "o")
    source = DataSource(path=str(tmp_path / "data"), split="test")
    config = EvaluateConfig(task="pose", labelled=source, boxes=str(tmp_path / "boxes.json"), rounds=2, pictures=0)
    for flipped in (True, False):
        asked.clear()
        tested = config.model_copy(update={"flip": flipped})
        metrics = evaluate(tested, checkpoint=path, out=str(tmp_path / f"e{flipped}"))
        assert np.isfinite(metrics["value"]) and {name: len(each) for name, each in asked.items()} == {
            "labelled": 2,
            "given": 2,
        }
        for model, image, one in (each for every in asked.values() for each in every):
            near = np.abs(np.asarray(one.keypoints) - pose_by_hand(model, image, one.box)).max(-1) < 0.01
            assert near.mean() > 0.99 if flipped else near.mean() < 0.5
        *_, ours, given = csv.reader((tmp_path / f"e{flipped}" / "table.csv").read_text().splitlines())
        ending = ", flip test" if flipped else ""
        assert (ours[0], given[0]) == (f"tiny{ending}", f"tiny, given boxes{ending}")
        assert ("308 keypoints. With flip test." in (tmp_path / f"e{flipped}" / "fragment.json").read_text()) == flipped


def test_labelled_maps_are_the_mean_of_picture_and_mirror_image() -> None:
    """At the labels' own size, where the picture fits in with margins."""
    torch.manual_seed(0)
    model, people = build_task("albedo", "tiny"), some_people()
    plain, tested = (labelled.answer_native(model, people, SIZE, 2, flip=each) for each in (False, True))
    for one, both, sample in zip(plain, tested, people, strict=True):
        (other,) = labelled.answer_native(model, [flip(sample)], SIZE, 1)
        expected = (one["map"] + other["map"][:, ::-1]) / 2
        away = np.abs(both["map"] - expected).mean()
        assert away < 0.1 * np.abs(one["map"] - expected).mean()


def test_albedo_is_measured_as_said_and_clamped_in_predictions_only() -> None:
    torch.manual_seed(0)
    model, people = build_task("albedo", "tiny"), some_people()
    model.register_forward_hook(lambda _, __, out: {"albedo": torch.full_like(out["albedo"], 1.25)})
    for found in (*answer(model, people[:1], 1), *labelled.answer_native(model, people, SIZE, 2)):
        np.testing.assert_allclose(found["map"], 1.25, atol=1e-6)
    (drawn,), (whole,) = predict(model, [person.image for person in people], input_size=SIZE)
    assert drawn.albedo is not None and whole.albedo is not None
    assert drawn.albedo.max() == whole.albedo.max() == 1
    (said,) = predict(model, [people[0].image], input_size=SIZE, clamp=False)[0]
    assert said.albedo is not None and said.albedo.min() == pytest.approx(1.25)
    expected = statistic_of("albedo", [{"map": np.full((64, 48, 3), 1.25)}], people[:1])(np.arange(1))
    measured = statistic_of("albedo", answer(model, people[:1], 1), people[:1])(np.arange(1))
    assert measured == pytest.approx(expected, rel=1e-5) and measured[MAIN["albedo"][0]] > 0.25
