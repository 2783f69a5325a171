"""MakeHuman bodies: files, joint angles and rendered labels, on a figure of boxes whose every surface is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_body import HALF, bones, write_body

from sapiens2.data.makehuman import Bodies
from sapiens2.data.makehuman.files import Fit, read_fit, read_surface, read_target
from sapiens2.data.makehuman.joints import turns
from sapiens2.data.makehuman.rig import Rig, pose
from sapiens2.data.makehuman.wardrobe import fitted, skin_class
from sapiens2.data.synthetic.poses import Pose
from sapiens2.tasks.vocabulary import keypoints, parts

STILL = {"arms": np.zeros((2, 7)), "legs": np.zeros((2, 5)), "spine": np.zeros(3), "neck": np.zeros(3), "lean": 0.0}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Bodies:
    return Bodies(write_body(tmp_path_factory.mktemp("makehuman")))


def _ends(bodies: Bodies, **angles: object) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Heads and tails of the bones of a pose given in joint angles."""
    rig = Rig.of(bodies.bones, bodies.base.points)
    still = Pose(family="", curl=np.zeros((2, 5)), spread=np.zeros(2), seated=False, **(STILL | angles))  # type: ignore[arg-type]
    posed = pose(rig, turns(rig, still))
    rows = range(len(rig.bones))
    return {b.name: (posed.move(k, rig.heads[k]), posed.move(k, rig.tails[k])) for k, b in zip(rows, rig.bones)}


def _direction(ends: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])


def test_limbs_hang_down_at_zero_angles_whatever_the_rest_pose(bodies: Bodies) -> None:
    ends = _ends(bodies)
    for side in "LR":
        for bone in ("upperarm01", "lowerarm01", "upperleg01", "lowerleg01"):
            np.testing.assert_allclose(_direction(ends[f"{bone}.{side}"]), [0, -1, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("joint", "angle", "bone", "expected"),
    [
        (("arms", 1), 90, "upperarm01", {"L": (1, 0, 0), "R": (-1, 0, 0)}),  # abduction lifts both sideways
        (("arms", 0), 90, "upperarm01", {"L": (0, 0, 1), "R": (0, 0, 1)}),  # flexion lifts forward
        (("arms", 3), 90, "lowerarm01", {"L": (0, 0, 1), "R": (0, 0, 1)}),  # the elbow bends forward
        (("legs", 0), 60, "upperleg01", {"L": (0, -0.5, 0.75**0.5), "R": (0, -0.5, 0.75**0.5)}),
        (("legs", 3), 90, "lowerleg01", {"L": (0, 0, -1), "R": (0, 0, -1)}),  # the knee bends backward
        (("legs", 1), 30, "upperleg01", {"L": (0.5, -(0.75**0.5), 0), "R": (-0.5, -(0.75**0.5), 0)}),
    ],
)
def test_joint_angles_turn_bones_as_named(bodies: Bodies, joint: tuple[str, int], angle, bone, expected) -> None:
    angles = STILL[joint[0]].copy()
    angles[:, joint[1]] = np.radians(angle)
    ends = _ends(bodies, **{joint[0]: angles})
    for side, direction in expected.items():
        np.testing.assert_allclose(_direction(ends[f"{bone}.{side}"]), direction, atol=1e-9)


def test_bones_keep_their_length_and_stay_joined(bodies: Bodies) -> None:
    rng = np.random.default_rng(3)
    ends = _ends(bodies, arms=rng.normal(0, 0.7, (2, 7)), legs=rng.normal(0, 0.5, (2, 5)), spine=rng.normal(0, 0.2, 3))
    for name, (parent, head, tail) in bones().items():
        assert np.linalg.norm(np.subtract(*ends[name])) == pytest.approx(np.linalg.norm(tail - head))
        if parent is not None:
            gap = np.linalg.norm(head - bones()[parent][2])
            assert np.linalg.norm(ends[name][0] - ends[parent][1]) == pytest.approx(gap)


def test_rendered_labels_lie_on_the_boxes(bodies: Bodies) -> None:
    """Every pixel of a limb is on the surface of the box about that limb's joints, and its normal points out of it."""
    words, seen = keypoints(), 0
    limbs = {"Upper_Arm": ("shoulder", "elbow"), "Lower_Arm": ("elbow", "wrist"), "Upper_Leg": ("hip", "knee")}
    for seed in range(4):
        scene = bodies.render(seed, 96, 72, "train")
        for part, joints in limbs.items():
            for side in ("left", "right"):
                mine = scene.mask == parts().id(f"{side.title()}_{part}")
                a, b = (scene.keypoints_3d[words.id(f"{side}_{joint}")] for joint in joints)
                along = (b - a) / np.linalg.norm(b - a)
                at = scene.points[mine] - a
                radial = at - (at @ along)[:, None] * along
                far = np.linalg.norm(radial, axis=1)
                inner = far > 0.9 * HALF * 0.1  # not on the cap of the box
                assert far.max(initial=0) < HALF * 0.1 * 2**0.5 + 1e-4
                assert (at @ along).min(initial=0) > -1e-3
                assert ((scene.normals[mine] * radial).sum(1) > 0)[inner].mean() > 0.9 if inner.any() else True
                seen += int(mine.sum())
        placed = scene.visibility > 0
        uvw = scene.keypoints_3d[placed] @ scene.intrinsics.T
        np.testing.assert_allclose(uvw[:, :2] / uvw[:, 2:], scene.keypoints[placed], atol=1e-2)
    assert seen > 500


def test_only_keypoints_with_a_place_are_labelled(bodies: Bodies) -> None:
    words = keypoints()
    seen = np.zeros(len(words), bool)
    for seed in range(6):
        scene = bodies.render(seed, 64, 48, "test")
        seen |= scene.visibility > 0
        assert not scene.keypoints[scene.visibility == 0][words.id("tip_of_chin")].any()
    for name in ("left_shoulder", "right_knee", "neck", "nose", "left_forefinger4", "right_olecranon"):
        assert seen[words.id(name)], name
    for name in ("left_thumb4", "left_ear", "l_outer_corner_of_mouth", "tip_of_chin", "left_acromion"):
        assert not seen[words.id(name)], name


def test_a_suit_hides_the_skin_below_it_and_follows_the_body(bodies: Bodies) -> None:
    (suit,) = bodies.suits
    trunk = suit.fit.hidden
    assert len(trunk) == 8
    np.testing.assert_allclose(suit.points(bodies.base.points), bodies.base.points[trunk])
    np.testing.assert_allclose(suit.weights(bodies.weights), bodies.weights[trunk])
    scene = bodies.render(1, 96, 72)
    assert (scene.mask == parts().id("Upper_Clothing")).sum() > 50


def test_same_seed_same_picture(bodies: Bodies) -> None:
    one, again, other = (bodies.render(seed, 48, 36) for seed in (5, 5, 6))
    assert np.array_equal(one.image, again.image) and np.array_equal(one.mask, again.mask)
    assert not np.array_equal(one.image, other.image)


def test_a_garment_is_bound_and_stretched_by_hand() -> None:
    base = np.array([[0.0, 0, 0], [2, 0, 0], [0, 4, 0], [0, 0, 8]])
    fit = Fit(
        np.array([[0, 1, 2]]), np.array([[0.5, 0.25, 0.25]]), np.array([[0.1, 0.2, 0.3]]),
        ((0, 1, 1.0), (0, 2, 8.0), None), np.array([], int), (),
    )  # fmt: skip
    # x: 0.25 * 2 + 0.1 * (2 / 1); y: 0.25 * 4 + 0.2 * (4 / 8); z: 0.3 unstretched
    np.testing.assert_allclose(fitted(fit, base), [[0.7, 1.1, 0.3]])


def test_files_are_read_as_written(tmp_path: Path) -> None:
    write_body(tmp_path)
    target = next(tmp_path.glob("mpfb/**/*.target.gz"))
    np.testing.assert_allclose(read_target(target, 2), [[0.5, 0, -0.25], [0, 0, 0]])
    obj = tmp_path / "one.obj"
    obj.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0.5\ng cloth\nf 1/1 2/1 3/1 4/1\n")
    surface = read_surface(obj)
    assert surface.faces.tolist() == [[0, 1, 2], [0, 2, 3]] and surface.groups.tolist() == ["cloth"] * 2
    clothes = tmp_path / "one.mhclo"
    clothes.write_text("verts 0\nmaterial x\n3\ndelete_verts\n1 - 3 0\n")
    fit = read_fit(clothes, 4)
    assert fit.anchors.tolist() == [[3, 3, 3]] and sorted(fit.hidden.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("bone", "part"),
    [("upperarm02.R", "Right_Upper_Arm"), ("finger5-3.L", "Left_Hand"), ("toe1-1.R", "Right_Foot"),
     ("breast.L", "Torso"), ("oris03.L", "Face_Neck"), ("neck02", "Face_Neck")],
)  # fmt: skip
def test_skin_has_the_class_of_its_bone(bone: str, part: str) -> None:
    assert parts().names[skin_class(bone)] == part


def _break(folder: Path, what: str) -> None:
    weights, skeleton = folder / "rigs/default_weights.mhw", folder / "rigs/default.mhskel"
    if what == "no mesh":
        (folder / "3dobjs/base.obj").unlink()
    elif what == "weights of another mesh":
        weights.write_text(json.dumps({"weights": {"root": [[9999, 1.0]]}}))
    elif what == "no limb":
        skeleton.write_text(skeleton.read_text().replace("upperleg01", "thigh"))
    elif what == "circle":
        skeleton.write_text(skeleton.read_text().replace('"parent": null', '"parent": "head"'))
    else:
        (folder / "clothes/shirt/shirt.obj").write_text("v 0 0 0\n")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no mesh", "base.obj cannot be read"),
        ("weights of another mesh", "default_weights.mhw names vertex 9999"),
        ("no limb", "lacks the bone 'upperleg01.L'"),
        ("circle", "leads to no root"),
        ("garment", "binds 8 vertices, its .obj has 1"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, what: str, message: str) -> None:
    _break(write_body(tmp_path), what)
    with pytest.raises(ValueError, match=message):
        Bodies(tmp_path)
