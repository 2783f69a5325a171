"""Prediction on Ray, by two workers that share two chunks: the answers are those of one process."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from components.prediction.boxes import read_boxes
from components.prediction.inputs import Inputs, list_inputs
from components.prediction.run import RayOptions, make_job, predict_all
from components.prediction.worker import Job
from components.ray_session import ray_session
from sapiens2.data.synthetic import render
from sapiens2.model.weights import save_weights
from sapiens2.tasks.build import build_task

SHARE = 2e-3
"""Of pixels, that a last bit may turn: the number of threads may change it."""
BOXES = {"a.jpg": [[10, 5, 60, 90, 0.9], [2, 2, 30, 60, 0.6]], "sub/b.png": [[20, 5, 70, 75, 0.8]]}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of untrained tiny models of normals and of parts."""
    root = tmp_path_factory.mktemp("models")
    for task in ("normal", "segmentation"):
        torch.manual_seed(1)
        save_weights(build_task(task, "tiny"), root / task / "model.safetensors")
        about = {"task": task, "size": "tiny", "image_size": [64, 48]}
        (root / task / "config.json").write_text(json.dumps(about))
    return {task: str(root / task) for task in ("normal", "segmentation")}


def folder(here: Path) -> Path:
    """Two pictures of people, one that breaks off, one text file: a chunk of two and another of two."""
    (here / "sub").mkdir(parents=True)
    Image.fromarray(render(0, 96, 72).image).save(here / "a.jpg", quality=95)
    Image.fromarray(render(1, 80, 100).image).save(here / "sub" / "b.png")
    (here / "half.jpg").write_bytes((here / "a.jpg").read_bytes()[:900])
    (here / "notes.txt").write_text("no picture")
    return here


def film(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (72, 96))
    for k in range(frames):
        writer.write(np.ascontiguousarray(render(k, 96, 72).image[..., ::-1]))
    writer.release()
    return path


def test_two_chunks_on_ray_are_answered_as_here(models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "RAY_ADDRESS" not in os.environ
    monkeypatch.setattr("components.prediction.inputs.CHUNK", 2)
    (tmp_path / "boxes.json").write_text(json.dumps(BOXES))
    pictures, clip = folder(tmp_path / "pictures"), film(tmp_path / "clip.avi", 3)
    given = read_boxes(str(tmp_path / "boxes.json"))
    with ray_session():  # one for both runs
        for images, boxes in ((pictures, given), (clip, None)):
            outs = [tmp_path / f"{images.stem}-{name}" for name in ("here", "ray")]
            inputs = list_inputs(str(images))
            assert len(inputs.chunks) == 2
            for out, ray in zip(outs, (None, RayOptions(workers=2))):
                job = make_job("normal", models["normal"], str(out), boxes=boxes, people=models["segmentation"])
                assert steps(job, inputs, ray) in ([2, len(inputs.names)], [1, len(inputs.names)])
            compare(*outs)


def compare(*outs: Path) -> None:
    """Fails unless both folders hold the same files with the same content."""
    here, there = ({str(p.relative_to(out)): p for p in out.rglob("*") if p.is_file()} for out in outs)
    assert set(here) == set(there)
    assert {".json", ".parquet", ".npz", ".png", ".jpg"} <= {Path(name).suffix for name in here}
    for name in here:
        same(content(here[name]), content(there[name]), name)


def steps(job: Job, inputs: Inputs, ray: RayOptions | None) -> list[int]:
    """Pictures done after each chunk; chunks of Ray come in the order in which they are done."""
    told: list[int] = []
    predict_all(job, inputs, ray=ray, progress=lambda done, _: told.append(done))
    return told


def content(path: Path) -> Any:
    """What a file holds, as numbers and texts."""
    data = path.read_bytes()
    if path.suffix == ".json":
        return json.loads(data)
    if path.suffix == ".parquet":
        return pq.read_table(io.BytesIO(data)).to_pylist()
    if path.suffix == ".npz":
        with np.load(io.BytesIO(data)) as arrays:
            return dict(arrays)
    if path.suffix == ".mp4":
        video = cv2.VideoCapture(str(path))
        return [video.read()[1] for _ in range(int(video.get(cv2.CAP_PROP_FRAME_COUNT)))]
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def same(one: Any, other: Any, where: str) -> None:
    """Fails unless both hold the same, floats to a few last bits, pixels but for a few and these by little."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            same(one[key], other[key], f"{where}: {key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other)):
            same(*pair, f"{where}: {index}")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-3), where
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), where
        far = 2e-3 if one.dtype.kind == "f" else 2 if one.dtype == np.uint8 else 0
        apart = np.abs(one.astype(float) - other.astype(float)) > far
        assert apart.mean() <= SHARE, f"{where}: {apart.sum()} of {apart.size} values are apart"
    else:
        assert one == other, where


def test_same_tells_answers_apart() -> None:
    zeros = np.zeros((40, 40, 3), np.uint8)
    for one, other in (
        ({"a": [1.0, "x"]}, {"a": [1.1, "x"]}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ([0.5], [0.5, 0.5]),
        (zeros, zeros + np.uint8(9)),
        (zeros.astype(np.float16), zeros.astype(np.float16) + np.float16(0.01)),
        (zeros[..., 0] > 0, zeros[..., 0] == 0),
    ):
        same(one, one, "itself")
        with pytest.raises(AssertionError):
            same(one, other, "another")
