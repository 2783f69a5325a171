"""Prediction end to end with tiny models: what is answered, what is named, what a rerun keeps, boxes from files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from task_models import untrained

from components.prediction.boxes import choose_detector, read_boxes
from components.prediction.inputs import list_inputs
from components.prediction.run import make_job, predict_all, resolve_checkpoint
from components.prediction.summary import closing_lines
from sapiens2.data.synthetic import render
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.load import load_task
from sapiens2.tasks.vocabulary import keypoints, parts


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of untrained tiny models by task."""
    return untrained(tmp_path_factory.mktemp("models"), TASKS)


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of people, one that breaks off, one text file."""
    here = tmp_path / "pictures"
    (here / "sub").mkdir(parents=True)
    (here / "a.jpg").write_bytes(jpeg(render(0, 96, 72).image))
    (here / "sub" / "b.png").write_bytes(b"")
    Image.fromarray(render(1, 80, 100).image).save(here / "sub" / "b.png")
    (here / "half.jpg").write_bytes(jpeg(render(2, 96, 72).image)[:900])
    (here / "notes.txt").write_text("no picture")
    return here


BOXES = {"a.jpg": [[10, 5, 60, 90, 0.9], [2, 2, 30, 60, 0.6]], "sub/b.png": [[20, 5, 70, 75, 0.8]]}


@pytest.fixture
def boxes(tmp_path: Path) -> Any:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(BOXES))
    return read_boxes(str(path))


def written(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


ENDINGS = {"pose": ["json"], "segmentation": ["png"], "normal": ["npz", "png"], "albedo": ["png"]}
ENDINGS["pointmap"] = ["npz", "ply"]


@pytest.mark.parametrize("task", TASKS)
def test_every_picture_is_answered_or_named(task: str, models: Any, folder: Path, boxes: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = predict_all(make_job(task, models[task], str(out), boxes=boxes), list_inputs(str(folder)))
    assert summary["counts"] == {
        **{"pictures": 4, "people": 3, "done": 2, "no_person": 0, "unreadable": 2, "failed": 0, "kept": 0}
    }
    status = {p["image"]: (p["status"], p.get("reason")) for p in summary["pictures"]}
    assert status["half.jpg"] == ("unreadable", "truncated") and status["notes.txt"] == ("unreadable", "not_an_image")
    assert "2 unreadable: half.jpg (truncated), notes.txt (not_an_image)" in closing_lines(summary)
    files = set(written(out))
    for stem in ("a", "sub/b"):
        assert {f"data/{stem}.{end}" for end in ENDINGS[task]} | {f"overlays/{stem}.jpg"} <= files
    assert json.loads((out / "predictions.json").read_text()) == summary
    table = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [(r["image"], r["person"]) for r in table if r["person"] is not None] == [
        ("a.jpg", 0),
        ("a.jpg", 1),
        ("sub/b.png", 0),
    ]
    assert next(r["detail"] for r in table if r["image"] == "half.jpg")
    check_data(task, out, table)


def check_data(task: str, out: Path, table: list[dict[str, Any]]) -> None:
    """The files of a.jpg hold what their table row says, at the picture's own size 96 x 72."""
    if task == "pose":
        record = json.loads((out / "data" / "a.json").read_text())
        assert (record["width"], record["height"]) == (72, 96) and len(record["people"]) == 2
        person = record["people"][0]
        assert np.array(person["keypoints"]).shape == (308, 3) and person["score"] == 0.9
        nose, left_ankle = keypoints().id("nose"), keypoints().id("left_ankle")
        assert person["coco17"][0] == person["keypoints"][nose]
        assert person["coco17"][15] == person["keypoints"][left_ankle]
        np.testing.assert_allclose(table[0]["keypoints"], np.ravel(person["keypoints"]), atol=1e-3)
    elif task in ("segmentation", "albedo"):
        picture = np.asarray(Image.open(out / "data" / "a.png"))
        assert picture.shape[:2] == (96, 72)
        if task == "segmentation":
            assert picture.dtype == np.uint8 and picture.max() < len(parts())
            assert len(table[0]["part_pixels"]) == len(parts())
        else:
            assert all(0 <= c <= 1 for c in table[0]["mean_albedo"])
    elif task == "normal":
        with np.load(out / "data" / "a.npz") as arrays:
            assert arrays["normals"].shape == (96, 72, 3)
            length = np.linalg.norm(arrays["normals"].astype(float), axis=-1)
            np.testing.assert_allclose(length[arrays["valid"]], 1, atol=2e-3)
    else:
        with np.load(out / "data" / "a.npz") as arrays:
            count, person = int(arrays["valid"].sum()), arrays["person"]
            assert arrays["focal_px"].shape == (2,) and set(np.unique(person)) <= {-1, 0, 1}
            np.testing.assert_allclose(arrays["focal_px"][0], table[0]["focal_px"], rtol=1e-3)
        header = (out / "data" / "a.ply").read_bytes().split(b"end_header\n")
        assert f"element vertex {count}\n".encode() in header[0] and len(header[1]) == 15 * count


def test_a_rerun_keeps_what_is_done_and_a_change_does_it_again(
    models: Any, folder: Path, boxes: Any, tmp_path: Path
) -> None:
    out, inputs = tmp_path / "out", list_inputs(str(folder))
    predict_all(make_job("pose", models["pose"], str(out), boxes=boxes), inputs)
    times = {p: p.stat().st_mtime_ns for p in (out / "data").rglob("*.json")}

    def again(**changes: Any) -> int:
        job = make_job("pose", models["pose"], str(out), **({"boxes": boxes} | changes))
        return int(predict_all(job, list_inputs(str(folder)))["counts"]["kept"])

    assert again() == 2 and {p: p.stat().st_mtime_ns for p in times} == times
    (out / "overlays" / "a.jpg").unlink()
    assert again() == 1 and (out / "overlays" / "a.jpg").exists()
    (folder / "a.jpg").write_bytes(jpeg(render(7, 96, 72).image))
    assert again() == 1
    assert again(image_size=(96, 64)) == 0 and again(image_size=(96, 64)) == 2
    assert again(image_size=(96, 64), flip=True) == 0
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(BOXES | {"a.jpg": [[11, 5, 60, 90, 0.9]]}))
    assert again(image_size=(96, 64), flip=True, boxes=read_boxes(str(changed))) == 1


def test_pictures_without_a_person_are_counted(models: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("image,x0,y0,x1,y1\na.jpg,10,5,60,90\nmissing.jpg,0,0,5,5\nsub/b.png,200,0,300,50\n")
    job = make_job("pose", models["pose"], str(tmp_path / "out"), boxes=read_boxes(str(path)))
    summary = predict_all(job, list_inputs(str(folder)))
    assert (summary["counts"]["done"], summary["counts"]["failed"]) == (1, 1)
    lines = "\n".join(closing_lines(summary))
    assert "1 refused: sub/b.png (box [200.0, 0.0, 300.0, 50.0] lies outside the picture of 100 x 80 pixels)" in lines
    assert "1 pictures of the box file are not among the pictures: missing.jpg" in lines
    path.write_text("image,x0,y0,x1,y1\n")
    job = make_job("pose", models["pose"], str(tmp_path / "out"), boxes=read_boxes(str(path)))
    assert predict_all(job, list_inputs(str(folder)))["counts"]["no_person"] == 2


def test_the_builtin_detector_finds_a_face_and_nobody_on_noise(models: Any, tmp_path: Path) -> None:
    here = tmp_path / "pictures"
    here.mkdir()
    from skimage.data import astronaut

    (here / "astronaut.jpg").write_bytes(jpeg(astronaut()))
    (here / "grey.jpg").write_bytes(jpeg(np.full((120, 160, 3), 128, np.uint8)))
    job = make_job("pose", models["pose"], str(tmp_path / "out"), detector=choose_detector("builtin", None))
    summary = predict_all(job, list_inputs(str(here)))
    assert {p["image"]: p["status"] for p in summary["pictures"]} == {"astronaut.jpg": "done", "grey.jpg": "no_person"}
    assert "1 without a person: grey.jpg" in closing_lines(summary)


@pytest.mark.parametrize("layout", ["flat", "detections"])
def test_boxes_by_image_id_from_parquet(layout: str, models: Any, folder: Path, tmp_path: Path) -> None:
    import hashlib

    image_id = hashlib.sha256((folder / "a.jpg").read_bytes()).hexdigest()[:32]
    if layout == "flat":
        table = pa.table({"image_id": [image_id], "x0": [10.0], "y0": [5.0], "x1": [60.0], "y1": [90.0]})
    else:
        table = pa.table({"image_id": [image_id], "boxes": [[[10.0, 5.0, 60.0, 90.0]]], "box_scores": [[0.5]]})
    pq.write_table(table, tmp_path / "boxes.parquet")
    given = read_boxes(str(tmp_path / "boxes.parquet"))
    summary = predict_all(
        make_job("pose", models["pose"], str(tmp_path / "out"), boxes=given), list_inputs(str(folder))
    )
    assert summary["counts"]["people"] == 1 and not any("box file" in note for note in summary["notes"])


def test_a_threshold_that_hides_every_keypoint_is_said(models: Any, folder: Path, boxes: Any, tmp_path: Path) -> None:
    job = make_job("pose", models["pose"], str(tmp_path / "out"), boxes=boxes, least_keypoint_score=9.0)
    summary = predict_all(job, list_inputs(str(folder)))
    assert summary["notes"] == ["3 of 3 people have no keypoint of score 9.0 to draw: lower --keypoint-score"]


def test_a_parquet_of_pictures_and_one_picture(models: Any, folder: Path, tmp_path: Path) -> None:
    data = (folder / "a.jpg").read_bytes()
    pq.write_table(pa.table({"bytes": pa.array([data, data[:400]], pa.binary())}), tmp_path / "pool.parquet")
    job = make_job("segmentation", models["segmentation"], str(tmp_path / "out"))
    summary = predict_all(job, list_inputs(str(tmp_path / "pool.parquet")))
    assert [p["status"] for p in summary["pictures"]] == ["done", "unreadable"]
    assert (tmp_path / "out" / "data" / "pool.parquet" / "0.png").exists()
    one = predict_all(make_job("pose", models["pose"], str(tmp_path / "one")), list_inputs(str(folder / "a.jpg")))
    assert one["counts"]["done"] == 1 and (tmp_path / "one" / "data" / "a.json").exists()


def test_checkpoints_by_path_and_by_artifact(tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_checkpoint(models["pose"], str(tmp_path)) == models["pose"]
    with pytest.raises(ValueError, match="no artifact, tag or version 'pose'"):
        resolve_checkpoint("pose", str(tmp_path))
    (tmp_path / "pose").mkdir()  # the answers of an earlier run are not taken for weights
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no artifact, tag or version 'pose'"):
        resolve_checkpoint(None, str(tmp_path), "pose")
    assert resolve_checkpoint("pose", str(tmp_path)) == "pose"
    with pytest.raises(ValueError, match="holds a pose model of size tiny, not task normal"):
        predict_all(make_job("normal", models["pose"], str(tmp_path / "out")), list_inputs(models["pose"]))
    for device, said in (("cuda:99", "torch finds .* GPU"), ("gpu", "there is no device 'gpu'")):
        with pytest.raises(ValueError, match=said):
            load_task(models["pose"], device=device)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        make_job("pose", str(tmp_path / "nowhere"), str(tmp_path / "out"))
