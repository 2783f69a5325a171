"""An import destroys nothing, and takes points for upright pixels only."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapiens2.data.annotation import TOOLS, Batch, Person, Picture, PictureLabels
from sapiens2.data.formats import upright
from sapiens2.data.formats.coco import read_coco
from sapiens2.data.formats.masks import import_masks
from sapiens2.data.formats.placing import lies_there
from sapiens2.data.formats.upright import TURNED_FORMATS, turned_unseen, upright_size
from sapiens2.data.formats.vocabularies import layout
from sapiens2.data.labelled import DatasetWriter, LabelError
from sapiens2.data.labelled.read import read_image
from sapiens2.data.labelled.write import png_bytes
from sapiens2.tasks.vocabulary import keypoints

WORDS = keypoints()


def picture(path: Path, size: tuple[int, int] = (48, 64), orientation: int = 1, kind: str = "JPEG") -> Path:
    """A picture of height and width as stored."""
    out, exif = io.BytesIO(), Image.Exif()
    exif[upright.ORIENTATION] = orientation
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(out, kind, exif=exif)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(out.getvalue())
    return path


def coco(folder: Path, images: list[dict[str, Any]], **more: Any) -> Path:
    """One person a picture, fully seen."""
    people = [{"id": k, "image_id": image["id"], "keypoints": [5, 6, 2] * 17} | more for k, image in enumerate(images)]
    (folder / "labels.json").write_text(json.dumps({"images": images, "annotations": people}))
    return folder / "labels.json"


def image(name: str = "a.jpg", width: Any = 64, height: Any = 48, number: int = 7) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": width, "height": height}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_header_says_what_reading_gives(kind: str, orientation: int, tmp_path: Path) -> None:
    path = picture(tmp_path / "a", orientation=orientation, kind=kind)
    size = upright_size(path)
    assert (size.height, size.width) == read_image(str(path)).shape[:2]
    told = turned_unseen([path])
    if kind in TURNED_FORMATS:
        assert told == (["a"] if 2 <= orientation <= 4 else [])
        square = picture(tmp_path / "b", size=(40, 40), orientation=orientation, kind=kind)
        assert turned_unseen([square]) == (["b"] if orientation >= 2 else [])


def test_an_odd_header_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "a.jpg", orientation=6)
    monkeypatch.setattr(Image, "open", lambda _: (_ for _ in ()).throw(SyntaxError("no TIFF file")))
    assert str(upright_size(path)) == "48 x 64"
    path.write_bytes(b"nothing")
    with pytest.raises(LabelError, match=r"a\.jpg: is not a picture that can be decoded"):
        upright_size(path)


def test_pictures_have_the_size_that_the_file_states(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"{number}.jpg", (96, 128) if number else (48, 64))
    path = coco(tmp_path, [image(f"{number}.jpg", number=number) for number in range(3)])
    with pytest.raises(LabelError) as error:
        read_coco(path, "coco17", folder=tmp_path)
    assert str(error.value) == (
        f"{path} image 1: states 64 x 48, the picture 1.jpg is 128 x 96, and 1 more pictures differ; "
        "give the very pictures that were labelled, not resized or turned ones"
    )
    assert len(read_coco(path, "coco17").rows) == 3  # who has no pictures at hand


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_on_stored_pixels_are_refused(orientation: int, tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", orientation=orientation)
    stored, turned = image(), image(width=48, height=64)
    good, bad = (turned, stored) if orientation >= 5 else (stored, turned)
    (row,) = read_coco(coco(tmp_path, [good]), "coco17", folder=tmp_path).rows
    assert row.image == "images/a.jpg"
    mend = "remove that tag if the labels were made on the pixels" if orientation >= 5 else "the very pictures"
    with pytest.raises(LabelError, match=f"image 7: states .*, the picture a.jpg is .*; .*{mend}"):
        read_coco(coco(tmp_path, [bad]), "coco17", folder=tmp_path)


@pytest.mark.parametrize("stated", [{"width": None, "height": None}, {"width": None}, {"height": None}])
def test_a_file_without_sizes_takes_the_pictures(stated: dict[str, Any], tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    bare = {key: value for key, value in (image() | stated).items() if value is not None}
    flat = [5, 6, 2] * 16 + [64, 6, 2]  # the last is a pixel too far
    found = read_coco(coco(tmp_path, [bare], keypoints=flat), "coco17", folder=tmp_path)
    assert found.rows[0].keypoints is not None and (found.rows[0].keypoints[:, 2] > 0).sum() == 16
    assert found.left_out["points outside the picture"] == 1
    with pytest.raises(LabelError, match=r"image 7: has no `(width|height)`"):
        read_coco(coco(tmp_path, [bare]), "coco17")
    with pytest.raises(LabelError, match="is not below the folder of the pictures"):
        read_coco(coco(tmp_path, [bare | {"file_name": "../a.jpg"}]), "coco17", folder=tmp_path)
    with pytest.raises(LabelError, match=r"b\.jpg: is not there; give the folder of the pictures"):
        read_coco(coco(tmp_path, [bare | {"file_name": "b.jpg"}]), "coco17", folder=tmp_path)


def test_human_art_keeps_21_points_beside_17(tmp_path: Path) -> None:
    more = {"keypoints_21": [x for k in range(21) for x in (k, 20 + k, 2)]}
    (row,) = read_coco(coco(tmp_path, [image()], **more), "humanart21").rows
    assert row.keypoints is not None and row.keypoints[WORDS.id("right_ankle")].tolist() == [16, 36, 2]
    (row,) = read_coco(coco(tmp_path, [image()], **more), "coco17").rows
    assert row.keypoints is not None and row.keypoints[WORDS.id("right_ankle")].tolist() == [5, 6, 2]
    (row,) = read_coco(coco(tmp_path, [image()], keypoints=[7, 8, 1] * 21), "humanart21").rows  # our own export
    assert row.keypoints is not None and row.keypoints[WORDS.id("nose")].tolist() == [7, 8, 1]
    with pytest.raises(LabelError, match="has 17 keypoints, humanart21 has 21"):
        read_coco(coco(tmp_path, [image()]), "humanart21")


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", ["wholebody133", "halpe136"])
def test_hidden_hands_and_faces_of_a_batch_stay_hidden(name: str, tool: str, tmp_path: Path) -> None:
    shown = Picture(name="images/a.jpg", width=64, height=48, image_id="a", group="a", boxes=())
    batch, points = Batch(tool=tool, task="pose", keypoints=name, pictures=(shown,)), np.zeros((len(WORDS), 3))
    known = layout(name).reads
    points[known[known >= 0]] = [20, 30, 1]
    TOOLS[tool].write(tmp_path, batch, {shown.name: PictureLabels(people=[Person(points, (0.5, 0.5, 40.5, 40.5))])})
    (person,) = TOOLS[tool].read(tmp_path / TOOLS[tool].file, batch).pictures[shown.name].people
    np.testing.assert_array_equal(person.points[:, 2], points[:, 2])


def own(folder: Path) -> Path:
    """A folder laid out as an import writes it, with a user's only masks."""
    for name, value in (("a", 2), ("b", 13)):
        picture(folder / "images" / f"{name}.jpg")
        (folder / "masks").mkdir(exist_ok=True)
        (folder / "masks" / f"{name}.png").write_bytes(png_bytes(np.full((48, 64), value, np.uint8)))
    return folder


@pytest.mark.parametrize("way", ["same", "symlink"])
def test_masks_are_never_written_over(way: str, tmp_path: Path) -> None:
    folder = own(tmp_path / "own")
    out = folder
    if way == "symlink":
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "masks").symlink_to(folder / "masks")
        out = tmp_path / "out"
    before = contents(folder)
    with pytest.raises(
        LabelError, match=r"masks/a\.png: is there already, .*; import into a new folder, not into that"
    ):
        import_masks(folder / "images", folder / "masks", "cihp20", DatasetWriter(str(out)))
    assert contents(folder) == before and not (tmp_path / "out" / "images").exists()


def test_a_faulty_mask_is_found_before_the_first_is_written(tmp_path: Path) -> None:
    folder = own(tmp_path / "own")
    (folder / "masks" / "b.png").write_bytes(png_bytes(np.full((48, 64), 77, np.uint8)))
    with pytest.raises(LabelError, match="has the class 77"):
        import_masks(folder / "images", folder / "masks", "cihp20", DatasetWriter(str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_an_import_that_was_killed_goes_on(tmp_path: Path) -> None:
    """What lies there with the same content is left as it is: no write, so no new time of change."""
    folder = own(tmp_path / "own")
    assert import_masks(folder / "images", folder / "masks", "cihp20", DatasetWriter(str(tmp_path / "out"))) == 2
    (tmp_path / "out" / "masks" / "a.png").unlink()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    with DatasetWriter(str(tmp_path / "out")) as writer:
        assert import_masks(folder / "images", folder / "masks", "cihp20", writer) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert (tmp_path / "out" / "masks" / "a.png").is_file() and len(writer.rows) == 2


def test_two_masks_of_one_picture_are_refused(tmp_path: Path) -> None:
    folder = own(tmp_path / "own")
    (folder / "masks" / "a.PNG").write_bytes(png_bytes(np.full((48, 64), 5, np.uint8)))
    if len(list((folder / "masks").glob("a.*"))) < 2:
        pytest.skip("needs a file system that tells a.png from a.PNG")
    with pytest.raises(LabelError, match=r"a\.png: has the stem of a\.PNG: both would be of a\.jpg; keep one mask"):
        import_masks(folder / "images", folder / "masks", "cihp20", DatasetWriter(str(tmp_path / "out")))
    (folder / "images" / "a.jpg").unlink()  # without a picture both stay behind
    assert import_masks(folder / "images", folder / "masks", "cihp20", DatasetWriter(str(tmp_path / "out"))) == 1


def test_content_is_made_only_to_be_compared(tmp_path: Path) -> None:
    def never() -> bytes:
        raise AssertionError

    assert not lies_there(str(tmp_path), "a/b.png", never)
    (tmp_path / "b.png").write_bytes(b"1")
    assert lies_there(str(tmp_path), "b.png", lambda: b"1")
