"""`sapiens2 data check | import | export` as commands: exit codes, what is printed, files in and out."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.data_cli import check_command, export_command, import_command
from sapiens2.data.labelled import DatasetWriter, LabelledDataset
from sapiens2.data.labelled.write import png_bytes
from sapiens2.data.synthetic import render
from sapiens2.tasks.sample import from_scene


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    with DatasetWriter(str(tmp_path / "mine")) as writer:
        writer.add(from_scene(render(1, 96, 72)), "a", split="train")
        writer.add(from_scene(render(2, 96, 72)), "b", split="test")
    return tmp_path / "mine"


def test_a_good_folder_passes_and_a_broken_one_exits_with_2(folder):
    good = CliRunner().invoke(check_command, [str(folder), "--out", "look"])
    assert good.exit_code == 0, good.output
    assert "pose: 2 samples" in good.output and "2 rows, 0 errors" in good.output
    assert (folder.parent / "look" / "sheet.png").stat().st_size > 1000
    (folder / "masks" / "b.png").write_bytes(png_bytes(np.zeros((40, 30), np.uint8)))
    bad = CliRunner().invoke(check_command, [str(folder), "--task", "segmentation"])
    assert bad.exit_code == 2 and "2 rows, 1 errors" in bad.output
    assert "masks/b.png: is 30 x 40, its picture is 72 x 96; make label and picture the same size" in bad.output


def test_keypoints_go_out_and_come_in(folder):
    out = CliRunner().invoke(export_command, [str(folder), "--format", "sapiens308", "--out", "all.json"])
    assert out.exit_code == 0 and "2 people of 2 pictures as sapiens308" in out.output
    arguments = ["sapiens308", "--labels", "all.json", "--images", str(folder), "--out", "back", "--split", "val"]
    came = CliRunner().invoke(import_command, arguments, catch_exceptions=False)
    assert came.exit_code == 0 and "2 rows in back" in came.output
    before, after = (LabelledDataset(str(path), "pose", None) for path in (folder, folder.parent / "back"))
    for a, b in zip(before.rows, after.rows, strict=True):
        assert b.split == "val"
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-3)
        np.testing.assert_allclose(a.box, b.box, atol=2e-3)
    small = CliRunner().invoke(export_command, [str(folder), "--format", "coco17", "--out", "coco.json"])
    assert small.exit_code == 0
    content = json.loads((folder.parent / "coco.json").read_text())
    assert len(content["annotations"]) == 2 and len(content["annotations"][0]["keypoints"]) == 51
    with pytest.raises(ValueError, match="no keypoint layout is called 'coco18'; use one of coco17"):
        CliRunner().invoke(
            export_command, [str(folder), "--format", "coco18", "--out", "x.json"], catch_exceptions=False
        )
