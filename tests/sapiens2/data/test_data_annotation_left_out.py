"""What annotation tools hand back beside plain labels: it finds its owner, is drawn, or is counted as left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest

from sapiens2.data.annotation import TOOLS, Batch, Found, Person, Picture, PictureLabels
from sapiens2.data.annotation.labels import NO_POINTS
from sapiens2.data.annotation.runs import pack_bits
from sapiens2.tasks.vocabulary import keypoints, parts

HEIGHT, WIDTH = 60, 100
NAME = "images/a.jpg"


def batch(task: str, *names: str, **more: Any) -> Batch:
    shown = {"width": WIDTH, "height": HEIGHT, "image_id": "a", "group": "g", **more}
    pictures = tuple(Picture(name=name, **shown) for name in names or (NAME,))
    return Batch(tool="coco", task=task, keypoints="coco17", pictures=pictures)  # type: ignore[arg-type]


def counted(found: Found) -> dict[str, int]:
    return {reason: count for reason, count in found.left_out.items() if count}


# --- CVAT ------------------------------------------------------------------------------------------------------------


def cvat(task: str, inside: str, folder: Path) -> Found:
    image = f'<image id="0" name="{NAME}" width="{WIDTH}" height="{HEIGHT}">{inside}</image>'
    (folder / "a.xml").write_text(f"<annotations><version>1.1</version>{image}</annotations>")
    return TOOLS["cvat"].read(folder / "a.xml", batch(task))


def box(x0: float, y0: float, x1: float, y1: float, more: str = "") -> str:
    return f'<box label="person_box" xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}" {more}></box>'


def skeleton(x: float, y: float, more: str = "") -> str:
    """Nose and left eye, ten pixels apart."""
    points = "".join(
        f'<points label="{name}" outside="0" occluded="0" points="{at},{y}"></points>'
        for name, at in (("nose", x), ("left_eye", x + 10))
    )
    return f'<skeleton label="person" {more}>{points}</skeleton>'


def left_edges(found: Found) -> list[float | None]:
    """Of the boxes of the people, from the picture's outer edge."""
    return [None if who.box is None else who.box[0] + 0.5 for who in found.pictures[NAME].people]


GROUPED = 'group_id="1"'
OWNERS: dict[str, tuple[str, list[float | None], int]] = {
    "its own": (skeleton(10, 10) + box(0, 0, 30, 30), [0], 0),
    "somebody's by group": (box(0, 0, 50, 50, GROUPED) + skeleton(10, 10, GROUPED) + skeleton(20, 20), [0, None], 0),
    "group before place": (box(60, 0, 90, 50, GROUPED) + skeleton(10, 10, GROUPED) + box(0, 0, 50, 50), [60], 1),
    "taken already": (box(0, 0, 50, 50) + skeleton(10, 10) + skeleton(20, 20), [0, None], 0),
    "both fit both": (box(0, 0, 50, 50) + box(5, 5, 35, 25) + skeleton(10, 10) + skeleton(10, 20), [5, 0], 0),
    "only one fits": (box(0, 0, 50, 50) + box(5, 5, 35, 15) + skeleton(10, 10) + skeleton(10, 40), [5, 0], 0),
    "choice after need": (box(0, 0, 50, 50) + box(5, 5, 60, 50) + skeleton(10, 10) + skeleton(45, 40), [0, 5], 0),
    "a group of nobody's": (box(0, 0, 50, 50, GROUPED) + skeleton(10, 10), [0], 0),
    "several in a group": (
        box(0, 0, 40, 50, GROUPED) + box(50, 0, 90, 50, GROUPED) + skeleton(60, 9, GROUPED) + skeleton(9, 9, GROUPED),
        [50, 0],
        0,
    ),
    "without a skeleton": (box(0, 0, 30, 30) + box(60, 0, 90, 30) + skeleton(10, 10), [0], 1),
}


@pytest.mark.parametrize("case", OWNERS)
def test_a_skeleton_has_no_box_of_another_person(case: str, tmp_path: Path) -> None:
    inside, edges, without = OWNERS[case]
    found = cvat("pose", inside, tmp_path)
    assert left_edges(found) == edges
    assert found.left_out["boxes without a skeleton"] == without


def test_a_skeleton_without_points_takes_no_box(tmp_path: Path) -> None:
    found = cvat("pose", '<skeleton label="person"></skeleton>' + box(0, 0, 50, 50) + skeleton(10, 10), tmp_path)
    assert left_edges(found) == [0] and found.left_out[NO_POINTS] == 1


def test_the_box_of_a_person_may_be_turned(tmp_path: Path) -> None:
    """What is kept is the upright box around it."""
    found = cvat("pose", skeleton(40, 20) + box(30, 10, 70, 30, 'rotation="90.00"'), tmp_path)
    assert found.pictures[NAME].people[0].box == pytest.approx((39.5, -0.5, 59.5, 39.5))


def test_what_is_no_person_is_counted(tmp_path: Path) -> None:
    others = '<polygon label="person" points="1,1;5,1;5,5"></polygon><tag label="blurred"></tag>'
    found = cvat("pose", others + skeleton(10, 10), tmp_path)
    assert counted(found) == {"shapes of the kind polygon": 1, "shapes of the kind tag": 1}


@pytest.mark.parametrize("angle", [0, 30, 200])
@pytest.mark.parametrize("kind", ["ellipse", "box"])
def test_ellipses_and_boxes_are_regions(kind: str, angle: int, tmp_path: Path) -> None:
    """As OpenCV draws them at 16 times the size; angles are clockwise, as it has them."""
    place = 'cx="50" cy="30" rx="28" ry="12"' if kind == "ellipse" else 'xtl="22" ytl="18" xbr="78" ybr="42"'
    found = cvat("segmentation", f'<{kind} label="Hair" {place} rotation="{angle}" z_order="1"></{kind}>', tmp_path)
    large = np.zeros((16 * HEIGHT, 16 * WIDTH), np.uint8)
    if kind == "ellipse":
        cv2.ellipse(large, (800, 480), (448, 192), angle, 0, 360, 1, -1)
    else:
        cv2.fillPoly(large, [cv2.boxPoints(((800, 480), (896, 384), angle)).round().astype(np.int32)], 1)
    (region,) = found.pictures[NAME].regions
    assert region.part == parts().id("Hair") and counted(found) == {}
    assert (region.pixels != large[8::16, 8::16].astype(bool)).mean() < 0.003


def test_shapes_without_an_area_are_counted(tmp_path: Path) -> None:
    shapes = '<polyline label="Hair" points="1,1;9,9"></polyline><points label="Hair" points="3,3"></points>'
    mask = '<mask label="Hair" rle="0, 4" left="1" top="1" width="2" height="2"></mask>'
    found = cvat("segmentation", shapes * 2 + mask, tmp_path)
    assert counted(found) == {"shapes of the kind polyline": 2, "shapes of the kind points": 2}
    assert found.pictures[NAME].mask((HEIGHT, WIDTH)).astype(bool).sum() == 4


# --- Label Studio ----------------------------------------------------------------------------------------------------


def studio(task: str, results: list[dict[str, Any]], folder: Path) -> Found:
    done = [{"id": 1, "data": {"image": "/data/local-files/?d=images/a.jpg"}, "annotations": [{"result": results}]}]
    (folder / "a.json").write_text(json.dumps(done))
    return TOOLS["label-studio"].read(folder / "a.json", batch(task))


def result(kind: str, **value: Any) -> dict[str, Any]:
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {"id": f"{kind}{len(value)}", "from_name": "x", "to_name": "image", "type": kind, **size, "value": value}


RELATION = {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"}


def test_results_without_a_part_are_counted(tmp_path: Path) -> None:
    """A relation has no value, a brush stroke perhaps no label: the rest of the file is read."""
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    pixels[3:9, 4:20] = True
    stroke = {"format": "rle", "rle": pack_bits(pixels)}
    triangle = {"points": [[1, 1], [5, 1], [5, 5]]}
    results = [RELATION, result("brushlabels", **stroke, brushlabels=[]), result("brush", **stroke)]
    results += [result("polygonlabels", **triangle), result("brushlabels", **stroke, brushlabels=["Hair"])]
    found = studio("segmentation", results, tmp_path)
    assert (found.pictures[NAME].mask((HEIGHT, WIDTH)) > 0).sum() == pixels.sum()
    assert counted(found) == {
        "results of the type relation": 1,
        "results of the type brush": 1,
        "results without a label": 2,
    }


def test_points_without_a_name_are_counted(tmp_path: Path) -> None:
    """A rectangle is a person's, whatever it says; a person who has none but such points is none."""
    place = {"x": 20, "y": 20, "width": 0.4}
    frame = {"x": 10, "y": 10, "width": 30, "height": 50, "rotation": 0}
    results = [RELATION, result("rectanglelabels", **frame), result("keypointlabels", **place, keypointlabels=["nose"])]
    results += [result("keypoint", **place), result("keypointlabels", **place), result("choices", choices=[])]
    found = studio("pose", results, tmp_path)
    (who,) = found.pictures[NAME].people
    assert (who.points[:, 2] > 0).sum() == 1 and who.box == pytest.approx((9.5, 5.5, 39.5, 35.5))
    assert counted(found) == {
        "results of the type relation": 1,
        "results of the type keypoint": 1,
        "results without a label": 1,
    }


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task 1: is damaged .* export as JSON again"):
        studio("pose", [["nose"]], tmp_path)  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["pool/Tom & Ann #1.jpg", "pool/a+b.jpg", "pool/100%25.jpg", "pool/ä ö.jpg"])
def test_addresses_lead_to_the_file_and_back(name: str, tmp_path: Path) -> None:
    """As Label Studio reads them: the query's parameter d, below the folder that it may read."""
    made = batch("pose", f"/{name}", "/pool/plain.jpg")
    TOOLS["label-studio"].write(tmp_path, made, {})
    (address, _) = (task["data"]["image"] for task in json.loads((tmp_path / "tasks.json").read_text()))
    assert parse_qs(urlsplit(address).query)["d"] == [name] and not urlsplit(address).fragment
    assert made.find(address, "here").name == f"/{name}"
    assert made.find(f"/data/local-files/?d={name}", "here").name == f"/{name}"  # as earlier exports had it


def test_a_quoted_address_means_the_resolved_name() -> None:
    made = batch("pose", "/pool/a%20b.jpg", "/pool/a b.jpg")
    assert made.find("/data/local-files/?d=pool/a%20b.jpg", "here").name == "/pool/a b.jpg"
    assert made.find("/data/local-files/?d=pool/a%2520b.jpg", "here").name == "/pool/a%20b.jpg"
    assert made.find("/pool/a%20b.jpg", "here").name == "/pool/a%20b.jpg"
    assert batch("pose", "images/a b.jpg").find("/data/upload/3/0a1b2c3d-a%20b.jpg", "here").name == "images/a b.jpg"


# --- COCO ------------------------------------------------------------------------------------------------------------


def test_the_area_of_a_person_is_kept(tmp_path: Path) -> None:
    """What the file says of it; a box that a detector found says nothing, and what is written says so."""
    points = np.zeros((len(keypoints()), 3))
    points[:3] = [[20, 20, 2], [25, 20, 2], [22, 25, 2]]
    person = Person(points, (9.5, 9.5, 39.5, 49.5), area=432.1)
    made = batch("pose", NAME, "images/b.jpg", boxes=((1.0, 2.0, 11.0, 12.0),))
    TOOLS["coco"].write(tmp_path, made, {NAME: PictureLabels(people=[person])})
    path = tmp_path / "annotations.json"
    content = json.loads(path.read_text())
    assert [annotation["area"] for annotation in content["annotations"]] == [432.1, 0]
    content["annotations"][1]["keypoints"] = content["annotations"][0]["keypoints"]
    path.write_text(json.dumps(content))
    found = TOOLS["coco"].read(path, made)
    assert [found.pictures[name].people[0].area for name in (NAME, "images/b.jpg")] == [432.1, None]
