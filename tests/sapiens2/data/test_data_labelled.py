"""Labelled data: what is written is read back, what is wrong is named with its mend, the digest sees every byte."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapiens2.data.labelled import DatasetFacts, DatasetWriter, LabelError, LabelledDataset, data_digest
from sapiens2.data.labelled.check import check
from sapiens2.data.labelled.sheet import contact_sheet, page, tile
from sapiens2.data.labelled.write import npz_bytes, png_bytes
from sapiens2.data.synthetic import render
from sapiens2.tasks.build import TASKS
from sapiens2.tasks.sample import Sample, from_scene
from sapiens2.tasks.vocabulary import keypoints

SIZE = (96, 72)


def people(count: int = 2) -> list[Sample]:
    return [from_scene(render(seed, *SIZE)) for seed in range(count)]


def write(folder: Path, samples: list[Sample], **facts: Any) -> Path:
    with DatasetWriter(str(folder), DatasetFacts(name="people", **facts)) as writer:
        for number, sample in enumerate(samples):
            # A keypoint that is not labelled is stored as 0.
            writer.add(sample, f"{number:03d}", split="train" if number % 2 == 0 else "test")
    return folder


def edit(folder: Path, line: int = 0, **changes: Any) -> None:
    """Change columns of one row of the index."""
    index = folder / "index.jsonl"
    rows = [json.loads(text) for text in index.read_text().splitlines()]
    rows[line] |= changes
    index.write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))


@pytest.mark.parametrize("task", TASKS)
def test_what_is_written_is_read_back(task: str, tmp_path: Path) -> None:
    first, second = people()
    folder = write(tmp_path / "data", [replace(first, area=1234.5), second])
    dataset = LabelledDataset(str(folder), task, "train")
    assert dataset.sample(0).area == 1234.5 and LabelledDataset(str(folder), task, "test").sample(0).area is None
    assert len(dataset) == 1 and len(LabelledDataset(str(folder), task, None)) == 2
    read = dataset.sample(0)
    np.testing.assert_array_equal(read.image, first.image)
    assert read.box is not None and first.box is not None
    np.testing.assert_allclose(read.box, first.box)
    if task == "pose":
        assert first.labelled is not None and first.keypoints is not None and read.keypoints is not None
        np.testing.assert_array_equal(read.labelled, first.labelled)
        np.testing.assert_allclose(read.keypoints[first.labelled], first.keypoints[first.labelled], atol=1e-3)
    elif task == "segmentation":
        np.testing.assert_array_equal(read.mask, first.mask)
    else:
        field, slack = {"normal": ("normals", 1e-3), "pointmap": ("points", 1e-6), "albedo": ("albedo", 0.002)}[task]
        np.testing.assert_array_equal(read.valid, first.valid)
        np.testing.assert_allclose(getattr(read, field), getattr(first, field), atol=slack)


def test_a_parquet_index_is_the_same_data(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = write(tmp_path / "data", people())
    before = LabelledDataset(str(folder), "pose", None)
    rows = [json.loads(text) for text in (folder / "index.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "index.parquet")
    (folder / "index.jsonl").unlink()
    after = LabelledDataset(str(folder), "pose", None)
    for a, b in zip(before.rows, after.rows, strict=True):
        assert a.keypoints is not None and b.keypoints is not None
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        assert (a.image, a.box, a.split, a.mask) == (b.image, b.box, b.split, b.mask)


def test_depth_and_intrinsics_are_points(tmp_path: Path) -> None:
    (one,) = people(1)
    folder = write(tmp_path / "data", [one])
    assert one.points is not None and one.valid is not None
    millimetres = np.rint(one.points[..., 2] * 1000).astype(np.uint16)
    Image.fromarray(millimetres).save(folder / "depth.png")
    edit(folder, points=None, depth="depth.png", valid=None)
    read = LabelledDataset(str(folder), "pointmap").sample(0)
    np.testing.assert_array_equal(read.valid, one.valid)
    assert read.points is not None
    np.testing.assert_allclose(read.points[one.valid], one.points[one.valid], atol=1e-3)


def test_opengl_axes_are_turned(tmp_path: Path) -> None:
    (one,) = people(1)
    assert one.normals is not None and one.points is not None
    turned = replace(one, normals=one.normals * [1, -1, -1], points=one.points * [1, -1, -1])
    folder = str(write(tmp_path / "gl", [turned], axes="opengl"))
    np.testing.assert_allclose(LabelledDataset(folder, "normal").sample(0).normals, one.normals, atol=1e-3)  # type: ignore[arg-type]
    np.testing.assert_allclose(LabelledDataset(folder, "pointmap").sample(0).points, one.points, atol=1e-6)  # type: ignore[arg-type]
    wrong = str(write(tmp_path / "cv", [turned]))
    with pytest.raises(LabelError, match=r'look away.*set "axes": "opengl"'):
        LabelledDataset(wrong, "normal").sample(0)
    with pytest.raises(LabelError, match="behind the camera"):
        LabelledDataset(wrong, "pointmap").sample(0)


def small(folder: Path) -> None:
    (folder / "masks/000.png").write_bytes(png_bytes(np.zeros((50, 40), np.uint8)))


def unknown_class(folder: Path) -> None:
    (folder / "masks/000.png").write_bytes(png_bytes(np.full(SIZE, 40, np.uint8)))


def keypoint_outside(folder: Path) -> None:
    points = np.zeros((308, 3))
    points[11] = [500, 20, 2]
    edit(folder, keypoints=points.tolist())


def odd_visibility(folder: Path) -> None:
    points = np.zeros((308, 3))
    points[11] = [50, 20, 0.7]
    edit(folder, keypoints=points.tolist())


def nan_keypoint(folder: Path) -> None:
    points = np.zeros((308, 3))
    points[5] = [float("nan"), 20, 2]
    edit(folder, keypoints=points.tolist())


def nan_normals(folder: Path) -> None:
    normals = np.zeros((*SIZE, 3), np.float32)
    normals[40:50, 30:40] = [0, 0, -1]
    normals[45, 35] = np.nan
    (folder / "normals/000.npz").write_bytes(npz_bytes(normals=normals))
    edit(folder, valid=None)


def long_normals(folder: Path) -> None:
    (folder / "normals/000.npz").write_bytes(npz_bytes(normals=np.full((*SIZE, 3), -1, np.float32)))


def other_camera(folder: Path) -> None:
    edit(folder, intrinsics=[[100, 0, 10], [0, 100, 10], [0, 0, 1]])


def millimetres(folder: Path) -> None:
    (folder / "points/000.npz").write_bytes(npz_bytes(depth=np.full(SIZE, 2000.0, np.float32)))
    edit(folder, points=None, depth="points/000.npz")


def bright(folder: Path) -> None:
    (folder / "albedo/000.npy").write_bytes(_npy(np.full((*SIZE, 3), 1.5, np.float32)))
    edit(folder, albedo="albedo/000.npy")


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


WRONG = [
    ("segmentation", small, r"masks/000\.png: is 40 x 50, its picture is 72 x 96; make label and picture the same"),
    ("segmentation", unknown_class, r"masks/000\.png: has the class 40; use 0\.\.28 and 255"),
    (
        "segmentation",
        lambda f: edit(f, mask="/etc/passwd"),
        r"line 1: `mask` is the absolute path '/etc/passwd'; name a",
    ),
    (
        "segmentation",
        lambda f: edit(f, mask="s3://b/m.png"),
        r"absolute path 's3://b/m\.png'; .* relative to that folder",
    ),
    ("segmentation", lambda f: edit(f, mask="no.png"), r"no\.png: is not there; paths in the index are relative"),
    (
        "pose",
        keypoint_outside,
        r"index\.jsonl line 1: keypoint 11 \(left_knee\) at \(500, 20\) lies outside .* 72 x 96",
    ),
    ("pose", nan_keypoint, r"line 1: keypoint 5 \(left_shoulder\) at \(nan, 20\)"),
    ("pose", odd_visibility, r"keypoint 11 \(left_knee\) has the visibility 0\.7; use 0"),
    ("pose", lambda f: edit(f, keypoints=[[1, 2, 2]] * 17), r"`keypoints` has the shape \[17, 3\]; give 308 rows"),
    ("pose", lambda f: edit(f, box=[10, 10, 5, 20]), r"`box` .* has no area; give \[x0, y0, x1, y1\]"),
    (
        "pose",
        lambda f: edit(f, box=[10, 10, 50, 1e9]),
        r"`box` .* reaches beyond the picture of 72 x 96 pixels by more than 10 times",
    ),
    ("pose", lambda f: edit(f, box=[10, 10, 50, 1e400]), r"`box` \[10\.0, 10\.0, 50\.0, inf\] has no area"),
    (
        "pose",
        lambda f: edit(f, box=[10, 10, 50, 10**400]),
        r"`box` is not an array of numbers; give \[x0, y0, x1, y1\]",
    ),
    ("pose", lambda f: edit(f, area=-5), r"line 1: `area` is -5; give square pixels, or leave it out"),
    ("pose", lambda f: edit(f, area="big"), r"line 1: `area` is not an array of numbers; give square pixels"),
    ("pose", lambda f: (f / "images/000.png").write_bytes(b"no"), r"images/000\.png: is not a picture"),
    ("normal", nan_normals, r"normals/000\.npz: has NaN or infinite normals at 1 labelled pixels; store 0"),
    ("normal", long_normals, r"normals are not of length 1; divide each by its length"),
    ("pointmap", lambda f: edit(f, intrinsics=None), r"line 1: has no `intrinsics`; give \[\[fx"),
    ("pointmap", other_camera, r"points project .* pixels \(median\) from where they lie; give the intrinsics of this"),
    ("pointmap", millimetres, r"median depth is 2000 m; store metres, not millimetres"),
    ("albedo", bright, r"albedo lies in \[1\.5, 1\.5\]; store sRGB in \[0, 1\]"),
]


@pytest.mark.parametrize(("task", "spoil", "message"), WRONG, ids=[f"{t}-{k}" for k, (t, _, _) in enumerate(WRONG)])
def test_what_is_wrong_is_named_with_its_mend(task: str, spoil: Any, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "data", people())
    assert not check(str(folder), [task], show=0).errors
    spoil(folder)
    report = check(str(folder), [task], show=0)
    counts = report.counts[task]
    assert report.errors == 1 and report.rows == 2
    assert (counts["samples"], counts["unreadable"]) in ((2, 1), (1, 0))  # (1, 0): the row itself is malformed
    (text,) = (str(problem) for problem in report.problems if problem.error)
    assert re.search(message, text), text


def test_a_good_folder_is_counted_and_drawn(tmp_path: Path) -> None:
    samples = people(3)
    folder = write(tmp_path / "data", samples)
    report = check(str(folder), show=2)
    assert report.errors == 0 and report.rows == 3 and list(report.counts) == list(TASKS)
    assert report.counts["pose"]["splits"] == {"train": 2, "test": 1}
    assert report.counts["pose"]["width, px"] == [72, 72, 72]
    person = float(np.mean(samples[0].mask > 0))  # type: ignore[operator]
    low, _, high = report.counts["segmentation"]["share of person pixels"]
    assert low <= person <= high
    assert len(report.shown) == 10
    tiles = [tile(task, sample, 96) for task, _, sample in report.shown]
    sheet = contact_sheet(tiles, 400)
    assert sheet.shape[1] == 400 and len(np.unique(sheet)) > 50
    text = page(report)
    assert text.count("<figure>") == 10 and "0 errors" in text


@pytest.mark.parametrize(
    ("median", "message"),
    [
        (4, None),
        (0.14, r"index\.jsonl line 1: its median depth is 0\.\d+: in metres\?; multiply by"),
        (72, r"median depth is 72: in metres\?; divide millimetres by 1000 and centimetres by 100; .*`depth_unit`"),
    ],
)
def test_another_unit_is_doubted(median: float, message: str | None, tmp_path: Path) -> None:
    (one,) = people(1)
    assert one.points is not None and one.valid is not None
    times = median / np.median(one.points[one.valid][:, 2])
    folder = write(tmp_path / "data", [replace(one, points=one.points * np.float32(times))])
    report = check(str(folder), ["pointmap"], show=0)
    doubts = [str(problem) for problem in report.problems]
    assert not report.errors and len(doubts) == (message is not None)
    assert message is None or re.search(message, doubts[0]), doubts


def test_rows_that_no_task_reads_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", people())
    none = dict.fromkeys(("keypoints", "mask", "normals", "points", "albedo"))
    edit(folder, 1, **none)
    report = check(str(folder), show=0)
    (doubt,) = (str(problem) for problem in report.problems if "no label" in problem.problem)
    assert not report.errors and "line 2: has no label of any task; fill keypoints, mask" in doubt
    edit(folder, 0, **none)
    report = check(str(folder), show=0)
    assert report.errors == 1 and "no row has a label of any task" in str(report.problems[-1])


def test_doubts_do_not_fail(tmp_path: Path) -> None:
    (one,) = people(1)
    assert one.labelled is not None
    few = replace(one, labelled=np.arange(308) == np.flatnonzero(one.labelled)[0], box=None)
    folder = write(tmp_path / "data", [few, one])
    edit(folder, 1, image="images/000.png")
    report = check(str(folder), ["pose"], show=0)
    text = "\n".join(str(problem) for problem in report.problems)
    assert "has 1 labelled keypoints" in text and "has no `box`" in text
    assert "the picture images/000.png: is in the splits test, train" in text
    assert report.errors == 1  # only the leak is one


def test_an_index_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"neither index\.jsonl nor index\.parquet"):
        check(str(tmp_path))
    for line, message in (
        ("{oops", r"index\.jsonl line 1: is not JSON"),
        ('{"image": "a.png", "boxes": []}', r"unknown columns \['boxes'\]"),
        ('{"image": "a.png", "split": "dev"}', "use one of train, val, test"),
    ):
        (tmp_path / "index.jsonl").write_text(line + "\n")
        with pytest.raises(LabelError, match=message):
            LabelledDataset(str(tmp_path), "pose")
        (problem,) = check(str(tmp_path), ["pose"]).problems
        assert re.search(message, str(problem))


def test_the_digest_sees_every_byte_that_a_task_reads(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", people())
    whole = data_digest(str(folder))
    assert whole == data_digest(str(folder))
    copy = tmp_path / "elsewhere"
    folder.rename(copy)
    assert data_digest(str(copy)) == whole
    for name in ("masks/000.png", "index.jsonl", "images/001.png"):
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data + b"\n")
        assert data_digest(str(copy)) != whole, name
        (copy / name).write_bytes(data)
    (copy / "valid/000.png").unlink()
    with pytest.raises(LabelError, match=r"valid/000\.png: is not there"):
        data_digest(str(copy))


def test_left_stays_left(tmp_path: Path) -> None:
    """Index, layout and drawing know the person's sides: the left wrist of the file is the left wrist of the sample."""
    points = np.zeros((308, 3))
    left, right = keypoints().id("left_wrist"), keypoints().id("right_wrist")
    points[left], points[right] = [60, 20, 2], [10, 20, 1]
    with DatasetWriter(str(tmp_path)) as writer:
        writer.add(people(1)[0], "a")
    edit(tmp_path, keypoints=points.tolist())
    sample = LabelledDataset(str(tmp_path), "pose").sample(0)
    assert sample.keypoints is not None and sample.labelled is not None
    assert sample.keypoints[left].tolist() == [60, 20] and sample.keypoints[right].tolist() == [10, 20]
    assert np.flatnonzero(sample.labelled).tolist() == sorted([left, right])
