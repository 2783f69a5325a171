"""What is predicted on: names of files, links, long names, and the frames of videos by one pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from task_models import untrained

from components.prediction.boxes import read_boxes
from components.prediction.inputs import list_inputs
from components.prediction.run import make_job, predict_all
from components.prediction.summary import closing_lines, film_rate
from curation.images import video
from sapiens2.data.synthetic import render


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of untrained tiny models of keypoints and of parts."""
    return untrained(tmp_path_factory.mktemp("models"), ("pose", "segmentation"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of people, one of them in a folder."""
    here = tmp_path / "pictures"
    (here / "sub").mkdir(parents=True)
    Image.fromarray(render(0, 96, 72).image).save(here / "a.jpg", quality=95)
    Image.fromarray(render(1, 80, 100).image).save(here / "sub" / "b.png")
    return here


def test_names_of_files_never_collide_or_leave_the_folder(tmp_path: Path) -> None:
    here = tmp_path / "pictures"
    for name in ("a.jpg", "a.png", "b c.jpg", "b+c.jpg", "..hidden.jpg", "x.y.jpg"):
        here.mkdir(exist_ok=True)
        (here / name).write_bytes(b"x")
    stems = [p.stem for chunk in list_inputs(str(here)).chunks for p in chunk.pictures]
    assert len(set(stems)) == 6 and {"a.jpg", "a.png", "x.y"} <= set(stems)
    assert not any(part.startswith(".") for stem in stems for part in stem.split("/"))


@pytest.mark.parametrize("letter", ["x", "\u00e9"])
def test_long_names_are_answered(letter: str, models: Any, folder: Path, tmp_path: Path) -> None:
    """Names as long as the disk allows: of ASCII, and of letters of two bytes."""
    data, long = (folder / "a.jpg").read_bytes(), letter * (248 // len(letter.encode()))
    here = tmp_path / "long" / long
    here.mkdir(parents=True)
    for name in (f"{long}1.jpg", f"{long}2.jpg", "short.jpg"):
        (here / name).write_bytes(data)
    out, inputs = tmp_path / "out", list_inputs(str(tmp_path / "long"))
    stems = {p.name.rpartition("/")[2]: p.stem for chunk in inputs.chunks for p in chunk.pictures}
    assert len(set(stems.values())) == 3 and stems["short.jpg"].endswith("/short")
    assert all(len(part.encode()) < 165 for stem in stems.values() for part in stem.split("/"))
    assert all(stem.startswith(long[:70]) for stem in stems.values())
    for kept in (0, 3):
        counts = predict_all(make_job("segmentation", models["segmentation"], str(out)), inputs)["counts"]
        assert (counts["done"], counts["kept"]) == (3, kept)
    assert all((out / "data" / f"{stem}.png").exists() for stem in stems.values())


def test_long_urls_have_short_stems(tmp_path: Path) -> None:
    urls = [f"https://example.com/{'p' * 300}/{k}.jpg" for k in range(2)]
    urls += [f"https://example.com/{'/'.join(['part' * 20] * 30)}/{k}.jpg" for k in range(2)]
    (tmp_path / "urls.txt").write_text("\n".join([*urls, "https://example.com/plain.jpg"]))
    stems = [p.stem for chunk in list_inputs(str(tmp_path / "urls.txt")).chunks for p in chunk.pictures]
    assert len(set(stems)) == 5 and stems[4].endswith("/plain")
    assert all(len(stem) < 810 and all(len(part) < 165 for part in stem.split("/")) for stem in stems)


def test_links_to_folders_are_named_and_no_pictures(models: Any, folder: Path, tmp_path: Path) -> None:
    (folder / "linkdir").symlink_to(folder / "sub")
    (folder / "sub" / "round").symlink_to(folder)
    (folder / "c.jpg").symlink_to(folder / "a.jpg")  # a link to a picture is one
    inputs = list_inputs(str(folder))
    assert inputs.names == ["a.jpg", "c.jpg", "sub/b.png"]
    summary = predict_all(make_job("segmentation", models["segmentation"], str(tmp_path / "out")), inputs)
    said = "2 links to folders are not followed, give these with --images: linkdir, sub/round"
    assert summary["notes"] == [said] and said in closing_lines(summary)
    only = tmp_path / "only"
    only.mkdir()
    (only / "link").symlink_to(folder)
    with pytest.raises(ValueError, match="only links to folders"):
        list_inputs(str(only))
    assert len(list_inputs(str(only / "link")).names) == 3


def film(path: Path, frames: int, corrupt: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (72, 96))
    for k in range(frames):
        writer.write(np.ascontiguousarray(render(k, 96, 72).image[..., ::-1]))
    writer.release()
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data) - 3) if data[i : i + 3] == b"\xff\xd8\xff"]
    data[starts[corrupt] : starts[corrupt + 1] - 8] = bytes(starts[corrupt + 1] - 8 - starts[corrupt])
    path.write_bytes(data)


@pytest.mark.parametrize("task", ["pose", "segmentation"])
def test_a_video_with_a_corrupt_frame(task: str, models: Any, tmp_path: Path) -> None:
    film(tmp_path / "clip.avi", 5, corrupt=2)
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({f"frame {k}": [[10, 5, 60, 90]] for k in range(4)}))
    job = make_job(task, models[task], str(tmp_path / "out"), boxes=read_boxes(str(boxes)), keep_plain=True)
    summary = predict_all(job, list_inputs(str(tmp_path / "clip.avi")))
    assert [p["status"] for p in summary["pictures"]] == ["done", "done", "unreadable", "done", "no_person"]
    assert "1 unreadable: frame 2 (corrupt)" in closing_lines(summary)
    assert list((tmp_path / "out" / "data").glob("frame_000003.*"))
    if not any("no video" in note for note in summary["notes"]):
        drawn = cv2.VideoCapture(str(tmp_path / "out" / "overlay.mp4"))
        assert int(drawn.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    assert predict_all(job, list_inputs(str(tmp_path / "clip.avi")))["counts"]["kept"] == 4


def test_a_video_is_read_by_one_pass(models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks go on where the one before ended; one that was done before is passed over."""
    film(tmp_path / "clip.avi", 8, corrupt=3)
    monkeypatch.setattr("components.prediction.inputs.CHUNK", 2)
    opened: list[str] = []
    really = video._capture

    def spied(path: str) -> Any:
        opened.append(path)
        return really(path)

    job = make_job("segmentation", models["segmentation"], str(tmp_path / "out"))
    inputs = list_inputs(str(tmp_path / "clip.avi"))
    monkeypatch.setattr(video, "_capture", spied)
    assert len(inputs.chunks) == 4 and predict_all(job, inputs)["counts"]["done"] == 7 and len(opened) == 1
    first = (tmp_path / "out" / "data" / "frame_000005.png").read_bytes()
    (tmp_path / "out" / "data" / "frame_000005.png").unlink()
    counts = predict_all(job, inputs)["counts"]
    assert (counts["done"], counts["kept"], len(opened)) == (7, 6, 2)
    assert (tmp_path / "out" / "data" / "frame_000005.png").read_bytes() == first


@pytest.mark.parametrize("fps", [0.001, 29.97, 59.94006, 66.789, 87.897, 119.8765, 239.8712, 960.125])
def test_films_have_a_rate_that_can_be_written(fps: float, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), film_rate(fps), (64, 48))
    opened = writer.isOpened()
    writer.release()
    if not cv2.VideoWriter(str(tmp_path / "b.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48)).isOpened():
        pytest.skip("needs an OpenCV that encodes mp4v")
    assert opened and (fps < 0.1 or film_rate(fps) == pytest.approx(fps, rel=1e-3))
