"""Augmentation: the table is the published one, changes of it are checked, labels move with the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sapiens2.data.synthetic import render
from sapiens2.tasks import augmentation as a
from sapiens2.tasks.augment import FRAMES, NEUTRAL, PIXELS, _Seen, augmented, draw_photometric
from sapiens2.tasks.augmentation import RECIPES, TRANSFORMS, augmentation
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.recipes import published
from sapiens2.tasks.sample import Sample, flip, from_scene
from sapiens2.tasks.vocabulary import IGNORE, keypoints

SIZE = (96, 72)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return from_scene(render(3, *SIZE))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_release_is_the_table_of_the_specification() -> None:
    """Probabilities and ranges by hand from section 4; orders are those in which they are drawn."""
    pose = augmentation("pose", "release")
    assert {name: t.p for name, t in pose.items()} == {
        "half_body": 0.3,
        "scale": 1.0,
        "shift": 0.3,
        "rotate": 0.6,
        "flip": 0.5,
        "photometric": 0.8,
        "blur": 0.1,
        "median_blur": 0.1,
        "dropout": 1.0,
    }
    assert (pose["rotate"].degrees, pose["shift"].share, pose["scale"].factor) == (80, 0.16, (0.5, 1.5))  # type: ignore[attr-defined]
    segmentation = augmentation("segmentation", "release")
    assert segmentation["rotate"].degrees == 60 and segmentation["crop"].largest_class == 0.75  # type: ignore[attr-defined]
    normal = augmentation("normal", "release")
    assert normal["resample"].factor == (0.1, 0.7) and normal["solarize"].threshold == 128  # type: ignore[attr-defined]
    assert all(augmentation(task, "release")["flip"].p == 0.3 for task in ("normal", "pointmap", "albedo"))
    assert "photometric" not in augmentation("albedo", "release")
    assert set(RECIPES) == {"none", "light", "release"} and set(FRAMES) == set(a.GEOMETRY)
    assert set(TRANSFORMS) == {*FRAMES, *PIXELS, "flip", "photometric", "background"}
    assert published("pose", "1b").augmentation == "release"


def test_changes_lie_over_the_table() -> None:
    changes = {"rotate": 0.25, "dropout": None, "blur": {"sigma": [1, 3]}, "noise": {"p": 0.5}}
    chosen = augmentation("pose", "release", changes)
    assert chosen["rotate"] == a.Rotate(p=0.25, degrees=80, law="normal") and "dropout" not in chosen
    assert chosen["blur"] == a.Blur(p=0.1, sigma=(1, 3)) and chosen["noise"] == a.Noise(p=0.5)
    assert list(chosen) == [name for name in TRANSFORMS if name in chosen]
    config = FinetuneConfig(task="pose", augmentation="none", augment={"flip": 1.0})
    assert augmentation(config.task, config.augmentation, config.augment) == {"flip": a.Flip(p=1.0)}
    older = FinetuneConfig.model_validate({"task": "albedo", "flip": 0.25, "photometric": 0.8})
    assert augmentation("albedo", older.augmentation, older.augment) == {"flip": a.Flip(p=0.25)}


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("pose", {"rotat": 0.1}, "no transform is called 'rotat'; use background, half_body, scale, shift"),
        ("pose", {"rotate": {"angle": 3}}, "rotate.angle: .*; its fields are p, degrees, law"),
        ("pose", {"rotate": 1.5}, "rotate.p: .*less than or equal to 1"),
        ("normal", {"crop": {"area": [0.9, 0.2]}}, r"crop.area=\(0.9, 0.2\) is no range"),
        ("normal", {"half_body": 0.1}, "half_body is for pose"),
        ("albedo", {"solarize": 0.1}, "solarize would change what albedo is told by"),
        ("pose", {"blur": "much"}, "blur is 'much': give a probability, its fields, or null"),
    ],
)
def test_what_is_not_in_the_table_is_refused(task: a.TaskName, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(task=task, augment=changes)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_can_be_augmented_as_released(task: a.TaskName, sample: Sample) -> None:
    transforms = augmentation(task, "release")
    for seed in range(6):
        got, colours = augmented(sample, None, SIZE, transforms, generator(seed), stretch=task == "segmentation")
        again, same = augmented(sample, None, SIZE, transforms, generator(seed), stretch=task == "segmentation")
        assert (got.image == again.image).all() and (colours == same).all()
        assert got.image.shape == (*SIZE, 3) and got.image.dtype == np.uint8
        assert got.points is not None and got.intrinsics is not None and got.valid is not None
        if got.valid.any():  # points and camera still belong together
            seen = got.points[got.valid] @ got.intrinsics.T
            np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], np.argwhere(got.valid)[:, ::-1], atol=2e-2)
            assert got.normals is not None
            np.testing.assert_allclose(np.linalg.norm(got.normals[got.valid], axis=1), 1, atol=1e-4)


def test_nothing_drawn_is_nothing_changed(sample: Sample) -> None:
    got, colours = augmented(sample, None, SIZE, augmentation("pose", "none"), generator())
    assert got is sample and colours is NEUTRAL
    mirrored, _ = augmented(sample, None, SIZE, {"flip": a.Flip(p=1.0)}, generator())
    wanted = flip(sample)
    assert (mirrored.image == wanted.image).all() and (mirrored.keypoints == wanted.keypoints).all()


def moved_with_pixels(transforms: dict[str, a.Transform], seed: int) -> bool:
    """A dot painted at a keypoint is where the keypoint is afterwards; False where it left the frame."""
    dots = np.zeros((*SIZE, 3), np.uint8)
    nose = np.array([30.0, 40.0], np.float32)
    dots[38:43, 28:33] = 255
    xy = np.tile(nose, (308, 1))
    marked = replace(Sample(dots), keypoints=xy, labelled=np.ones(308, bool))
    got, _ = augmented(marked, None, SIZE, transforms, generator(seed))
    assert got.keypoints is not None and got.labelled is not None
    inside = ((got.keypoints[0] > 8) & (got.keypoints[0] < np.array(SIZE[::-1]) - 8)).all()
    if not inside:
        return False
    weight = got.image[..., 0].astype(float)
    rows, columns = np.indices(SIZE)
    centre = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    assert got.labelled[0] and np.linalg.norm(centre - got.keypoints[0]) < 0.7
    return True


@pytest.mark.parametrize("name", ["scale", "shift", "rotate", "crop"])
def test_points_go_where_their_pixels_go(name: str) -> None:
    assert sum(moved_with_pixels({name: TRANSFORMS[name](p=1.0)}, seed) for seed in range(8)) >= 4


def test_ranges_of_the_frame_are_kept() -> None:
    seen = _Seen(Sample(np.zeros((*SIZE, 3), np.uint8)), np.eye(3)[:2])
    rng = generator(1)
    factors = np.array([FRAMES["scale"](a.Scale(factor=(0.5, 2)), seen, SIZE, rng, False)[0, 0] for _ in range(300)])  # type: ignore[index]
    assert 0.5 <= factors.min() < 0.55 and 1.8 < factors.max() <= 2.0
    turns = [FRAMES["rotate"](a.Rotate(degrees=80, law="normal"), seen, SIZE, rng, False) for _ in range(300)]
    angles = np.degrees([np.arctan2(matrix[1, 0], matrix[0, 0]) for matrix in turns])  # type: ignore[index]
    assert abs(angles).max() <= 80 and np.std(angles) == pytest.approx(0.54 * 80, rel=0.12)  # normal, cut at sigma
    crops = [FRAMES["crop"](a.Crop(), seen, SIZE, rng, True) for _ in range(300)]
    areas = np.array([1 / (matrix[0, 0] * matrix[1, 1]) for matrix in crops])  # type: ignore[index]
    assert areas.max() <= 1.0001 and areas.min() > 0.3
    kept = [FRAMES["crop"](a.Crop(), seen, SIZE, rng, False) for _ in range(50)]
    assert all(matrix[0, 0] == pytest.approx(matrix[1, 1]) for matrix in kept)  # type: ignore[index]


def test_a_crop_full_of_one_class_is_drawn_again() -> None:
    """The left half is background; crops that show it alone are replaced where another can be had."""
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 36:] = 5
    half = Sample(np.zeros((*SIZE, 3), np.uint8), mask=mask)
    shares = []
    for largest in (1.0, 0.75):
        how = a.Crop(area=(0.05, 0.2), largest_class=largest)
        found = [augmented(half, None, SIZE, {"crop": how}, generator(k), stretch=True)[0].mask for k in range(40)]
        counts = [np.bincount(m.ravel(), minlength=256)[:IGNORE] for m in found if m is not None]
        shares.append(np.mean([c.max() / c.sum() > 0.8 for c in counts]))
    assert shares[0] > 0.4 and shares[1] < 0.1


def test_half_a_body_fills_the_frame(sample: Sample) -> None:
    words = keypoints()
    points = np.zeros((308, 2), np.float32)
    body = words.group("body")
    for k in body:
        lower = any(part in words.names[k] for part in ("hip", "knee", "ankle"))
        points[k] = (30 + k % 5, 60 + k % 7) if lower else (36 + k % 4, 15 + k % 6)
    labelled = np.isin(np.arange(308), body)
    whole = replace(Sample(np.zeros((*SIZE, 3), np.uint8)), keypoints=points, labelled=labelled)
    upper = np.array([not any(part in words.names[k] for part in ("hip", "knee", "ankle")) for k in body])
    for preference, half in ((1.0, upper), (0.0, ~upper)):
        how = {"half_body": a.HalfBody(p=1.0, upper=preference)}
        got, _ = augmented(whole, None, SIZE, how, generator())
        assert got.labelled is not None and got.keypoints is not None
        assert got.labelled[body[half]].all() and not got.labelled[body[~half]].any()
        spread = np.ptp(got.keypoints[body[half]], axis=0) / [SIZE[1] - 1, SIZE[0] - 1]
        assert spread.max() == pytest.approx(1 / 1.5, rel=1e-3)
    few = replace(whole, labelled=np.isin(np.arange(308), body[:5]))
    assert augmented(few, None, SIZE, {"half_body": a.HalfBody(p=1.0)}, generator())[0] is few


def test_pictures_change_and_labels_stay(sample: Sample) -> None:
    for name in PIXELS:
        got, _ = augmented(sample, None, SIZE, {name: TRANSFORMS[name](p=1.0)}, generator())
        assert not (got.image == sample.image).all(), name
        assert got.mask is sample.mask and got.keypoints is sample.keypoints
    dark = np.full((*SIZE, 3), 100, np.uint8)
    hole, _ = augmented(Sample(dark), None, SIZE, {"dropout": a.Dropout(p=1.0)}, generator())
    share = (hole.image == 0).mean()
    assert 0.2**2 * 0.9 < share < 0.4**2 * 1.1
    noisy, _ = augmented(Sample(dark), None, SIZE, {"noise": a.Noise(p=1.0, variance=(16, 16))}, generator())
    assert np.std(noisy.image.astype(float) - 100) == pytest.approx(4, rel=0.05)
    bright = np.full((*SIZE, 3), 200, np.uint8)
    assert (augmented(Sample(bright), None, SIZE, {"solarize": a.Solarize(p=1.0)}, generator())[0].image == 55).all()


def test_colours_are_drawn_within_their_ranges() -> None:
    drawn = np.array([draw_photometric(generator(k), a.Photometric()) for k in range(400)])
    changed = drawn != NEUTRAL
    assert 0.4 < changed.mean() < 0.6
    assert abs(drawn[:, 0]).max() <= 32 and (drawn[:, 1:3] >= 0.5).all() and (drawn[:, 1:3] <= 1.5).all()
    assert 0.09 < abs(drawn[:, 3]).max() <= 0.1
