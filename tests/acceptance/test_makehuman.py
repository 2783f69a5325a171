"""MakeHuman's own mesh, rig and clothes as bodies: labels agree with each other, and the pictures can be looked at.

Needs SAPIENS2_ACCEPTANCE: its data/labelled/makehuman. A contact sheet goes to $SAPIENS2_LOOK, where it is set.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sapiens2.data.makehuman import Bodies
from sapiens2.data.synthetic import Scene
from sapiens2.data.synthetic.sheet import PALETTE
from sapiens2.tasks.vocabulary import keypoints, parts

SCENES = 24
EXPECTED = {"Face_Neck", "Hair", "Torso", "Upper_Clothing", "Lower_Clothing", "Upper_Lip", "Lower_Lip"} | {
    f"{side}_{part}" for side in ("Left", "Right") for part in ("Hand", "Lower_Arm", "Upper_Arm", "Shoe", "Foot")
}
# Parts that may be seen at a joint, whatever is worn; the body may cover it with an arm or a hand.
NEAR = {
    "wrist": ("Hand", "Lower_Arm", "Upper_Clothing"),
    "elbow": ("Lower_Arm", "Upper_Arm", "Upper_Clothing"),
    "knee": ("Lower_Leg", "Upper_Leg", "Lower_Clothing"),
    "ankle": ("Foot", "Shoe", "Sock", "Lower_Leg", "Lower_Clothing"),
}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    root = os.environ.get("SAPIENS2_ACCEPTANCE")
    if not root:
        pytest.skip("set SAPIENS2_ACCEPTANCE to the folder that holds data/labelled/makehuman")
    bodies = Bodies(Path(root) / "data/labelled/makehuman")
    return [bodies.render(seed, 192, 144, "test") for seed in range(SCENES)]


def test_bodies_show_the_classes_that_they_wear(scenes: list[Scene]) -> None:
    names = {parts().names[c] for scene in scenes for c in np.unique(scene.mask)}
    assert names >= EXPECTED, EXPECTED - names


def test_seen_joints_lie_on_their_own_parts(scenes: list[Scene]) -> None:
    words, names = keypoints(), parts().names
    found: Counter[bool] = Counter()
    for scene in scenes:
        for joint, near in NEAR.items():
            for side in ("left", "right"):
                k = words.id(f"{side}_{joint}")
                if scene.visibility[k] == 2:
                    x, y = np.rint(scene.keypoints[k]).astype(int)
                    name = names[scene.mask[y, x]]
                    there = name.startswith(side.title()) or name.endswith("Clothing")
                    found[there and name.removeprefix(f"{side.title()}_") in near] += 1
    assert found.total() > 60
    assert found[True] / found.total() > 0.95, found


def test_geometry_is_exact(scenes: list[Scene]) -> None:
    """Points project onto their own pixels; normals are those of the points' own surface, away from its edges."""
    angles = []
    for scene in scenes:
        uvw = scene.points[scene.valid] @ scene.intrinsics.T
        rows, columns = np.nonzero(scene.valid)
        np.testing.assert_allclose(uvw[:, :2] / uvw[:, 2:], np.stack([columns, rows], 1), atol=2e-2)
        along, down = np.gradient(scene.points.astype(float), axis=(1, 0))
        flat = np.cross(along, down)
        flat /= np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)
        inner = scene.valid[1:-1, 1:-1] & scene.valid[:-2, 1:-1] & scene.valid[2:, 1:-1]
        inner &= scene.valid[1:-1, :-2] & scene.valid[1:-1, 2:]
        cosine = np.abs((flat * scene.normals).sum(-1))[1:-1, 1:-1][inner]
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
        length = np.linalg.norm(scene.normals[scene.valid], axis=1)
        np.testing.assert_allclose(length, 1, atol=1e-5)
        assert (scene.normals[scene.valid] * scene.points[scene.valid]).sum(1).max() < 1e-4
    assert np.median(np.concatenate(angles)) < 6


def test_the_pictures_can_be_looked_at(scenes: list[Scene]) -> None:
    tiles = [np.concatenate([scene.image, (255 * PALETTE[scene.mask]).astype(np.uint8)], 1) for scene in scenes]
    sheet = np.concatenate([np.concatenate(tiles[k : k + 6], 1) for k in range(0, SCENES, 6)])
    assert sheet.std() > 20
    if folder := os.environ.get("SAPIENS2_LOOK"):
        import cv2

        Path(folder).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(Path(folder) / "makehuman.png"), sheet[..., ::-1])
