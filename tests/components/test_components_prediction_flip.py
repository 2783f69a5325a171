"""The flip test of every task, as files; and what is said of weak answers and of wrong places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from components.prediction.inputs import list_inputs
from components.prediction.run import _unseen, make_job, predict_all
from pipelines.cli import cli
from sapiens2.data.synthetic import render
from sapiens2.model.weights import save_weights
from sapiens2.tasks.build import build_task
from sapiens2.tasks.head_specs import TASKS, TaskName
from sapiens2.tasks.vocabulary import keypoints, parts

HEIGHT, WIDTH = 64, 48


def saved(task: TaskName, folder: Path) -> str:
    torch.manual_seed(1)
    save_weights(build_task(task, "tiny"), folder / "model.safetensors")
    about = {"task": task, "size": "tiny", "image_size": [HEIGHT, WIDTH]}
    (folder / "config.json").write_text(json.dumps(about))
    return str(folder)


def answer(task: str, out: Path, name: str) -> np.ndarray:
    """What the files say of a picture: keypoints [308, 2], or a map [H, W, ...]."""
    if task == "pose":
        (person,) = json.loads((out / f"data/{name}.json").read_text())["people"]
        return np.array(person["keypoints"])[:, :2]
    if task in ("segmentation", "albedo"):
        return np.asarray(Image.open(out / f"data/{name}.png")).astype(float)
    with np.load(out / f"data/{name}.npz") as arrays:
        return arrays["normals" if task == "normal" else "points"].astype(float)


def turned(task: str, found: np.ndarray) -> np.ndarray:
    """The answer to a mirror image, for the picture itself."""
    if task == "pose":
        return found[keypoints().flip] * [-1, 1] + [WIDTH - 1, 0]
    found = found[:, ::-1]
    if task == "segmentation":
        return parts().flip[found.astype(int)]
    return found * [-1, 1, 1] if task in ("normal", "pointmap") else found


@pytest.mark.parametrize("task", TASKS)
def test_with_the_flip_test_left_and_right_get_one_answer(task: TaskName, tmp_path: Path) -> None:
    model, pictures = saved(task, tmp_path / "model"), tmp_path / "pictures"
    pictures.mkdir()
    image = render(3, HEIGHT, WIDTH).image
    Image.fromarray(image).save(pictures / "one.png")
    Image.fromarray(np.ascontiguousarray(image[:, ::-1])).save(pictures / "other.png")
    unlike = {}
    for option in ("--flip-test", "--no-overlays"):
        out = tmp_path / option
        places = ["--images", str(pictures), "--out", str(out), "--checkpoint", model, "--boxes", "none"]
        done = CliRunner().invoke(cli, ["predict", task, *places, "--device", "cpu", option])
        assert done.exit_code == 0, done.output
        one, other = answer(task, out, "one"), turned(task, answer(task, out, "other"))
        unlike[option] = float((one != other).mean() if task == "segmentation" else np.abs(one - other).mean())
    assert unlike["--flip-test"] < 0.02 * unlike["--no-overlays"] and unlike["--no-overlays"] > 0.01, unlike


def record(body: int, face: int) -> dict[str, Any]:
    """A person with so many points of the body and of the face above 0.3."""
    scores, words = np.full(308, 0.1), keypoints()
    scores[words.group("body")[:body]] = scores[words.group("face")[:face]] = 0.5
    return {"keypoints": np.stack([scores, scores, scores], 1).ravel().tolist()}


def test_people_without_most_of_a_body_are_said(tmp_path: Path) -> None:
    job = make_job("pose", saved("pose", tmp_path / "model"), str(tmp_path / "out"))

    def said(*people: dict[str, Any]) -> list[str]:
        return _unseen(job, [{"people": [one]} for one in people])

    note = "people have fewer than 6 of the 17 body points of score 0.3 to draw: lower --keypoint-score"
    assert said(record(5, 200), record(0, 1), record(17, 0)) == [f"2 of 3 {note}"]
    assert said(record(5, 200), record(6, 0)) == [] == said(record(6, 0)) == said()
    none = "1 of 3 people have no keypoint of score 0.3 to draw: lower --keypoint-score"
    assert said(record(0, 0), record(17, 9), record(17, 9)) == [none]
    assert said(record(0, 0), record(3, 9), record(17, 9)) == [none, f"2 of 3 {note}"]


def test_an_empty_folder_of_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is empty; give a folder with pictures") as caught:
        list_inputs(str(tmp_path / "empty"))
    assert str(caught.value).startswith(str(tmp_path / "empty"))


def test_pictures_whose_names_differ_in_a_space_keep_their_own_files(tmp_path: Path) -> None:
    here, out = tmp_path / "pictures", tmp_path / "out"
    here.mkdir()
    names = ("a b.png", "a_b.png", "a_b.png-2", "c d.png")
    for k, name in enumerate(names):
        Image.fromarray(render(k, HEIGHT, WIDTH).image).save(here / name, "PNG")
    summary = predict_all(make_job("normal", saved("normal", tmp_path / "model"), str(out)), list_inputs(str(here)))
    files = {picture["image"]: picture["files"] for picture in summary["pictures"]}
    pngs = {name: {Path(file).name for file in files[name] if file.endswith(".png")} for name in names}
    assert pngs["a_b.png"] == {"a_b.png.png"} and pngs["a_b.png-2"] == {"a_b.png-2.png"}
    assert pngs["a b.png"] == {"a_b.png-3.png"} and pngs["c d.png"] == {"c_d.png"}
    assert len({file for each in files.values() for file in each}) == sum(map(len, files.values())) == 3 * 4
