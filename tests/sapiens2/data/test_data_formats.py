"""Other formats: what goes in comes out, sides stay sides, what has no counterpart carries no weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sapiens2.data.formats.coco import read_coco
from sapiens2.data.formats.convert import BODY_25, coco_annotation, coco_file, openpose
from sapiens2.data.formats.masks import import_masks, map_mask, without_partner
from sapiens2.data.formats.vocabularies import CLASS_MAPS, LAYOUTS, OWN, class_map, layout
from sapiens2.data.labelled import DatasetWriter, LabelError, LabelledDataset
from sapiens2.data.labelled.read import stored_picture
from sapiens2.data.labelled.write import png_bytes
from sapiens2.tasks.vocabulary import keypoints, parts

WORDS = keypoints()


def numbered(count: int) -> np.ndarray:
    """Points that tell their own id: (id, 1000 + id), seen."""
    k = np.arange(count)
    return np.stack([k, 1000 + k, np.full(count, 2)], 1).astype(float)


@pytest.mark.parametrize("name", LAYOUTS)
def test_in_and_out_is_nothing_lost(name: str) -> None:
    which = layout(name)
    points = numbered(len(which))
    back = which.from_308(which.to_308(points))
    mapped = which.reads >= 0
    np.testing.assert_array_equal(back[mapped], points[mapped])
    assert (which.to_308(points)[:, 2] > 0).sum() == mapped.sum() == len(np.unique(which.reads[mapped]))
    assert not which.to_308(points * [1, 1, 0]).any()


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != OWN])
def test_sides_stay_sides(name: str) -> None:
    which = layout(name)
    for own, target in zip(which.names, which.writes, strict=True):
        if target < 0:
            continue
        theirs = WORDS.names[target]
        left = theirs.startswith(("left_", "l_"))
        right = theirs.startswith(("right_", "r_"))
        if own.startswith(("left_", "right_")):
            assert own.startswith("left_") == left and own.startswith("right_") == right, (own, theirs)
        mirror = own.replace("left_", "\0").replace("right_", "left_").replace("\0", "right_")
        assert which.writes[which.names.index(mirror)] == WORDS.flip[target] or own.startswith("face_"), own


def test_the_wholebody_column_of_the_vocabulary_agrees() -> None:
    """Every id that the vocabulary gives is mapped so; base joints of fingers come on top."""
    reads = layout("wholebody133").reads
    for target, source in enumerate(WORDS.wholebody):
        if source >= 0:
            assert reads[source] == target
    more = {WORDS.names[k] for k in reads if k >= 0} - {WORDS.names[k] for k in np.flatnonzero(WORDS.wholebody >= 0)}
    assert len(more) == 10 and all(name.endswith("third_joint") for name in more)


def coco(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    images = [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}]
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    return path


def person(**more: Any) -> dict[str, Any]:
    flat = [0.0] * 51
    flat[27:30], flat[30:33] = [50, 20, 2], [10, 21, 1]  # left wrist, right wrist
    return {"id": 3, "image_id": 7, "bbox": [5, 6, 50, 40], "area": 900, "keypoints": flat, "iscrowd": 0} | more


def test_coco_by_hand(tmp_path: Path) -> None:
    outside = person()
    outside["keypoints"] = list(outside["keypoints"])
    outside["keypoints"][0:3] = [70, 10, 2]
    empty = person(keypoints=[0] * 51)
    found = read_coco(coco(tmp_path, [person(), outside, person(iscrowd=1), empty]), "coco17")
    assert len(found.rows) == 2
    assert found.left_out == {
        "crowds": 1,
        "people without a mapped keypoint": 1,
        "points outside the picture": 1,
    }
    points = found.rows[0].keypoints
    assert points is not None and found.rows[0].box == (4.5, 5.5, 54.5, 45.5) and found.rows[0].image == "images/a.png"
    assert points[WORDS.id("left_wrist")].tolist() == [50, 20, 2]
    assert points[WORDS.id("right_wrist")].tolist() == [10, 21, 1]
    assert (points[:, 2] > 0).sum() == 2 and found.rows[0].area == 900
    assert found.rows[1].keypoints is not None and found.rows[1].keypoints[0, 2] == 0


def test_wholebody_lists_are_one(tmp_path: Path) -> None:
    flat = [0.0] * 63
    flat[12:15] = [30, 30, 1.0]  # left thumb tip, a confidence
    more = {"foot_kpts": [9, 40, 1, *[0] * 15], "lefthand_kpts": flat}
    (row,) = read_coco(coco(tmp_path, [person(**more)]), "wholebody133").rows
    assert row.keypoints is not None
    assert row.keypoints[WORDS.id("left_thumb4")].tolist() == [30, 30, 2]
    assert row.keypoints[WORDS.id("left_big_toe")].tolist() == [9, 40, 1]
    back = coco_annotation(row.keypoints, "wholebody133")
    assert back["lefthand_kpts"][12:15] == [30, 30, 2] and back["foot_kpts"][:3] == [9, 40, 1]
    assert back["keypoints"] == person()["keypoints"] and len(back["face_kpts"]) == 204
    assert back["lefthand_kpts"][:3] == [50, 20, 2]  # the root of the hand is written from the wrist, never read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 9}, "annotation 3: names the image 9; list that image"),
        ({"keypoints": [1, 2, 2] * 14}, "has 14 keypoints, coco17 has 17; name the layout"),
    ],
)
def test_annotations_that_do_not_fit(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=message):
        read_coco(coco(tmp_path, [person(**change)]), "coco17")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(LabelError, match="no `images` and `annotations`"):
        read_coco(tmp_path / "x.json", "coco17")
    with pytest.raises(ValueError, match="use one of coco17"):
        read_coco(tmp_path / "x.json", "coco18")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "image number 1: has no `id`; give the number"),
        ({"file_name": None}, "image 7: has no `file_name`"),
        ({"width": None}, "image 7: has no `width`; give the size of the picture in pixels"),
        ({"height": "tall"}, "image 7: has no `height`"),
        ({"file_name": "../../x.jpg"}, r"annotation 3: its picture '\.\./\.\./x\.jpg' is not below the folder"),
        ({"file_name": "/etc/x.jpg"}, "annotation 3: its picture '/etc/x.jpg' is not below"),
        ({"file_name": "a/../../x.jpg"}, "is not below the folder of the pictures; give names relative"),
    ],
)
def test_images_that_are_damaged_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = coco(tmp_path, [person()])
    content = json.loads(path.read_text())
    content["images"][0] = {k: v for k, v in (content["images"][0] | change).items() if v is not None}
    path.write_text(json.dumps(content))
    with pytest.raises(LabelError, match=message):
        read_coco(path, "coco17")


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    path = coco(tmp_path, [person()])
    content = json.loads(path.read_text())
    content["images"].append(content["images"][0] | {"file_name": "other.jpg"})
    path.write_text(json.dumps(content))
    with pytest.raises(LabelError, match="image 7: is listed more than once"):
        read_coco(path, "coco17")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"keypoints": [None, 5, 2] * 17},
            r"annotation 3: the keypoint 'nose' is \[None, 5, 2\]; give numbers, or set",
        ),
        ({"keypoints": [3, 5, None] * 17}, r"the keypoint 'nose' is \[3, 5, None\]"),
        ({"keypoints": ["x", 5, 2] * 17}, "annotation 3: `keypoints` is no list as COCO has it"),
        ({"keypoints": {"nose": 1}}, "annotation 3: `keypoints` is no list"),
        ({"bbox": [1, 2, 3]}, "annotation 3: `bbox` is no list as COCO has it; give x, y, width"),
        ({"bbox": [1, 2, None, 3]}, r"`bbox` is \[1, 2, None, 3\]; give x, y, width and height"),
        ({"area": "big"}, "annotation 3: `area` is no number"),
        ({"image_id": None}, "annotation 3: has no `image_id`"),
    ],
)
def test_annotations_that_are_damaged_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=message):
        read_coco(coco(tmp_path, [person(**change)]), "coco17")


def test_an_unlabelled_point_may_have_no_place(tmp_path: Path) -> None:
    flat = [None, None, 0, *[20, 30, 2] * 16]
    (row,) = read_coco(coco(tmp_path, [person(keypoints=flat)]), "coco17").rows
    assert row.keypoints is not None and np.isfinite(row.keypoints).all() and (row.keypoints[:, 2] > 0).sum() == 16


def test_without_a_box_it_is_that_of_the_points() -> None:
    points = np.zeros((308, 3))
    points[5], points[9] = [10, 20, 2], [40, 26, 1]
    (annotation,) = coco_file([(1, "a.png", (48, 64), points, None, None)], "coco17")["annotations"]
    assert annotation["bbox"] == [10.5, 20.5, 30, 6] and annotation["area"] == 180
    (annotation,) = coco_file([(1, "a.png", (48, 64), points * 0, None, 9.0)], "coco17")["annotations"]
    assert annotation["bbox"] == [0, 0, 0, 0] and annotation["area"] == 9


def test_a_coco_file_goes_out_and_comes_in(tmp_path: Path) -> None:
    points = np.zeros((308, 3))
    ids = layout("coco17").reads
    points[ids] = [*np.array([20.0, 30.0]), 2]
    points[ids, 0] += np.arange(17)
    content = coco_file([(1, "a.png", (48, 64), points, np.array([1.0, 2, 30, 40]), 321.5)], "coco17")
    path = tmp_path / "out.json"
    path.write_text(json.dumps(content))
    (row,) = read_coco(path, "coco17", images="").rows
    np.testing.assert_array_equal(row.keypoints, points)  # type: ignore[arg-type]
    assert row.box == (1, 2, 30, 40) and row.image == "a.png" and row.area == 321.5
    assert content["categories"][0]["keypoints"][9] == "left_wrist"


def test_openpose_by_hand() -> None:
    points = np.zeros((308, 3))
    for name, place in (("left_shoulder", (60, 20)), ("right_shoulder", (20, 24)), ("right_wrist", (5, 50))):
        points[WORDS.id(name)] = [*place, 0.8]
    points[WORDS.id("left_hip")] = [50, 70, 0.9]
    points[WORDS.id("right_pinky_finger4")] = [3, 60, 0.5]
    (person_,) = openpose([points])["people"]
    body = np.array(person_["pose_keypoints_2d"]).reshape(25, 3)
    assert len(BODY_25) == 25
    assert body[1].tolist() == [40, 22, 0.8]  # neck, halfway
    assert body[8].tolist() == [0, 0, 0]  # one hip is not enough for the middle
    assert body[2].tolist() == [20, 24, 0.8] and body[5].tolist() == [60, 20, 0.8] and body[4].tolist() == [5, 50, 0.8]
    right = np.array(person_["hand_right_keypoints_2d"]).reshape(21, 3)
    assert right[20].tolist() == [3, 60, 0.5] and right[0].tolist() == [5, 50, 0.8]
    assert not np.any(person_["hand_left_keypoints_2d"])


def test_openpose_confidences_end_at_1() -> None:
    points = np.zeros((308, 3))
    points[:, 2] = 2
    (person_,) = openpose([points])["people"]
    for key in ("pose_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d"):
        assert set(np.array(person_[key]).reshape(-1, 3)[:, 2].tolist()) == {1.0}


def test_class_maps_by_hand() -> None:
    cihp = class_map("cihp20")
    names = parts().names
    assert names[cihp[18]] == "Left_Shoe" and names[cihp[19]] == "Right_Shoe" and names[cihp[13]] == "Face_Neck"
    assert names[cihp[9]] == "Lower_Clothing" and names[cihp[5]] == names[cihp[7]] == "Upper_Clothing"
    assert (cihp[[14, 15, 16, 17, 6, 8]] == 255).all() and cihp[0] == 0
    voc = class_map("voc21")
    assert voc[15] == 255 and (np.delete(voc[:21], 15) == 0).all()
    for name in CLASS_MAPS:
        assert set(class_map(name).tolist()) <= {*range(29), 255} and class_map(name)[255] == 255
    with pytest.raises(LabelError, match="has the class 20, cihp20 ends at 19"):
        map_mask(np.full((2, 2), 20, np.uint8), "cihp20")


def test_a_mask_of_one_bit_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(path)
    assert map_mask(stored_picture(str(path)), "voc21").tolist() == [[0, 0]]
    hat = parts().names[class_map("cihp20")[1]]
    assert map_mask(stored_picture(str(path)), "cihp20").tolist() == [[0, parts().id(hat) if hat else 255]]
    with pytest.raises(LabelError, match="holds float32 of the shape"):
        map_mask(np.zeros((2, 2), np.float32), "cihp20")


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder, names in (
        (images, ("a.jpg", "b.jpg", "c.JPG", "note.txt", ".DS_Store")),
        (masks, ("a.png", "c.PNG", "x.png", "b.gif")),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(png_bytes(np.zeros((8, 6), np.uint8)))
    assert without_partner(images, masks) == {
        "pictures without a mask": ["b.jpg"],
        "files that are no picture": ["note.txt"],
        "masks without a picture": ["x.png"],
        "masks that are no PNG": ["b.gif"],
    }
    with DatasetWriter(str(tmp_path / "out")) as writer:
        assert import_masks(images, masks, "cihp20", writer) == 2
    (images / "a.webp").write_bytes(b"")
    with pytest.raises(LabelError, match=r"a\.png: may be the mask of a\.jpg or a\.webp; keep one picture"):
        import_masks(images, masks, "cihp20", DatasetWriter(str(tmp_path / "out")))


def test_masks_are_imported_and_sizes_are_held(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    (images / "a.png").write_bytes(png_bytes(np.zeros((8, 6, 3), np.uint8)))
    (masks / "a.png").write_bytes(png_bytes(np.repeat(np.array([[0, 2, 13, 14, 18, 255]], np.uint8), 8, 0)))
    with DatasetWriter(str(tmp_path / "out")) as writer:
        assert import_masks(images, masks, "cihp20", writer) == 1
    mask = LabelledDataset(str(tmp_path / "out"), "segmentation").sample(0).mask
    assert mask is not None
    assert mask[0].tolist() == [0, parts().id("Hair"), parts().id("Face_Neck"), 255, parts().id("Left_Shoe"), 255]
    (masks / "a.png").write_bytes(png_bytes(np.zeros((8, 7), np.uint8)))
    with pytest.raises(LabelError, match=r"a\.png: is 7 x 8, its picture 6 x 8"):
        import_masks(images, masks, "cihp20", DatasetWriter(str(tmp_path / "out")))
