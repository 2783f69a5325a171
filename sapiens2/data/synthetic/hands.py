"""Hands with five jointed fingers, and feet or shoes.

Hand axes (left, at the wrist): fingers along -y, thumb towards +z, palm towards -x. Foot axes (at the ankle): toes
along +z, sole towards -y.
"""

from __future__ import annotations

import numpy as np

from sapiens2.data.synthetic.body import SIDES, SIGNS, Part
from sapiens2.data.synthetic.limbs import Limb
from sapiens2.data.synthetic.person import Person
from sapiens2.data.synthetic.poses import Pose
from sapiens2.data.synthetic.surface import Sheet, circle, hinged, profile, rings, rotation, smoothstep

Array = np.ndarray
FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
# Per finger: base in hand axes, bone lengths, radius, all in metres.
_BASE = np.array(
    [[-0.008, -0.022, 0.026], [0, -0.089, 0.029], [0, -0.093, 0.009], [0, -0.089, -0.010], [0, -0.081, -0.028]]
)
_BONES = np.array(
    [[0.040, 0.031, 0.027], [0.042, 0.026, 0.022], [0.046, 0.029, 0.023], [0.042, 0.027, 0.023], [0.033, 0.021, 0.020]]
)
_RADIUS = np.array([0.0115, 0.0088, 0.009, 0.0085, 0.0075])
_SPREAD = np.radians([0.0, 7.0, 0.0, -6.0, -14.0])
_FLEX = np.radians([[18, 30, 40], [80, 95, 65], [82, 98, 65], [84, 98, 65], [86, 95, 65]])
_ROWS, _COLUMNS = 12, 8


def _palm() -> Sheet:
    """The palm from wrist to knuckles in hand axes."""
    s = np.array([0.0, 0.012, 0.028, 0.045, 0.062, 0.078, 0.09, 0.098, 0.101])
    a = profile(s, (0, 0.03, 0.07, 0.092, 0.101), (0.022, 0.02, 0.0155, 0.011, 0.002))
    b = profile(s, (0, 0.03, 0.06, 0.085, 0.097, 0.101), (0.028, 0.036, 0.041, 0.041, 0.034, 0.012))
    centre, third = hinged(s, np.zeros_like(s))
    angle = circle(12)
    points = rings(centre, np.broadcast_to([1.0, 0, 0], centre.shape), third, a[:, None], b[:, None], angle)
    coords = np.stack(np.broadcast_arrays((s / s[-1])[:, None], angle), -1)
    return Sheet(np.stack([points] * 2), np.stack([coords] * 2), Part.HAND, SIGNS, SIDES)


def _finger_axes(spread: Array) -> Array:
    """Axes [2, 5, 3, 3] of the finger bases: hinge axis first, so that fingers curl towards the palm."""
    hinge = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    fan = rotation(0, spread[:, None] * _SPREAD) @ hinge
    thumb = rotation(0, -np.radians(38)) @ rotation(1, np.radians(50)) @ rotation(2, np.radians(12)) @ hinge
    fan[:, 0] = thumb
    return fan


def hands(pose: Pose, arm: Limb) -> tuple[list[Sheet], dict[str, Array]]:
    """Palms and fingers in body axes, with finger keypoints `forefinger4` (tip) ... `forefinger_third_joint` (base)."""
    wrist = arm.end
    length = _BONES.sum(1)
    s = length[:, None] * np.concatenate([np.linspace(0, 0.955, _ROWS - 1), [1.0]])  # [5, R]
    joints = np.cumsum(np.pad(_BONES, ((0, 0), (1, 0))), 1)[:, :3]
    ramp = smoothstep(joints[..., None] - 0.007, joints[..., None] + 0.007, s[:, None])
    bend = (pose.curl[..., None, None] * _FLEX[..., None] * ramp).sum(2)  # [2, 5, R]
    centre, third = hinged(np.broadcast_to(s, bend.shape), bend)
    taper = _RADIUS[:, None] * profile(s / length[:, None], (0, 0.6, 0.9, 0.96, 1.0), (1.12, 0.95, 0.82, 0.6, 0.05))
    first = np.broadcast_to(np.array([1.0, 0, 0]), centre.shape)
    angle = circle(_COLUMNS)
    local = rings(centre, first, third, taper[..., None], taper[..., None] * 0.9, angle)  # [2, 5, R, C, 3]
    axes = _finger_axes(pose.spread)

    def to_body(points: Array) -> Array:
        turned = np.einsum("sfij,sf...j->sf...i", axes, points) + _BASE.reshape(1, 5, *(1,) * (points.ndim - 3), 3)
        return arm.place(wrist.place(turned))

    fingers = to_body(local).reshape(10, _ROWS, _COLUMNS + 1, 3)
    coords = np.stack(np.broadcast_arrays(np.linspace(0, 1, _ROWS)[:, None], angle), -1)
    sheet = Sheet(fingers, np.stack([coords] * 10), Part.FINGER, np.repeat(SIGNS, 5), np.repeat(SIDES, 5))
    palm = _palm()
    palm.points = arm.place(wrist.place(palm.points))
    named = {}
    where = np.concatenate([joints, length[:, None] * 0.985], 1)  # base, middle joints, tip
    for f, finger in enumerate(FINGERS):
        spots = np.stack(
            [[[np.interp(where[f, j], s[f], centre[k, f, :, c]) for c in range(3)] for j in range(4)] for k in (0, 1)]
        )
        body = arm.place(wrist.place(np.einsum("sij,snj->sni", axes[:, f], spots) + _BASE[f]))
        for j, suffix in enumerate(("_third_joint", "2", "3", "4")):
            named[finger + suffix] = body[:, j]
    return [palm, sheet], named


def feet(person: Person, pose: Pose, leg: Limb) -> tuple[Sheet, dict[str, Array]]:
    """Feet or shoes in body axes, with toe and heel keypoints on their surface."""
    grow = 0.006 if person.outfit.shoes is not None else 0.0
    s = np.concatenate([[-0.068], np.linspace(-0.063, 0.175, 15), [0.185, 0.189]])
    top = profile(
        s,
        (-0.068, -0.06, -0.02, 0.02, 0.06, 0.11, 0.16, 0.18, 0.189),
        (0.01, 0.05, 0.092, 0.094, 0.075, 0.055, 0.036, 0.03, 0.008),
    )
    half = profile(
        s,
        (-0.068, -0.06, -0.02, 0.05, 0.11, 0.15, 0.175, 0.189),
        (0.012, 0.028, 0.035, 0.038, 0.046, 0.046, 0.036, 0.008),
    )
    angle = circle(14)
    sole = -0.078 - grow
    flat = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** np.where(np.cos(angle) < 0, 0.45, 1.0)
    y = sole + (top + grow)[:, None] * 0.5 * (1 + flat)
    x = (half + grow)[:, None] * np.sin(angle) * 1.0 + 0.012 * smoothstep(0.02, 0.16, s)[:, None]
    points = np.stack(np.broadcast_arrays(x, y, s[:, None]), -1)
    coords = np.stack(np.broadcast_arrays(np.linspace(0, 1, len(s))[:, None], angle), -1)
    body = leg.place(leg.end.place(np.stack([points] * 2)))
    sheet = Sheet(body, np.stack([coords] * 2), Part.FOOT, SIGNS, SIDES)
    # The big toe is on the inner side (-x of the left foot).
    spots = {"big_toe": (15, -1.0), "small_toe": (13, 1.6), "heel": (1, 0.0)}
    named = {name: body[:, row, round((turn + np.pi) / (2 * np.pi) * 14)] for name, (row, turn) in spots.items()}
    return sheet, named


def ground_height(sheet: Sheet) -> float:
    """The lowest point of the feet: where the floor is, in body axes."""
    return float(sheet.points[..., 1].min())
