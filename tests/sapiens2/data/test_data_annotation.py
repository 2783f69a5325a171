"""Labels to annotation tools and back: every format round trip, run lengths and polygons against other codecs."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sapiens2.data.annotation import TOOLS, Batch, Person, Picture, PictureLabels, read_batch
from sapiens2.data.annotation.batch import write_batch
from sapiens2.data.annotation.labels import regions_of
from sapiens2.data.annotation.polygons import fill
from sapiens2.data.annotation.runs import coco_runs, from_coco, from_runs, pack_bits, to_runs, unpack_bits
from sapiens2.data.formats.vocabularies import layout
from sapiens2.data.labelled.layout import LabelError
from sapiens2.tasks.vocabulary import keypoints, parts

SIZE = (40, 56)  # height, width
NAME = "images/0123456789abcdef.jpg"


def batch(task: str, tool: str = "coco", names: str = "sapiens308", **more: object) -> Batch:
    shown = {"name": NAME, "width": SIZE[1], "height": SIZE[0], "image_id": "0123456789abcdef", "group": "g", **more}
    other = {**shown, "name": "images/fedc.png", "image_id": "fedc", "boxes": ((4.0, 5.0, 30.0, 38.0),)}
    return Batch(tool=tool, task=task, keypoints=names, pictures=(Picture(**shown), Picture(**other)))  # type: ignore[arg-type]


def two_people() -> list[Person]:
    rng = np.random.default_rng(0)
    people = []
    for x0 in (2.0, 30.0):
        points = np.zeros((len(keypoints()), 3))
        points[:, :2] = rng.uniform([x0, 3], [x0 + 20, 35], (len(points), 2)).round(2)
        points[:, 2] = rng.integers(0, 3, len(points))
        points[:20, 2] = 2
        points[points[:, 2] == 0] = 0
        people.append(Person(points, (x0 - 0.5, 2.5, x0 + 20.5, 36.5)))
    return people


def painted() -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[5:30, 10:40] = parts().id("Upper_Clothing")
    mask[8:14, 12:20] = parts().id("Left_Hand")
    mask[2:7, 20:30] = parts().id("Hair")
    mask[39, 55] = parts().id("Right_Foot")
    return mask


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("names", ["sapiens308", "coco17"])
def test_people_come_back(tool: str, names: str, tmp_path: Path) -> None:
    exported, people, which = batch("pose", tool, names), two_people(), layout(names)
    TOOLS[tool].write(tmp_path, exported, {NAME: PictureLabels(people=people)})
    found = TOOLS[tool].read(tmp_path / TOOLS[tool].file, exported)
    assert list(found.pictures) == [NAME]  # the other has a detector's box alone, which is no label
    for given, got in zip(people, found.pictures[NAME].people, strict=True):
        wanted = which.to_308(which.from_308(given.points))
        np.testing.assert_array_equal(got.points[:, 2], wanted[:, 2])
        np.testing.assert_allclose(got.points[:, :2], wanted[:, :2], atol=0.011)
        assert got.box == pytest.approx(given.box, abs=0.011)


@pytest.mark.parametrize("tool", TOOLS)
def test_masks_come_back(tool: str, tmp_path: Path) -> None:
    exported, mask = batch("segmentation", tool), painted()
    TOOLS[tool].write(tmp_path, exported, {NAME: PictureLabels(regions=regions_of(mask))})
    found = TOOLS[tool].read(tmp_path / TOOLS[tool].file, exported)
    np.testing.assert_array_equal(found.pictures[NAME].mask(SIZE), mask)
    assert (found.pictures[NAME].mask(SIZE, unlabelled=255) == np.where(mask == 0, 255, mask)).all()


def test_coco_files_are_what_pycocotools_reads(tmp_path: Path) -> None:
    exported, mask = batch("segmentation"), painted()
    TOOLS["coco"].write(tmp_path, exported, {NAME: PictureLabels(regions=regions_of(mask))})
    api = COCO(str(tmp_path / "annotations.json"))
    drawn = np.zeros(SIZE, np.uint8)
    for annotation in api.loadAnns(api.getAnnIds(imgIds=[1])):
        drawn[api.annToMask(annotation) > 0] = parts().id(api.cats[annotation["category_id"]]["name"])
    np.testing.assert_array_equal(drawn, mask)
    TOOLS["coco"].write(tmp_path, batch("pose", names="coco17"), {NAME: PictureLabels(people=two_people())})
    content = json.loads((tmp_path / "annotations.json").read_text())
    (person,) = content["categories"]
    assert person["keypoints"][0] == "nose" and len(person["keypoints"]) == 17
    assert [16, 14] in person["skeleton"] or [14, 16] in person["skeleton"]  # left ankle and knee, counted from 1
    box_only = content["annotations"][-1]
    assert box_only["bbox"] == [4, 5, 26, 33] and box_only["num_keypoints"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_agree_with_other_codecs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(SIZE) < (0.02, 0.5, 0.98, 1.0)[seed]
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert (from_coco(theirs["counts"].decode(), SIZE) == mask).all()
    ours = coco_mask.frPyObjects({"counts": coco_runs(mask), "size": list(SIZE)}, *SIZE)
    assert (coco_mask.decode(ours) == mask).all()
    assert (from_runs(to_runs(mask.ravel()), mask.size).reshape(SIZE) == mask).all()
    assert (unpacked_slowly(pack_bits(mask)).reshape(*SIZE, 4) == 255 * mask[..., None]).all()
    assert (unpack_bits(pack_bits(mask), SIZE) == mask).all()


def unpacked_slowly(data: list[int]) -> np.ndarray:
    """rle-pack as thi.ng documents it: count, word bits, four run sizes, then runs or literals."""
    bits = iter(np.unpackbits(np.array(data, np.uint8)).tolist())

    def read(count: int) -> int:
        value = 0
        for _ in range(count):
            value = value * 2 + next(bits)
        return value

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        out += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    return np.array(out)


def test_literal_runs_of_label_studio_are_read() -> None:
    """A picture of two pixels, colours and alpha written one by one, as its editor does where nothing repeats."""
    pixels = [1, 2, 3, 255, 9, 8, 7, 0]
    bits = f"{8:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += f"0{0:02b}{7:03b}" + "".join(f"{value:08b}" for value in pixels)
    bits += "0" * (-len(bits) % 8)
    data = [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]
    assert unpack_bits(data, (1, 2)).tolist() == [[True, False]]
    with pytest.raises(ValueError, match="holds 8 values"):
        unpack_bits(data, (2, 2))
    with pytest.raises(ValueError, match="ends too early"):
        unpack_bits(data[:9], (1, 2))


@pytest.mark.parametrize("seed", range(3))
def test_polygons_hold_the_pixels_whose_centres_are_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    corners = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(5, 30, (9, 1)) + [25, 18]
    y, x = np.indices(SIZE)
    centres = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], 1)
    inside = Outline(corners).contains_points(centres).reshape(SIZE)
    assert inside.any() and (fill(corners, SIZE) == inside).all()


def test_cvat_polygons_and_order(tmp_path: Path) -> None:
    """A higher z_order lies above, whatever comes first in the file; a tool's own names are found."""
    shape = '<polygon label="{}" source="manual" occluded="0" points="{}" z_order="{}"></polygon>'
    text = shape.format("hair", "10.00,10.00;20.00,10.00;20.00,20.00;10.00,20.00", 1)
    text += shape.format("Face Neck", "15.0,10.0;30.0,10.0;30.0,20.0;15.0,20.0", 0)
    image = f'<image id="0" name="0123456789abcdef.jpg" width="{SIZE[1]}" height="{SIZE[0]}">{text}</image>'
    (tmp_path / "a.xml").write_text(f"<annotations><version>1.1</version>{image}</annotations>")
    mask = TOOLS["cvat"].read(tmp_path / "a.xml", batch("segmentation")).pictures[NAME].mask(SIZE)
    assert (mask[10:20, 10:20] == parts().id("Hair")).all() and (mask[10:20, 20:30] == parts().id("Face_Neck")).all()
    assert (mask > 0).sum() == 200


def test_cvat_gets_a_skeleton_that_it_can_draw(tmp_path: Path) -> None:
    TOOLS["cvat"].write(tmp_path, batch("pose", "cvat"), {})
    skeleton, box = json.loads((tmp_path / "labels.json").read_text())
    assert [label["name"] for label in skeleton["sublabels"]] == list(keypoints().names) and box["type"] == "rectangle"
    svg = ET.fromstring(f"<svg>{skeleton['svg']}</svg>")
    nodes = {node.get("data-node-id"): node for node in svg.iter("circle")}
    assert [node.get("data-label-name") for node in nodes.values()] == list(keypoints().names)
    assert all(0 <= float(node.get(side, "-1")) <= 100 for node in nodes.values() for side in ("cx", "cy"))
    assert all(line.get("data-node-to") in nodes for line in svg.iter("line")) and len(list(svg.iter("line"))) == 65
    root = ET.parse(tmp_path / "annotations.xml").getroot()
    assert [box.get("xbr") for box in root.iter("box")] == ["30.00"] and root.findtext("version") == "1.1"


def test_label_studio_points_find_their_person(tmp_path: Path) -> None:
    """As its editor exports them: no parent, an uploaded picture's name, a cancelled and an older annotation."""

    def result(own: str, kind: str, **value: object) -> dict[str, object]:
        size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
        return {"id": own, "type": kind, "to_name": "image", "from_name": "x", **size, "value": value}

    def rectangle(own: str, x: float) -> dict[str, object]:
        return result(own, "rectanglelabels", x=x, y=0, width=50, height=100, rotation=0, rectanglelabels=["person"])

    nose = {"width": 0.4, "keypointlabels": ["nose"]}
    results = [rectangle("a", 0), rectangle("b", 50)]
    results += [result("c", "keypointlabels", x=75, y=50, **nose), result("d", "keypointlabels", x=25, y=25, **nose)]
    results += [result("d", "choices", x=25, y=25, width=0.4, choices=["hidden"])]
    old = {"result": [rectangle("z", 0)]}
    annotations = [old, {"result": results}, {"result": [], "was_cancelled": True}]
    task = {"id": 7, "data": {"image": "/data/upload/3/9f1c2b3a-0123456789abcdef.jpg"}, "annotations": annotations}
    (tmp_path / "e.json").write_text(json.dumps([task]))
    found = TOOLS["label-studio"].read(tmp_path / "e.json", batch("pose", "label-studio"))
    first, second = found.pictures[NAME].people
    nose_id = keypoints().id("nose")
    assert first.points[nose_id].tolist() == [13.5, 9.5, 1] and second.points[nose_id].tolist() == [41.5, 19.5, 2]
    assert found.left_out["further annotations of a picture"] == 1


def test_a_batch_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_batch(tmp_path, batch("pose"))
    assert read_batch(tmp_path) == batch("pose")
    (tmp_path / "batch.json").write_text('{"revision": 1}')
    with pytest.raises(LabelError, match=r"batch\.json: is damaged .*; restore it"):
        read_batch(tmp_path)
    with pytest.raises(LabelError, match="give the folder that `sapiens2 annotate export` has written"):
        read_batch(tmp_path / "nowhere")


def test_pictures_are_found_by_what_tools_make_of_their_names() -> None:
    shown = {"width": 8, "height": 8, "image_id": "x", "group": "g"}
    names = ("/pool/a/0.jpg", "/pool/b/0.jpg", "images/7.jpg")
    made = Batch(tool="coco", task="pose", pictures=tuple(Picture(name=name, **shown) for name in names))  # type: ignore[arg-type]
    for said, meant in (
        ("images/7.jpg", names[2]),
        ("7.jpg", names[2]),
        ("/data/upload/3/0a1b2c3d-7.jpg", names[2]),
        ("/data/local-files/?d=images/7.jpg", names[2]),
        ("/data/local-files/?d=pool/b/0.jpg", names[1]),
        ("/pool/a/0.jpg", names[0]),
    ):
        assert made.find(said, "here").name == meant
    for unclear in ("0.jpg", "/elsewhere/0.jpg", "8.jpg"):
        with pytest.raises(LabelError, match="which is not of the batch"):
            made.find(unclear, "here")


CVAT_IMAGE = '<annotations><image id="0" name="{name}" width="{width}" height="40">{inside}</image></annotations>'
POINTS = '<points label="{}" outside="0" occluded="0" points="{}"></points>'
BAD = {
    "another size": ("pose", {"width": 28}, "was labelled at 28 x 40, the picture .* is 56 x 40; label the exported"),
    "another picture": ("pose", {"name": "x.jpg"}, "labels the picture 'x.jpg', which is not of the batch"),
    "unknown keypoint": ("pose", {"inside": ("tail", "3,4")}, "the label 'tail' is no keypoint of sapiens308"),
    "point twice": ("pose", {"inside": ("nose", "3,4") * 2}, "has the keypoint 'nose' twice"),
    "no number": ("pose", {"inside": ("nose", "nan,4")}, r"the keypoint 'nose' is at \(nan, 4\)"),
    "unknown part": ("segmentation", {"label": "Tail"}, "the label 'Tail' is no part; use Background"),
    "short runs": ("segmentation", {"rle": "3, 4"}, "add up to 7 pixels, not 8"),
    "outside": ("segmentation", {"left": "55"}, "leaves the picture"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(case: str, tmp_path: Path) -> None:
    task, wrong, message = BAD[case]
    inside = ""
    if "inside" in wrong:
        pair = wrong["inside"]
        inside = "".join(POINTS.format(*pair[k : k + 2]) for k in range(0, len(pair), 2))
        inside = f'<skeleton label="person">{inside}</skeleton>'
    elif task == "segmentation":
        node = {"label": "Hair", "rle": "4, 4", "left": "1", "top": "1", "width": "4", "height": "2"} | wrong
        inside = ET.tostring(ET.Element("mask", node), encoding="unicode")
    path = tmp_path / "a.xml"
    path.write_text(CVAT_IMAGE.format(name=wrong.get("name", NAME), width=wrong.get("width", 56), inside=inside))
    with pytest.raises(LabelError, match=message) as raised:
        TOOLS["cvat"].read(path, batch(task, "cvat"))
    assert re.match(rf"{re.escape(str(path))} image ", str(raised.value))


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    for name, text, message in (
        ("coco", "[]", "has no `images` and `annotations`"),
        ("cvat", "{}", "is not XML"),
        ("cvat", "<annotations><track/></annotations>", "export as `CVAT for images 1.1`"),
        ("label-studio", '{"a": 1}', "is no list of tasks"),
    ):
        (tmp_path / "file").write_text(text)
        with pytest.raises(LabelError, match=message):
            TOOLS[name].read(tmp_path / "file", batch("pose", name))


@pytest.mark.parametrize("tool", ["cvat", "label-studio"])
def test_points_without_a_counterpart_are_not_outside(tool: str, tmp_path: Path) -> None:
    """A fully visible person: points that map to none of the 308 are not lost outside."""
    exported, which = batch("pose", tool, "wholebody133"), layout("wholebody133")
    points = np.zeros((len(keypoints()), 3))
    points[:] = [10, 10, 2]
    TOOLS[tool].write(tmp_path, exported, {NAME: PictureLabels(people=[Person(points, (4.5, 4.5, 20.5, 20.5))])})
    path = tmp_path / TOOLS[tool].file
    if tool == "cvat":  # the tool's user has placed the points that have no counterpart, too
        path.write_text(path.read_text().replace('outside="1"', 'outside="0"').replace("0.00,0.00", "9.00,9.00"))
    found = TOOLS[tool].read(path, exported)
    assert (found.pictures[NAME].people[0].points[:, 2] > 0).sum() == (which.reads >= 0).sum() > 50
    assert found.left_out["points outside the picture"] == 0


def test_points_beyond_the_edge_are_counted(tmp_path: Path) -> None:
    inside = POINTS.format("nose", "57.2,4") + POINTS.format("left_eye", "55.9,4")
    path = tmp_path / "a.xml"
    path.write_text(CVAT_IMAGE.format(name=NAME, width=56, inside=f'<skeleton label="person">{inside}</skeleton>'))
    found = TOOLS["cvat"].read(path, batch("pose", "cvat"))
    assert found.left_out["points outside the picture"] == 1
    assert (found.pictures[NAME].people[0].points[:, 2] > 0).sum() == 1


def test_a_damaged_coco_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    picture = {"id": 1, "file_name": NAME, "width": SIZE[1], "height": SIZE[0]}
    for images, categories, message in (
        ([{"id": 1, "file_name": NAME}], [], r"a\.json image 1: has no `width`; give the size"),
        ([picture], [{"id": 1}], "category 1: has no `id` and `name`"),
    ):
        path.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
        with pytest.raises(LabelError, match=message):
            TOOLS["coco"].read(path, batch("segmentation"))
