"""Those of the 308 keypoints that a rigged mesh tells: joints by its bones, marks by the shape of its skin.

Nothing is guessed: eyelids, brows, the folds of the ear and the like have no place here and stay without a label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapiens2.data.makehuman.rig import Posed, Rig, below
from sapiens2.tasks.vocabulary import keypoints

Array = np.ndarray
SIDES = {"L": "left", "R": "right"}
FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
_HEADS = {
    "shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist",
    "hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot",
}  # fmt: skip
_ELBOW_REACH = 0.5  # decimetres about the elbow in which its point and its pit are looked for
_BENT = np.cos(np.radians(12))  # a straighter arm has no front and back of the elbow


@dataclass(frozen=True)
class Skin:
    """A body's mesh at rest and what its textures mark."""

    points: Array  # [V, 3]
    owner: Array  # [V] row of the bone with the largest share
    drawn: Array  # bool [V] vertices of the body itself
    eyes: dict[str, Array]  # L, R: vertices of the eyeballs
    lips: Array  # vertices of the lips, perhaps none
    ears: Array  # vertices of the ears, perhaps none


@dataclass(frozen=True)
class Landmarks:
    """Keypoints as points fixed to bones and as means of vertices."""

    on_bones: dict[int, tuple[int, Array]]  # keypoint -> bone row, place at rest [3]
    on_skin: dict[int, Array]  # keypoint -> vertices

    @property
    def placed(self) -> Array:
        """bool [308]: which keypoints there are."""
        out = np.zeros(len(keypoints()), bool)
        out[[*self.on_bones, *self.on_skin]] = True
        return out

    def points(self, posed: Posed, skin: Array) -> Array:
        """Keypoints [308, 3] of a pose whose vertices are `skin` [V, 3]; 0 where there is none."""
        out = np.zeros((len(keypoints()), 3))
        for keypoint, (row, place) in self.on_bones.items():
            out[keypoint] = posed.move(row, place)
        for keypoint, vertices in self.on_skin.items():
            out[keypoint] = skin[vertices].mean(0)
        return out


def find_landmarks(rig: Rig, skin: Skin) -> Landmarks:
    """The keypoints of a shaped body at rest."""
    words = keypoints()
    bones: dict[str, tuple[int, Array]] = {}
    for letter, side in SIDES.items():
        names = {f"{side}_{name}": f"{bone}.{letter}" for name, bone in _HEADS.items()}
        for finger, word in enumerate(FINGERS, 1):
            for joint, suffix in ((1, "_third_joint"), (2, "2"), (3, "3")):
                names[f"{side}_{word}{suffix}"] = f"finger{finger}-{joint}.{letter}"
        bones |= {name: (rig.index(bone), rig.head(bone)) for name, bone in names.items() if rig.has(bone)}
        ends = {f"{side}_{word}4": f"finger{finger}-3.{letter}" for finger, word in enumerate(FINGERS, 1)}
        ends |= {f"{side}_big_toe": f"toe1-2.{letter}", f"{side}_small_toe": f"toe5-3.{letter}"}
        bones |= {name: (rig.index(bone), rig.tail(bone)) for name, bone in ends.items() if rig.has(bone)}
    if rig.has("neck01"):
        bones["neck"] = (rig.index("neck01"), rig.head("neck01"))
    marks = _face(rig, skin)
    for letter, side in SIDES.items():
        marks |= _elbow(rig, skin, letter, side)
        foot = np.flatnonzero(skin.drawn & _owned(rig, skin, (f"foot.{letter}",)))
        if len(foot):
            marks[f"{side}_heel"] = foot[[skin.points[foot, 2].argmin()]]
    return Landmarks({words.id(n): b for n, b in bones.items()}, {words.id(n): v for n, v in marks.items()})


def _owned(rig: Rig, skin: Skin, starts: tuple[str, ...]) -> Array:
    rows = [row for row, bone in enumerate(rig.bones) if bone.name.startswith(starts)]
    return np.isin(skin.owner, rows)


def _face(rig: Rig, skin: Skin) -> dict[str, Array]:
    """Nose, eyes, ears and lips; left is where x is positive."""
    found: dict[str, Array] = {}
    points = skin.points
    # Whatever hangs on no limb and no trunk is of the head; its foremost point is the tip of the nose.
    head = np.flatnonzero(skin.drawn & below(rig.bones, "head")[skin.owner])
    if len(head):
        tip = head[[points[head, 2].argmax()]]
        found |= {"nose": tip, "tip_of_nose": tip}
    for letter, side in SIDES.items():
        if len(skin.eyes.get(letter, ())):
            ball = skin.eyes[letter]
            front = ball[[points[ball, 2].argmax()]]
            short = letter.lower()
            found |= dict.fromkeys((f"{side}_eye", f"{short}_center_of_iris", f"{short}_center_of_pupil"), front)
        ear = skin.ears[np.sign(points[skin.ears, 0]) == (1 if letter == "L" else -1)]
        if len(ear):
            found[f"{side}_ear"] = ear
    if len(skin.lips):
        x = points[skin.lips, 0]
        middle = skin.lips[np.abs(x) <= np.abs(x).min() + 1e-6]
        found["l_outer_corner_of_mouth"] = skin.lips[[x.argmax()]]
        found["r_outer_corner_of_mouth"] = skin.lips[[x.argmin()]]
        found["center_of_cupid_bow"] = middle[[points[middle, 1].argmax()]]
        found["center_of_lower_outer_lip"] = middle[[points[middle, 1].argmin()]]
    return found


def _elbow(rig: Rig, skin: Skin, letter: str, side: str) -> dict[str, Array]:
    """The point of the elbow and its pit, across the bend of the arm at rest."""
    bones = [f"{bone}.{letter}" for bone in ("upperarm01", "lowerarm01", "wrist")]
    if not all(rig.has(bone) for bone in bones):
        return {}
    shoulder, elbow, wrist = (rig.head(bone) for bone in bones)
    upper, lower = elbow - shoulder, wrist - elbow
    upper, lower = upper / np.linalg.norm(upper), lower / np.linalg.norm(lower)
    if upper @ lower > _BENT:
        return {}
    arm = _owned(rig, skin, tuple(f"{bone}{k}.{letter}" for bone in ("upperarm", "lowerarm") for k in ("01", "02")))
    along = (upper + lower) / np.linalg.norm(upper + lower)
    offset = skin.points - elbow
    near = np.flatnonzero(skin.drawn & arm & (np.abs(offset @ along) < _ELBOW_REACH))
    if not len(near):
        return {}
    outward = offset[near] @ (upper - lower)
    return {f"{side}_olecranon": near[[outward.argmax()]], f"{side}_cubital_fossa": near[[outward.argmin()]]}
