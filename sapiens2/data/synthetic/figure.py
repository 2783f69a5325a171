"""One whole figure: sheets of body, head, clothes and props, and its 308 keypoints in space."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sapiens2.data.synthetic.body import NECK_BASE, SIDES, SIGNS, Frame, Part, Spine, spine_of, torso
from sapiens2.data.synthetic.face_points import ear_spots, face_spots
from sapiens2.data.synthetic.hands import FINGERS, feet, ground_height, hands
from sapiens2.data.synthetic.head import EYE, brim, curtain, ears, glasses, on_skull, skull
from sapiens2.data.synthetic.limbs import Limb, arms, legs
from sapiens2.data.synthetic.person import Person
from sapiens2.data.synthetic.poses import Pose
from sapiens2.data.synthetic.surface import Sheet, circle, profile, rings, sample
from sapiens2.tasks.vocabulary import keypoints

Array = np.ndarray
# How far below the skin a joint may lie and still count as seen, in metres, before scaling by stature.
_DEPTH = {"shoulder": 0.09, "elbow": 0.065, "wrist": 0.045, "hip": 0.15, "knee": 0.085, "ankle": 0.065, "neck": 0.09}
_FINGER_DEPTH, _SKIN_DEPTH = 0.018, 0.008


@dataclass
class Figure:
    """A posed person in world axes (y up, metres)."""

    sheets: list[Sheet]
    points: Array  # [308, 3]
    slack: Array  # [308] metres that the visible surface may lie in front of the point
    ground: float  # height of the floor
    crown: float  # height of the top of the head


def _skirt(person: Person, leg: Limb, spine: Spine) -> list[Sheet]:
    """A skirt from the waist down, wide enough for both thighs."""
    outfit = person.outfit
    if outfit.skirt <= 0:
        return []
    angle = circle(24)
    start = 0.13 if outfit.dress else outfit.waist
    drop = np.linspace(0, outfit.skirt + start, 14)
    pelvis = spine.frame(0.0)
    knees = leg.points["knee"] - pelvis.origin
    local = knees @ pelvis.axes
    reach = np.clip(drop - start, 0, None)[:, None] / 0.45
    girth = person.build.girth
    a = profile(drop, (0, 0.12, 0.2, 0.8), (0.148, 0.178, 0.19, 0.20)) * girth * person.build.hips
    b = profile(drop, (0, 0.12, 0.2, 0.8), (0.106, 0.128, 0.14, 0.15)) * girth
    left, right = np.maximum(local[0, 0] - 0.09, 0), np.maximum(-local[1, 0] - 0.09, 0)
    front, back = np.maximum(local[:, 2].max(), 0), np.maximum(-local[:, 2].min(), 0)
    sin, cos = np.sin(angle), np.cos(angle)
    grow = reach * (
        left * np.maximum(sin, 0)
        + right * np.maximum(-sin, 0)
        + front * np.maximum(cos, 0)
        + back * np.maximum(-cos, 0)
    )
    folds = 0.014 * np.sin(angle * 9 + outfit.bottom.seed % 7) * reach
    centre = np.stack([np.zeros_like(drop), start - drop, np.full_like(drop, 0.006)], -1)
    points = rings(
        centre,
        np.broadcast_to([1.0, 0, 0], centre.shape),
        np.broadcast_to([0, 0, 1.0], centre.shape),
        a[:, None] + grow + folds,
        b[:, None] + grow + folds,
        angle,
    )
    coords = np.stack(np.broadcast_arrays(drop[:, None], angle), -1)
    placed = pelvis.place(points.reshape(-1, 3)).reshape(1, *points.shape)
    return [Sheet(placed, coords[None], Part.SKIRT, SIGNS[:1], SIDES[:1], two_sided=True)]


def _head_frame(spine: Spine, person: Person) -> Frame:
    top = Frame(spine.centre[-1], spine.axes[-1])
    return Frame(top.origin + top.axes @ np.array([0.0, 0.06 * person.build.head, 0.0]), top.axes)


def _face_points(person: Person, head: Sheet, ear: Sheet, out: Array) -> None:
    """Face and ear keypoints; the right side is the mirror of the left in surface coordinates."""
    words = keypoints()
    face = person.face
    mirror = replace(face, gaze=face.gaze * np.array([-1.0, 1.0]))
    for spots, sign in ((face_spots(face), 1.0), (face_spots(mirror), -1.0)):
        ids = np.array([words.id(name) for name in spots])
        at = np.array(list(spots.values()))
        row, column = on_skull(head, at[:, 0] * sign, at[:, 1])
        where = sample(head.points[0], row, column)
        middle = (words.flip[ids] == ids) & (sign < 0)
        out[(ids if sign > 0 else words.flip[ids])[~middle]] = where[~middle]
    spots = ear_spots()
    ids, at = np.array([words.id(name) for name in spots]), np.array(list(spots.values()))
    radius = ear.coords[0, :, 0, 0]
    row = np.interp(at[:, 0], radius, np.arange(len(radius)))
    column = at[:, 1] / (2 * np.pi) * (ear.points.shape[2] - 1)
    for side in (0, 1):
        out[ids if side == 0 else words.flip[ids]] = sample(ear.points[side], row, column)
        name = ("left", "right")[side]
        out[words.id(f"{name}_ear")] = sample(ear.points[side], np.array([2.0]), np.array([1.0]))[0]
        eye = on_skull(head, np.array([EYE[0] * (1 - 2 * side)]), np.array([EYE[1]]))
        out[words.id(f"{name}_eye")] = sample(head.points[0], *eye)[0]
    out[words.id("nose")] = out[words.id("tip_of_nose")]


def keypoint_slack() -> Array:
    words = keypoints()
    out = np.full(len(words), _SKIN_DEPTH)
    for index, name in enumerate(words.names):
        bare = name.removeprefix("left_").removeprefix("right_")
        if bare in _DEPTH:
            out[index] = _DEPTH[bare]
        elif words.groups[index].endswith("_hand"):
            out[index] = _FINGER_DEPTH
        elif bare in ("olecranon", "cubital_fossa", "acromion"):
            out[index] = 0.025
    return out


def build_figure(person: Person, pose: Pose) -> Figure:
    """Poses a person; the size follows the stature."""
    spine = spine_of(pose)
    trunk = torso(person, spine)
    arm, leg = arms(person, pose, spine), legs(person, pose, spine)
    hand_sheets, fingers = hands(pose, arm)
    foot, foot_points = feet(person, pose, leg)
    frame = _head_frame(spine, person)
    head, ear = skull(person, frame), ears(person, frame)
    sheets = [trunk, arm.sheet, leg.sheet, *hand_sheets, foot, head, ear, *curtain(person, frame)]
    sheets += [*glasses(person, frame, head), *brim(person, frame), *_skirt(person, leg, spine)]
    words = keypoints()
    points = np.zeros((len(words), 3))
    for name, both in (arm.points | leg.points | foot_points).items():
        for side, word in enumerate(("left", "right")):
            points[words.id(f"{word}_{name}")] = both[side]
    for finger in FINGERS:
        for suffix in ("_third_joint", "2", "3", "4"):
            for side, word in enumerate(("left", "right")):
                points[words.id(f"{word}_{finger}{suffix}")] = fingers[finger + suffix][side]
    points[words.id("neck")] = spine.frame(NECK_BASE - 0.015).origin
    _face_points(person, head, ear, points)
    size = person.build.stature
    for sheet in sheets:
        sheet.points = sheet.points * size
    crown = float(head.points[..., 1].max())
    return Figure(sheets, points * size, keypoint_slack() * size, ground_height(foot), crown)


def box(low: Array, high: Array, turn: Array) -> Sheet:
    """An axis-aligned box turned by a rotation about its middle: a prop that hides part of the person."""
    corner = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    faces = []
    for axis in range(3):
        for end in (0.0, 1.0):
            face = np.insert(corner, axis, end, axis=1)
            faces.append(face.reshape(2, 2, 3))
    unit = np.stack(faces)
    points = (unit - 0.5) * (high - low) @ turn.T + 0.5 * (low + high)
    coords = np.stack([np.delete(face, axis // 2, axis=2) for axis, face in enumerate(unit)])
    return Sheet(points, coords, Part.PROP, np.ones(6), np.zeros(6, int), closed=False, two_sided=True)
