"""Real annotated pictures: every reader takes them, the check finds no error, and the drawings can be looked at.

Needs SAPIENS2_ACCEPTANCE: its data/labelled holds keypoints in several layouts, CIHP and VOC masks, a stereo pair.
Drawings go to $SAPIENS2_LOOK, where it is set.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sapiens2.data.annotation import TOOLS, Batch, Person, Picture, PictureLabels
from sapiens2.data.annotation.labels import regions_of
from sapiens2.data.formats.coco import read_coco
from sapiens2.data.formats.masks import import_masks
from sapiens2.data.labelled import DatasetWriter, LabelledDataset
from sapiens2.data.labelled.check import Report, check
from sapiens2.data.labelled.layout import Row
from sapiens2.data.labelled.read import read_image
from sapiens2.data.labelled.sheet import contact_sheet, tile
from sapiens2.data.labelled.write import npz_bytes, png_bytes
from sapiens2.tasks.vocabulary import keypoints, parts

KEYPOINTS = [
    ("coco", "test_coco.json", "coco17"),
    ("coco", "test_coco_wholebody.json", "wholebody133"),
    ("coco", "test_halpe.json", "halpe136"),
    ("crowdpose", "test_crowdpose.json", "crowdpose14"),
    ("aic", "test_aic.json", "aic14"),
    ("mhp", "test_mhp.json", "mhp16"),
    ("ochuman", "test_ochuman.json", "coco17"),
    ("humanart", "test_humanart.json", "coco17"),
    ("humanart", "test_humanart.json", "humanart21"),
]


def look(report: Report, name: str) -> None:
    folder = os.environ.get("SAPIENS2_LOOK")
    if folder and report.shown:
        Path(folder).mkdir(parents=True, exist_ok=True)
        sheet = contact_sheet([tile(task, sample) for task, _, sample in report.shown])
        (Path(folder) / f"{name}.png").write_bytes(png_bytes(sheet))


@pytest.mark.parametrize(
    ("folder", "file", "layout"), KEYPOINTS, ids=[f.removesuffix(".json") for _, f, _ in KEYPOINTS]
)
def test_keypoints_load_and_draw(folder: str, file: str, layout: str, acceptance: Path, tmp_path: Path) -> None:
    source = acceptance / "data" / "labelled" / "keypoints2d" / folder
    found = read_coco(source / file, layout)
    rows = []
    with DatasetWriter(str(tmp_path)) as writer:
        for row in found.rows:
            name = row.image.removeprefix("images/").removeprefix("HumanArt/images/")
            if (source / name).is_file():  # one picture of Human-Art is not among the samples
                writer.file(row.image, (source / name).read_bytes())
                rows.append(row)
        writer.rows += rows
    assert rows
    report = check(str(tmp_path), ["pose"], show=12)
    look(report, file.removesuffix(".json"))
    assert report.errors == 0, [str(problem) for problem in report.problems]
    labelled = sum(int(sample.labelled.sum()) for _, _, sample in report.shown if sample.labelled is not None)
    assert labelled >= 8 * len(report.shown) * (0.5 if folder in ("crowdpose", "mhp", "aic") else 1)


def test_one_body_in_three_layouts_is_one_body(acceptance: Path) -> None:
    """The same people are annotated in COCO, WholeBody and Halpe: shared points agree, hands too."""
    source = acceptance / "data" / "labelled" / "keypoints2d" / "coco"
    files = (
        ("test_coco.json", "coco17"),
        ("test_coco_wholebody.json", "wholebody133"),
        ("test_halpe.json", "halpe136"),
    )
    coco, whole, halpe = ([r.keypoints for r in read_coco(source / f, n).rows] for f, n in files)
    body, compared = keypoints().group("body"), 0
    for a, b, c in zip(coco, whole, halpe, strict=True):
        assert a is not None and b is not None and c is not None
        np.testing.assert_array_equal(a[body], b[body])
        np.testing.assert_array_equal(a[body], c[body])
        hands = np.concatenate([keypoints().group("left_hand"), keypoints().group("right_hand")])
        both = hands[(b[hands, 2] > 0) & (c[hands, 2] > 0)]
        if len(both) >= 15:
            size = np.ptp(b[both, :2], axis=0).max()
            assert np.median(np.linalg.norm(b[both, :2] - c[both, :2], axis=1)) < 0.15 * size
            compared += 1
    assert compared


def test_cihp_masks_map_to_parts(acceptance: Path, tmp_path: Path) -> None:
    source = acceptance / "data" / "labelled" / "body_parts" / "cihp"
    with DatasetWriter(str(tmp_path)) as writer:
        assert import_masks(source / "images", source / "labels", "cihp20", writer) == 3
    report = check(str(tmp_path), ["segmentation"], show=3)
    look(report, "cihp")
    assert report.errors == 0
    found = set(report.counts["segmentation"]["pixels per class"])
    assert {"Background", "Hair", "Face_Neck", "Upper_Clothing"} <= found <= set(parts().names)


def _pictures(sizes: dict[str, tuple[int, ...]]) -> tuple[Picture, ...]:
    return tuple(Picture(name=n, width=s[1], height=s[0], image_id=n, group=n) for n, s in sizes.items())


@pytest.mark.parametrize("name", TOOLS)
def test_real_labels_through_annotation_tools_and_back(name: str, acceptance: Path, tmp_path: Path) -> None:
    """CIHP's masks come back pixel for pixel, COCO-WholeBody's people to a hundredth of a pixel."""
    source = acceptance / "data" / "labelled"
    with DatasetWriter(str(tmp_path / "parts")) as writer:
        import_masks(
            source / "body_parts" / "cihp" / "images", source / "body_parts" / "cihp" / "labels", "cihp20", writer
        )
    masks = LabelledDataset(str(tmp_path / "parts"), "segmentation")
    known = {f"{k}.jpg": np.asarray(masks.sample(k).mask) for k in range(len(masks))}
    sizes = {n: mask.shape for n, mask in known.items()}
    batch = Batch(tool=name, task="segmentation", pictures=_pictures(sizes))
    TOOLS[name].write(tmp_path, batch, {n: PictureLabels(regions=regions_of(mask)) for n, mask in known.items()})
    found = TOOLS[name].read(tmp_path / TOOLS[name].file, batch)
    for n, mask in known.items():
        got = found.pictures[n].mask((mask.shape[0], mask.shape[1]))
        np.testing.assert_array_equal(got, np.where(mask == 255, 0, mask))
    coco = source / "keypoints2d" / "coco"
    people: dict[str, list[Person]] = {}
    for row in read_coco(coco / "test_coco_wholebody.json", "wholebody133", images="").rows:
        assert row.keypoints is not None
        people.setdefault(row.image, []).append(Person(row.keypoints, row.box))
    sizes = {n: read_image(str(coco / n)).shape for n in people}
    batch = Batch(tool=name, task="pose", keypoints="wholebody133", pictures=_pictures(sizes))
    TOOLS[name].write(tmp_path, batch, {n: PictureLabels(people=given) for n, given in people.items()})
    found = TOOLS[name].read(tmp_path / TOOLS[name].file, batch)
    compared = 0
    for n, given in people.items():
        for before, after in zip(given, found.pictures[n].people, strict=True):
            seen = before.points[:, 2] > 0
            assert (after.points[:, 2] > 0).tolist() == seen.tolist()
            np.testing.assert_allclose(after.points[seen, :2], before.points[seen, :2], atol=0.011)
            compared += int(seen.sum())
    assert compared > 300


def test_voc_people_are_unknown_and_the_rest_background(acceptance: Path, tmp_path: Path) -> None:
    source = acceptance / "data" / "labelled" / "body_parts" / "voc_sample"
    with DatasetWriter(str(tmp_path)) as writer:
        assert import_masks(source / "JPEGImages", source / "SegmentationClass", "voc21", writer) == 3
    for index in range(3):
        mask = LabelledDataset(str(tmp_path), "segmentation").sample(index).mask
        assert mask is not None and set(np.unique(mask)) <= {0, 255} and (mask == 0).mean() > 0.3


def test_a_stereo_pair_is_metric_points(acceptance: Path, tmp_path: Path) -> None:
    """Disparity, baseline and focal length give points that pass the check and lie 2 to 6 m away.

    Calibration of the 741 x 500 Motorcycle pair as scikit-image documents it (Middlebury 2014).
    """
    folder = acceptance / "data" / "labelled" / "depth" / "middlebury_motorcycle"
    focal, cx, cy, offset, baseline = 994.978, 311.193, 254.877, 31.086, 0.193001
    with np.load(folder / "motorcycle_disp.npz") as file:
        disparity = np.asarray(file[file.files[0]], np.float64)
    known = np.isfinite(disparity) & (disparity > 0)
    depth = np.where(known, baseline * focal / (np.where(known, disparity, 1) + offset), 0).astype(np.float32)
    camera = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
    with DatasetWriter(str(tmp_path)) as writer:
        picture = writer.file("images/left.png", (folder / "motorcycle_left.png").read_bytes())
        writer.rows.append(Row(image=picture, depth=writer.file("d.npz", npz_bytes(depth=depth)), intrinsics=camera))
    report = check(str(tmp_path), ["pointmap"], show=1)
    look(report, "stereo")
    assert report.errors == 0, [str(problem) for problem in report.problems]
    low, middle, high = report.counts["pointmap"]["median depth, m"]
    assert low == middle == high and 2 < middle < 6
