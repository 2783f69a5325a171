"""Rendered people as labelled data: the scenes' own labels, going on after an interruption, other data refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_body import write_body

from sapiens2.data.labelled import LabelledDataset
from sapiens2.data.labelled.check import check
from sapiens2.data.labelled.layout import LabelError, read_facts, read_index
from sapiens2.data.labelled.rendered import PROGRESS, RenderConfig, render_folder
from sapiens2.data.makehuman import Bodies
from sapiens2.data.synthetic import render
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.sample import from_scene

SMALL = {"height": 48, "width": 36}


class Killed(Exception):
    pass


def kill_after(number: int):
    def tell(done: int, _: int) -> None:
        if done >= number:
            raise Killed

    return tell


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_rows_hold_the_labels_of_their_scenes(tmp_path: Path) -> None:
    config = RenderConfig(count=3, height=96, width=72, look="test", first_seed=5, split="val")
    assert render_folder(tmp_path, config) == 3
    report = check(str(tmp_path), None, show=1)
    assert not report.problems and report.counts["pose"]["splits"] == {"val": 3}
    for number in range(3):
        scene = render(5 + number, 96, 72, "test")
        expected = from_scene(scene)
        for task in TASKS:
            found = LabelledDataset(str(tmp_path), task, None).sample(number)
            np.testing.assert_array_equal(found.image, expected.image)
            for name, tolerance in (("mask", 0), ("normals", 2e-3), ("points", 1e-5), ("albedo", 0.003)):
                if getattr(found, name) is not None:
                    np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=tolerance)
        row = read_index(str(tmp_path))[number]
        assert row.keypoints is not None and row.intrinsics is not None and row.box is not None
        labelled = np.asarray(expected.labelled)
        np.testing.assert_array_equal(row.keypoints[:, 2], np.where(labelled, scene.visibility, 0))
        np.testing.assert_allclose(row.keypoints[labelled, :2], scene.keypoints[labelled], atol=1e-3)
        np.testing.assert_allclose(row.intrinsics, scene.intrinsics, rtol=1e-6)
        np.testing.assert_allclose(row.box, scene.box)


def test_a_killed_rendering_goes_on_and_equals_a_calm_one(tmp_path: Path) -> None:
    config = RenderConfig(count=5, **SMALL)
    with pytest.raises(Killed):
        render_folder(tmp_path / "a", config, kill_after(2))
    assert not (tmp_path / "a" / "index.jsonl").exists()
    progress = tmp_path / "a" / PROGRESS
    progress.write_text(progress.read_text() + '{"image": "images/0000')  # a line that was cut short
    assert render_folder(tmp_path / "a", config) == 3
    assert render_folder(tmp_path / "b", config) == 5
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert render_folder(tmp_path / "a", config) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_folder_grows_and_processes_change_nothing(tmp_path: Path) -> None:
    render_folder(tmp_path / "a", RenderConfig(count=2, **SMALL))
    with pytest.raises(Killed):
        render_folder(tmp_path / "a", RenderConfig(count=6, **SMALL), kill_after(4))
    assert len(read_index(str(tmp_path / "a"))) == 2
    assert render_folder(tmp_path / "a", RenderConfig(count=6, jobs=2, **SMALL)) == 2
    render_folder(tmp_path / "b", RenderConfig(count=6, **SMALL))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_other_data_is_refused(tmp_path: Path) -> None:
    render_folder(tmp_path / "a", RenderConfig(count=2, **SMALL))
    with pytest.raises(LabelError, match="was rendered with first_seed 0 and not 7; give --out another folder"):
        render_folder(tmp_path / "a", RenderConfig(count=2, first_seed=7, **SMALL))
    index = tmp_path / "a" / "index.jsonl"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(LabelError, match=r"has images/000001\.png where scene 0 was: its index was changed"):
        render_folder(tmp_path / "a", RenderConfig(count=3, **SMALL))
    (tmp_path / "a" / "render.json").write_text("{")
    with pytest.raises(LabelError, match=r"render\.json: is not what was written there"):
        render_folder(tmp_path / "a", RenderConfig(count=3, **SMALL))
    (tmp_path / "a" / "render.json").unlink()
    with pytest.raises(LabelError, match=r"is not empty \(albedo, dataset\.json, images, \.\.\.\) and was not"):
        render_folder(tmp_path / "a", RenderConfig(count=3, **SMALL))


def test_what_is_said_of_a_folder_stays(tmp_path: Path) -> None:
    render_folder(tmp_path, RenderConfig(count=1, **SMALL))
    facts = json.loads((tmp_path / "dataset.json").read_text()) | {"licence": "CC-BY-4.0"}
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    render_folder(tmp_path, RenderConfig(count=2, **SMALL))
    assert read_facts(str(tmp_path)).licence == "CC-BY-4.0"


def test_labels_of_one_task_alone(tmp_path: Path) -> None:
    render_folder(tmp_path, RenderConfig(count=1, tasks=("segmentation",), **SMALL))
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"images", "masks"}
    values = json.loads((tmp_path / "index.jsonl").read_text())
    assert set(values) == {"image", "split", "box", "mask"}
    render_folder(tmp_path / "points", RenderConfig(count=1, tasks=("pointmap",), **SMALL))
    assert {p.name for p in (tmp_path / "points").iterdir() if p.is_dir()} == {"images", "points", "valid"}
    assert not check(str(tmp_path / "points"), ("pointmap",), show=1).problems


def test_makehuman_bodies_are_rendered(tmp_path: Path) -> None:
    body = write_body(tmp_path / "body")
    config = RenderConfig(count=1, height=96, width=72, makehuman=str(body))
    render_folder(tmp_path / "out", config)
    scene = Bodies(body).render(0, 96, 72, "train")
    found = LabelledDataset(str(tmp_path / "out"), "segmentation", None).sample(0)
    np.testing.assert_array_equal(found.mask, scene.mask)
    np.testing.assert_array_equal(found.image, scene.image)
    (body / "README.txt").write_text("no part of a body")
    assert render_folder(tmp_path / "out", config) == 0
    obj = body / "3dobjs/base.obj"
    obj.write_text(obj.read_text().replace("v 0.3", "v 0.4"))
    for other in (config, RenderConfig(count=1, height=96, width=72)):
        with pytest.raises(LabelError, match="was rendered with bodies"):
            render_folder(tmp_path / "out", other)
