"""Pose from given boxes beside labelled ones: per picture, doubles removed, misses counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sapiens2.data.labelled import DatasetWriter, LabelledDataset
from sapiens2.data.labelled.layout import Row
from sapiens2.data.labelled.write import png_bytes
from sapiens2.evaluation import given_boxes as module
from sapiens2.evaluation.config import EvaluateConfig, data_digest
from sapiens2.evaluation.given_boxes import boxes_section, measure_boxes, read_boxes, without_doubles
from sapiens2.tasks.config import DataSource
from sapiens2.tasks.predict import Prediction

RNG = np.random.default_rng(0)
FIGURE = RNG.uniform(0, 40, (308, 2)).round(1)  # one body, standing in several places
PLACES = {"a": (5.0, 60.0), "b": (30.0,)}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Two pictures, the first with two people."""
    with DatasetWriter(str(tmp_path / "data")) as writer:
        for name, places in PLACES.items():
            image = writer.file(f"images/{name}.png", png_bytes(np.zeros((60, 120, 3), np.uint8)))
            for x in places:
                points = np.concatenate([FIGURE + np.array([x, 8.0]), np.full((308, 1), 2.0)], 1)
                writer.rows.append(Row(image=image, keypoints=points, box=(x, 8, x + 40, 48), split="test"))
    return str(tmp_path / "data")


def knowing(images: list[np.ndarray], boxes: list[np.ndarray]) -> list[list[Prediction]]:
    """A model that puts the body where the box is."""
    return [[Prediction(b[:4], keypoints=FIGURE + b[:2], scores=np.full(308, 0.8)) for b in own] for own in boxes]


def measured(folder: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    monkeypatch.setattr(module, "predict", lambda model, images, boxes, **_: knowing(images, boxes))
    source = DataSource(path=folder, split="test")
    dataset = LabelledDataset(folder, "pose", "test")
    samples = [dataset.sample(k) for k in range(len(dataset))]
    answers = [{"keypoints": np.asarray(s.keypoints), "scores": np.full(308, 0.8)} for s in samples]
    poses = list(zip(samples, answers, strict=True))
    found = measure_boxes(None, source, poses, str(path), (64, 48), 2, rounds=5, seed=0)  # type: ignore[arg-type]
    assert boxes_section(found)["columns"] == ["metric", "given boxes", "labelled boxes"]
    return {name: {key: estimate.value for key, estimate in each.items()} for name, each in found.items()}


def test_a_perfect_detector_costs_nothing_and_a_miss_costs_its_person(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "boxes.json"
    right = {f"images/{n}.png": [[x, 8, x + 40, 48, 0.9] for x in places] for n, places in PLACES.items()}
    path.write_text(json.dumps(right))
    found = measured(folder, path, monkeypatch)
    assert found["given"]["AP"] == found["labelled"]["AP"] == pytest.approx(1, abs=1e-9)
    assert found["given"]["AR"] == 1
    path.write_text(json.dumps({"a.png": right["images/a.png"][:1], "b.png": right["images/b.png"]}))
    found = measured(folder, path, monkeypatch)
    assert found["given"]["AR"] == pytest.approx(2 / 3) and found["labelled"]["AR"] == 1
    # Twice the same person is once that person; a wrong box with the best score lowers the precision of all.
    double = right | {"images/b.png": right["images/b.png"] * 2}
    path.write_text(json.dumps(double))
    assert measured(folder, path, monkeypatch)["given"]["AP"] == pytest.approx(1, abs=1e-9)
    path.write_text(json.dumps(right | {"images/b.png": [[75, 15, 110, 50, 0.99], *right["images/b.png"]]}))
    wrong = measured(folder, path, monkeypatch)["given"]
    assert wrong["AR"] == 1 and wrong["AP"] == pytest.approx(3 / 4, abs=0.01)  # 1, then 3 of 4 at every recall


@pytest.mark.parametrize(
    ("box", "message"),
    [([200, 8, 240, 48], "lies outside the picture of 120 x 60"), ([5, 8, 45, 1e9], "reaches beyond")],
)
def test_a_box_that_is_refused_is_named_with_its_picture(
    box: list[float], message: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"a.png": [[5, 8, 45, 48]], "b.png": [[30, 8, 70, 48], box]}))
    with pytest.raises(ValueError, match=rf"boxes\.json: of the picture images/b\.png, box \[.*\] {message}"):
        measured(folder, path, monkeypatch)


def test_doubles_are_those_that_are_alike() -> None:
    sigmas = np.full(308, 0.05)
    moved = np.stack([FIGURE, FIGURE + 0.3, FIGURE + 30, FIGURE - 0.2])
    assert without_doubles(moved, np.array([0.5, 0.9, 0.1, 0.7]), sigmas).tolist() == [1, 2]
    assert without_doubles(np.zeros((0, 308, 2)), np.zeros(0), sigmas).tolist() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no", "is not JSON"),
        ("[]", "is no JSON object"),
        ('{"c.png": [[1, 2, 3, 4]]}', "names none of the 2 pictures: name them as the index does"),
        ('{"a.png": [[1, 2, 3]]}', "must be x0, y0, x1, y1 with an area"),
        ('{"a.png": [[9, 2, 3, 4]]}', "must be x0, y0, x1, y1 with an area"),
        ('{"a.png": [["x", 2, 3, 4]]}', "are no rows of numbers"),
        ('{"a.png": [[1, 2, 3, 1' + "0" * 400 + "]]}", "'a.png' are no rows of numbers"),
    ],
)
def test_wrong_files_of_boxes_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_boxes(str(tmp_path / "b.json"), ["images/a.png", "images/b.png"])


def test_a_file_name_that_two_pictures_share_names_neither(tmp_path: Path) -> None:
    path, box = tmp_path / "b.json", [[1, 2, 3, 4]]
    pictures = ["cam1/1.png", "cam2/1.png", "cam1/2.png"]
    path.write_text(json.dumps({"1.png": box, "2.png": box}))
    with pytest.raises(ValueError, match=r"'1\.png' may be cam1/1\.png or cam2/1\.png: name each picture by its path"):
        read_boxes(str(path), pictures)
    path.write_text(json.dumps({"cam1/1.png": box, "1.png": box}))  # the second still has no name of its own
    with pytest.raises(ValueError, match=r"cam1/1\.png or cam2/1\.png"):
        read_boxes(str(path), pictures)
    path.write_text(json.dumps({"cam1/1.png": box, "2.png": box * 2}))  # alone in its name
    assert [len(boxes) for boxes in read_boxes(str(path), pictures)] == [1, 0, 2]
    path.write_text(json.dumps({"cam1/1.png": box, "cam2/1.png": [], "1.png": box * 3}))
    assert [len(boxes) for boxes in read_boxes(str(path), pictures)] == [1, 0, 0]


def test_boxes_are_part_of_what_was_measured(folder: str, tmp_path: Path) -> None:
    source, path = DataSource(path=folder, split="test"), tmp_path / "b.json"
    path.write_text('{"a.png": []}')
    plain = data_digest(EvaluateConfig(task="pose", labelled=source))
    first = data_digest(EvaluateConfig(task="pose", labelled=source, boxes=str(path)))
    path.write_text('{"a.png": [[1, 2, 3, 4]]}')
    second = data_digest(EvaluateConfig(task="pose", labelled=source, boxes=str(path)))
    assert len({plain, first, second}) == 3
    with pytest.raises(ValueError, match="boxes are for pose on labelled data"):
        EvaluateConfig(task="normal", labelled=source, boxes=str(path))
    with pytest.raises(ValueError, match=r"boxes='b\.json' is relative"):
        EvaluateConfig(task="pose", labelled=source, boxes="b.json")
