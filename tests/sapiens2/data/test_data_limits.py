"""What passes the check can be framed, trained on and answered: boxes, sizes, paths, unknown values, cameras."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sapiens2.data.labelled import DatasetWriter, LabelError, LabelledDataset
from sapiens2.data.labelled.check import check
from sapiens2.data.labelled.layout import parse_row
from sapiens2.data.labelled.read import read_image
from sapiens2.data.labelled.write import npz_bytes, png_bytes
from sapiens2.data.synthetic import render
from sapiens2.tasks.mixture import framed, person_box
from sapiens2.tasks.pointmap_losses import intrinsics_loss
from sapiens2.tasks.predict import checked_boxes
from sapiens2.tasks.regions import MAX_SIDE, person_region, window_of
from sapiens2.tasks.sample import Sample, flip, from_scene

Array = np.ndarray
H, W = 96, 72


@pytest.fixture(scope="module")
def one() -> Sample:
    return from_scene(render(0, H, W))


@pytest.fixture
def folder(tmp_path: Path, one: Sample) -> Path:
    """One person with every label."""
    with DatasetWriter(str(tmp_path / "data")) as writer:
        writer.add(one, "a")
    return tmp_path / "data"


def edit(folder: Path, **changes: Any) -> None:
    row = json.loads((folder / "index.jsonl").read_text()) | changes
    (folder / "index.jsonl").write_text(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n")


def errors(folder: Path, *tasks: str) -> list[str]:
    return [str(problem) for problem in check(str(folder), tasks or None, show=0).problems if problem.error]


def boxes() -> Iterator[tuple[float, float, float, float]]:
    """Boxes about every edge of the picture, wide and narrow, some of them beside it."""
    for edge in (-0.7, -0.5, -1e-9, 0.0, 1e-9, 0.3):
        yield from ((edge - 3, 9, edge, 40), (9, edge - 0.2, 40, edge), (edge - 1e-9, 9, edge, 40))
    for edge in (-1.3, -1.0 - 1e-9, -1.0, -0.9, -0.3, 0.0, 0.5):
        yield from ((W + edge, 9, W + 9, 40), (9, H + edge, 40, H + edge + 0.1))
    yield from ((10, 10, 10.0000001, 40), (1e7, 0, 1e7 + 0.1, 9), (-1e300, 0, 1e300, 9), (0, 0, W + 10.0 * H, 9))


def test_a_box_passes_the_check_if_and_only_if_it_can_be_answered(folder: Path) -> None:
    passed = 0
    for box in boxes():
        edit(folder, box=box)
        found = errors(folder, "pose")
        narrow = np.clip(box, -1e38, 1e38).astype(np.float32)
        try:
            checked_boxes(narrow[None], (H, W))
        except ValueError:
            assert len(found) == 1, box
            continue
        assert not found, box
        sample = LabelledDataset(str(folder), "pose").sample(0)
        taken = person_box(sample)
        checked_boxes(taken[None], (H, W))
        x0, y0, x1, y1 = window_of(person_region(taken, 0.75), (H, W))
        assert x0 < x1 and y0 < y1, box  # no answer is of no pixel
        passed += 1
    assert passed == 8
    edit(folder, box=[W - 0.8, 9, W + 9, 40])
    (text,) = errors(folder, "pose")
    assert "lies outside the picture of 72 x 96; let it reach past the centres of the picture's outermost pix" in text


LINES: dict[str, list[tuple[float, float]]] = {
    "one point": [(30, 40)],
    "all at one place": [(30, 40)] * 9,
    "closer than two pixels": [(30, 40), (31, 41.5)],
    "a row": [(20 + k, 40) for k in range(9)],
    "a column on the last pixel": [(W - 0.5, 10.0 + k) for k in range(9)],
    "a column on the first pixel": [(-0.5, 10.0 + k) for k in range(9)],
    "a row on the last pixel": [(10.0 + k, H - 0.5) for k in range(9)],
    "none": [],
}


@pytest.mark.parametrize("name", LINES)
def test_keypoints_without_an_area_are_framed_and_answered(name: str, folder: Path) -> None:
    points = np.zeros((308, 3))
    for k, (x, y) in enumerate(LINES[name]):
        points[k] = [x, y, 2]
    edit(folder, box=None, keypoints=points.tolist())
    assert not errors(folder, "pose")
    sample = LabelledDataset(str(folder), "pose").sample(0)
    box = person_box(sample)
    checked_boxes(box[None], (H, W))
    seen = framed("pose", sample, (64, 48))
    assert seen.labelled is not None and seen.labelled.sum() == len(LINES[name])
    if "row" in name or "column" in name:
        assert (box[2:] - box[:2]).tolist() == ([8, 2] if "row" in name else [2, 8])
    else:  # nothing says how large the person is
        assert box.tolist() == [0, 0, W - 1, H - 1]
    for height, width in ((40, 1), (1, 40), (1, 1)):
        thin = Sample(np.zeros((height, width, 3), np.uint8), keypoints=np.zeros((308, 2), np.float32))
        checked_boxes(person_box(thin)[None], (height, width))


def test_one_bad_box_is_one_error(folder: Path) -> None:
    edit(folder, box=[10, 10, 5, 20])
    (text,) = errors(folder)
    assert "`box` [10.0, 10.0, 5.0, 20.0] has no area" in text
    counts = check(str(folder), show=0).counts
    assert len(counts) == 5 and all(each["unreadable"] == 1 for each in counts.values())


@pytest.mark.parametrize("name", ["normals", "points", "depth"])
def test_zero_is_unknown_inside_a_silhouette_too(name: str, folder: Path, one: Sample) -> None:
    task = "normal" if name == "normals" else "pointmap"
    assert one.points is not None and one.normals is not None and one.valid is not None
    hole = np.zeros((H, W), bool)
    hole.ravel()[np.flatnonzero(one.valid)[:40]] = True
    values = np.where(hole[..., None], 0, one.normals if name == "normals" else one.points).astype(np.float32)
    values = values[..., 2] if name == "depth" else values
    (folder / "holed.npz").write_bytes(npz_bytes(**{name: values}))
    edit(folder, **{"points": None, name: "holed.npz"} if name == "depth" else {name: "holed.npz"})
    assert not errors(folder, task)
    sample = LabelledDataset(str(folder), task).sample(0)
    np.testing.assert_array_equal(sample.valid, one.valid & ~hole)
    values[hole] = np.nan  # what is not a number is no way to say unknown
    (folder / "holed.npz").write_bytes(npz_bytes(**{name: values}))
    (text,) = errors(folder, task)
    assert "has NaN or infinite" in text and "at 40 labelled pixels" in text


def test_a_camera_of_skewed_pixels_is_honoured_everywhere(folder: Path, one: Sample) -> None:
    """Depth and a skewed camera: points lie on their rays as read, framed and mirrored, and the loss agrees."""
    assert one.intrinsics is not None and one.points is not None
    camera = one.intrinsics.astype(float)
    camera[0, 1], camera[1, 1] = 0.2 * camera[0, 0], 1.1 * camera[1, 1]
    (folder / "depth.npz").write_bytes(npz_bytes(depth=one.points[..., 2]))
    edit(folder, points=None, depth="depth.npz", intrinsics=camera.tolist())
    assert not errors(folder, "pointmap")
    read = LabelledDataset(str(folder), "pointmap").sample(0)
    seen = framed("pointmap", read, (64, 64))
    for sample in (read, flip(read), seen, flip(seen)):
        assert sample.points is not None and sample.valid is not None and sample.intrinsics is not None
        assert abs(sample.intrinsics[0, 1]) > 1
        projected = sample.points[sample.valid].astype(float) @ sample.intrinsics.T.astype(float)
        found = projected[:, :2] / projected[:, 2:]
        np.testing.assert_allclose(found, np.argwhere(sample.valid)[:, ::-1], atol=1e-3)
        points = torch.from_numpy(sample.points).movedim(-1, 0)[None]
        mask, k = torch.from_numpy(sample.valid)[None, None], torch.from_numpy(sample.intrinsics)[None]
        assert float(intrinsics_loss(points, mask, k)) < 1e-5
    one_skewed = replace(one, intrinsics=camera.astype(np.float32))
    np.testing.assert_array_equal(flip(flip(one_skewed)).intrinsics, one_skewed.intrinsics)


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (1, 0, 0.5, r"have 0\.5 at K\[1, 0\], where a camera has 0; give \[\[fx, 0, cx\]"),
        (2, 0, 0.1, r"have 0\.1 at K\[2, 0\], where a camera has 0"),
        (2, 1, 0.1, r"have 0\.1 at K\[2, 1\], where a camera has 0"),
        (2, 2, 2, r"have 2 at K\[2, 2\], where a camera has 1"),
        (0, 0, -50, r"are no camera of a picture of 72 x 96"),
        (2, 2, float("nan"), r"are no camera of a picture of 72 x 96"),
    ],
)
def test_what_is_no_camera_is_refused(
    row: int, column: int, value: float, message: str, folder: Path, one: Sample
) -> None:
    assert one.intrinsics is not None and one.points is not None
    camera = one.intrinsics.astype(float)
    camera[row, column] = value
    (folder / "depth.npz").write_bytes(npz_bytes(depth=one.points[..., 2]))
    edit(folder, points=None, depth="depth.npz", intrinsics=camera.tolist())
    with pytest.raises(LabelError, match=message):
        LabelledDataset(str(folder), "pointmap").sample(0)
    assert len(errors(folder, "pointmap")) == 1


def test_pictures_too_long_to_be_framed_are_refused(tmp_path: Path) -> None:
    for side in (MAX_SIDE, MAX_SIDE + 1):
        path = tmp_path / f"{side}.png"
        path.write_bytes(png_bytes(np.full((4, side, 3), 90, np.uint8)))
        if side <= MAX_SIDE:
            picture = Sample(read_image(str(path)), mask=np.zeros((4, side), np.uint8))
            assert framed("segmentation", picture, (64, 48)).image.shape == (64, 48, 3)
            continue
        with pytest.raises(LabelError, match=r"32767\.png: has a side of 32767 pixels; cut .* sides of 32766 or less"):
            read_image(str(path))


@pytest.mark.parametrize("name", ["../good/a.png", "images/../../a.png", "images/../images/a.png", ".."])
def test_paths_do_not_go_up(name: str) -> None:
    with pytest.raises(LabelError, match=r"line 1: `mask` is .*, which may lead out of the folder; put the file below"):
        parse_row("index.jsonl line 1", {"image": "images/a.png", "mask": name})
    assert parse_row("line 1", {"image": "images/a..png", "mask": "..hidden/a.png"}).mask == "..hidden/a.png"
