"""`sapiens2 data check | import | export` as commands: exit codes, what is printed, files in and out."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipelines.data_cli import check_command, export_command, import_command, render_command
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


def test_more_malformed_rows_than_are_printed_are_counted(folder):
    index = folder / "index.jsonl"
    index.write_text(index.read_text() + "{oops\n" * 30)
    bad = CliRunner().invoke(check_command, [str(folder), "--show", "1"])
    assert bad.exit_code == 2 and "32 rows, 30 errors" in bad.output and "pose: 2 samples" in bad.output
    assert "index.jsonl line 3: is not JSON" in bad.output and "index.jsonl line 22: is not JSON" in bad.output
    assert "line 23" not in bad.output and "and 10 more, on the page" in bad.output
    assert "line 32: is not JSON" in (folder.parent / "data-check" / "check.html").read_text()


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


def masks(folder, names=("a",)):
    for kind, value in (("pictures", np.zeros((8, 6, 3), np.uint8)), ("labels", np.full((8, 6), 2, np.uint8))):
        (folder / kind).mkdir(exist_ok=True)
        for name in names:
            (folder / kind / f"{name}.png").write_bytes(png_bytes(value))
    return ["cihp20", "--labels", "labels", "--images", "pictures"]


def test_a_second_import_does_not_replace_the_first(folder):
    arguments = [*masks(folder.parent), "--out", "parts"]
    assert CliRunner().invoke(import_command, arguments, catch_exceptions=False).exit_code == 0
    before = (folder.parent / "parts" / "index.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"parts: has an index\.jsonl already, .*; import into a new folder"):
        CliRunner().invoke(import_command, [*arguments, "--split", "val"], catch_exceptions=False)
    assert (folder.parent / "parts" / "index.jsonl").read_bytes() == before


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_import_into_the_folder_of_the_labels_changes_nothing(folder):
    """The layout's own names, OUT/masks and OUT/images, may be those of the only copies."""
    own = folder.parent / "own"
    own.mkdir()
    masks(own)
    (own / "labels").rename(own / "masks")
    (own / "pictures").rename(own / "images")
    before = contents(own)
    arguments = ["cihp20", "--labels", "own/masks", "--images", "own/images", "--out", "own"]
    with pytest.raises(ValueError, match=r"own/masks/a\.png: is there already, .*; import into a new folder"):
        CliRunner().invoke(import_command, arguments, catch_exceptions=False)
    assert contents(own) == before
    (own / "masks").rename(own / "ids")  # pictures that are in place already need no copy
    arguments[2] = "own/ids"
    done = CliRunner().invoke(import_command, arguments, catch_exceptions=False)
    assert "1 rows in own" in done.output and (own / "images" / "a.png").read_bytes() == before["images/a.png"]


def test_pictures_of_the_folder_are_not_written_over(folder):
    assert CliRunner().invoke(export_command, [str(folder), "--format", "coco17", "--out", "c.json"]).exit_code == 0
    out = folder.parent / "out" / "images" / "images"
    out.mkdir(parents=True)
    (out / "b.png").write_bytes(b"another picture of that name")
    arguments = ["coco17", "--labels", "c.json", "--images", str(folder), "--out", "out"]
    with pytest.raises(ValueError, match=r"out/images/images/b\.png: is there already"):
        CliRunner().invoke(import_command, arguments, catch_exceptions=False)
    assert contents(folder.parent / "out") == {"images/images/b.png": b"another picture of that name"}


def test_facts_of_the_folder_are_not_written_over(folder):
    arguments = [*masks(folder.parent), "--out", "parts"]
    facts = folder.parent / "parts" / "dataset.json"
    facts.parent.mkdir()
    facts.write_text('{"licence": "ours"}')
    with pytest.raises(ValueError, match=r"parts: has a dataset\.json already that says other things"):
        CliRunner().invoke(import_command, arguments, catch_exceptions=False)
    assert list(contents(facts.parent)) == ["dataset.json"]
    facts.write_text('{"name": "labels (cihp20)"}')  # as it is left by an import that was killed before its index
    assert CliRunner().invoke(import_command, arguments, catch_exceptions=False).exit_code == 0


def test_keypoints_of_pictures_of_another_size_are_refused(folder):
    assert CliRunner().invoke(export_command, [str(folder), "--format", "coco17", "--out", "c.json"]).exit_code == 0
    (folder / "images" / "b.png").write_bytes(png_bytes(np.zeros((72, 96, 3), np.uint8)))
    arguments = ["coco17", "--labels", "c.json", "--images", str(folder), "--out", "out"]
    with pytest.raises(
        ValueError, match=r"image 2: states 72 x 96, the picture images/b\.png is 96 x 72; give the very"
    ):
        CliRunner().invoke(import_command, arguments, catch_exceptions=False)
    assert not (folder.parent / "out").exists()


def test_pictures_that_are_turned_without_another_size_are_named(folder):
    """A half turn by EXIF: the labels may be of either side up, and the sizes agree."""
    exif = Image.Exif()
    exif[0x0112] = 3
    arguments = [*masks(folder.parent, "ab"), "--out", "parts"]
    Image.new("RGB", (6, 8)).save(folder.parent / "pictures" / "b.png", exif=exif)
    Image.new("RGB", (72, 96)).save(folder / "images" / "b.png", exif=exif)
    done = CliRunner().invoke(import_command, arguments, catch_exceptions=False)
    assert "turns or mirrors 1 pictures without changing their size: b.png; their labels are taken" in done.output
    assert CliRunner().invoke(export_command, [str(folder), "--format", "coco17", "--out", "c.json"]).exit_code == 0
    people = ["coco17", "--labels", "c.json", "--images", str(folder), "--out", "out"]
    done = CliRunner().invoke(import_command, people, catch_exceptions=False)
    assert "turns or mirrors 1 pictures without changing their size: b.png; their labels are taken" in done.output


def test_what_an_import_leaves_out_is_said(folder):
    arguments = [*masks(folder.parent, "abcdefgh"), "--out", "parts"]
    for name in "bcdefgh":
        (folder.parent / "labels" / f"{name}.png").rename(folder.parent / "labels" / f"{name}.gif")
    done = CliRunner().invoke(import_command, arguments, catch_exceptions=False)
    assert "7 pictures without a mask: b.png, c.png, d.png, e.png, f.png and 2 more" in done.output
    assert "7 masks that are no PNG: b.gif" in done.output and "1 rows in parts" in done.output


def test_openpose_and_coco_files_are_what_their_readers_expect(folder):
    index = folder / "index.jsonl"
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    index.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "box"}) + "\n" for row in rows))
    assert CliRunner().invoke(export_command, [str(folder), "--format", "openpose", "--out", "pose"]).exit_code == 0
    (person,) = json.loads((folder.parent / "pose" / "a_keypoints.json").read_text())["people"]
    assert max(person["pose_keypoints_2d"][2::3]) == 1
    assert CliRunner().invoke(export_command, [str(folder), "--format", "coco17", "--out", "c.json"]).exit_code == 0
    annotations = json.loads((folder.parent / "c.json").read_text())["annotations"]
    assert all(each["bbox"][2] > 0 and each["area"] > 0 for each in annotations)


def test_people_are_rendered_and_more_of_them_later(folder):
    options = ["--out", "people", "--size", "48", "36", "--split", "test", "--look", "test", "--task", "normal"]
    first = CliRunner().invoke(render_command, [*options, "--count", "2"], catch_exceptions=False)
    assert first.exit_code == 0 and "render 2/2 scenes" in first.output
    assert "2 scenes rendered into people" in first.output
    more = CliRunner().invoke(render_command, [*options, "--count", "3"], catch_exceptions=False)
    assert more.exit_code == 0 and "1 scenes rendered into people" in more.output
    good = CliRunner().invoke(check_command, ["people"], catch_exceptions=False)
    assert good.exit_code == 0 and "normal: 3 samples (3 test)" in good.output and "pose" not in good.output
    with pytest.raises(ValueError, match=r"look 'test' and not 'train', split 'test' and not 'train', tasks"):
        CliRunner().invoke(render_command, ["--out", "people", "--size", "48", "36"], catch_exceptions=False)
