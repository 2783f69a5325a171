"""Synthetic people: the labels of a scene agree with each other and with its pixels."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from sapiens2.data.synthetic import Scene, contact_sheet, label_views, render
from sapiens2.data.synthetic.backdrop import KINDS
from sapiens2.data.synthetic.fabric import PATTERNS
from sapiens2.data.synthetic.figure import build_figure
from sapiens2.data.synthetic.person import draw_person
from sapiens2.data.synthetic.poses import FAMILIES, draw_pose
from sapiens2.tasks.vocabulary import keypoints

SEEDS = range(12)
HEIGHT, WIDTH = 128, 96


@cache
def scene(seed: int, split: str = "train") -> Scene:
    return render(seed, HEIGHT, WIDTH, split)


def test_the_same_seed_gives_the_same_scene() -> None:
    again = render(3, HEIGHT, WIDTH)
    for name in ("image", "mask", "normals", "points", "albedo", "keypoints", "visibility"):
        assert np.array_equal(getattr(scene(3), name), getattr(again, name)), name
    assert not np.array_equal(scene(3).image, scene(4).image)


def test_splits_share_no_pose_family_pattern_or_background() -> None:
    for table in (FAMILIES, PATTERNS, KINDS):
        assert not set(table["train"]) & set(table["test"])
    assert not np.array_equal(scene(3).image, scene(3, "test").image)
    assert {scene(k, "test").backdrop for k in SEEDS} <= set(KINDS["test"])


def test_transfer_shows_training_poses_in_held_out_looks() -> None:
    assert {scene(k, "transfer").pose for k in SEEDS} <= set(FAMILIES["train"])
    assert {scene(k, "transfer").backdrop for k in SEEDS} <= set(KINDS["test"])
    assert not np.array_equal(scene(3, "transfer").image, scene(3, "train").image)


def test_arrays_have_the_stated_types() -> None:
    one = scene(0)
    assert one.image.shape == (HEIGHT, WIDTH, 3) and one.image.dtype == np.uint8
    assert one.mask.dtype == np.uint8 and one.keypoints.shape == (308, 2) and one.visibility.shape == (308,)
    for name in ("normals", "points", "albedo"):
        array = getattr(one, name)
        assert array.shape == (HEIGHT, WIDTH, 3) and array.dtype == np.float32
        assert np.isfinite(array).all() and (array[~one.valid] == 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_person_is_in_the_picture(seed: int) -> None:
    one = scene(seed)
    assert one.valid.mean() > 0.03
    assert one.mask.max() < 29 and len(np.unique(one.mask)) >= 4
    assert (one.visibility[keypoints().group("body")] == 2).sum() >= 4
    assert one.albedo.min() >= 0 and one.albedo.max() <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_points_project_to_their_own_pixels(seed: int) -> None:
    one = scene(seed)
    rows, columns = np.nonzero(one.valid)
    projected = one.points[one.valid].astype(np.float64) @ one.intrinsics.T.astype(np.float64)
    assert projected[:, 2].min() > 0.2
    np.testing.assert_allclose(projected[:, 0] / projected[:, 2], columns, atol=1e-3)
    np.testing.assert_allclose(projected[:, 1] / projected[:, 2], rows, atol=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_normals_are_unit_face_the_camera_and_follow_the_points(seed: int) -> None:
    one = scene(seed)
    n, p = one.normals[one.valid], one.points[one.valid]
    np.testing.assert_allclose(np.linalg.norm(n, axis=1), 1, atol=1e-5)
    assert ((n * p).sum(1) <= 1e-5).all()
    # An independent estimate: the cross product of differences of the points inside one part of a smooth surface.
    same = one.valid[1:-1, 1:-1].copy()
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        same &= one.mask[dy : HEIGHT - 2 + dy, dx : WIDTH - 2 + dx] == one.mask[1:-1, 1:-1]
    across, down = one.points[1:-1, 2:] - one.points[1:-1, :-2], one.points[2:, 1:-1] - one.points[:-2, 1:-1]
    flat = np.cross(down, across)
    cosine = (flat * one.normals[1:-1, 1:-1]).sum(-1) / np.maximum(np.linalg.norm(flat, axis=-1), 1e-12)
    assert np.median(cosine[same]) > 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_seen_skin_keypoints_lie_on_the_points_map(seed: int) -> None:
    one = scene(seed)
    words = keypoints()
    face = np.zeros(308, bool)
    face[words.group("face")] = True
    seen = face & (one.visibility == 2)
    x, y = np.rint(one.keypoints[seen]).astype(int).T
    gap = []
    for column, row, where in zip(x, y, one.keypoints_3d[seen]):
        around = one.points[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].reshape(-1, 3)
        gap.append(np.abs(around[:, 2] - where[2]).min())
    assert not gap or np.max(gap) < 0.03
    projected = one.keypoints_3d @ one.intrinsics.T
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], one.keypoints, atol=1e-2)


def test_seen_joints_lie_on_the_right_part() -> None:
    # Sleeveless limbs show their own part at the joint; sides must not be swapped.
    hits = total = 0
    for seed in range(30):
        one = scene(seed)
        for name, classes in {"left_middle_finger3": (6,), "right_middle_finger3": (15,), "nose": (3, 24, 25)}.items():
            index = keypoints().id(name)
            if one.visibility[index] == 2:
                column, row = np.rint(one.keypoints[index]).astype(int)
                around = one.mask[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
                total += 1
                hits += bool(np.isin(around, classes).any())
    assert total >= 25 and hits / total > 0.9


def test_mirrored_names_are_mirrored_in_space() -> None:
    """A symmetric pose of a symmetric person mirrors every keypoint onto its flip partner."""
    rng = np.random.default_rng(5)
    pose = draw_pose(rng, "train")
    person = draw_person(rng, "train", pose.seated)
    pose.arms[1], pose.legs[1], pose.curl[1], pose.spread[1] = pose.arms[0], pose.legs[0], pose.curl[0], pose.spread[0]
    pose.spine[1:] = pose.neck[1:] = 0
    person.face.gaze[0] = 0
    points = build_figure(person, pose).points
    mirrored = points[keypoints().flip] * np.array([-1, 1, 1])
    np.testing.assert_allclose(points, mirrored, atol=1e-9)


def test_left_is_at_plus_x_of_the_person() -> None:
    rng = np.random.default_rng(1)
    pose = draw_pose(rng, "train")
    points = build_figure(draw_person(rng, "train", pose.seated), pose).points
    words = keypoints()
    for name in ("shoulder", "hip", "eye", "ear"):
        assert points[words.id(f"left_{name}"), 0] > points[words.id(f"right_{name}"), 0]
    assert points[words.id("nose"), 1] > points[words.id("left_hip"), 1] > points[words.id("left_heel"), 1]


def test_every_class_occurs() -> None:
    found: set[int] = set()
    for seed in range(150):
        found |= set(np.unique(render(seed, 96, 72).mask).tolist())
        if len(found) == 29:
            break
    assert found == set(range(29))


def test_sheets_are_pictures() -> None:
    assert contact_sheet(1, 2, 32, 24).shape == (32, 48, 3)
    assert label_views(0, 32, 24, "test").shape == (32, 120, 3)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="split"):
        render(0, 64, 48, "val")
    with pytest.raises(ValueError, match="too small"):
        render(0, 8, 48)
