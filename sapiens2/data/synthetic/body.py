"""The body below the chin as sheets: torso, arms, hands, legs, feet, and the clothes' thickness over them.

Body axes: x to the person's left, y up, z forward; metres. Limbs are built as left ones in the frame of their parent
joint and mirrored in x there for the right side.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from sapiens2.data.synthetic.fabric import noise
from sapiens2.data.synthetic.person import Person
from sapiens2.data.synthetic.poses import Pose
from sapiens2.data.synthetic.surface import Sheet, circle, profile, rings, rotation, smoothstep

Array = np.ndarray


class Part(IntEnum):
    """Kinds of surface; `coords` differ per kind."""

    TORSO = 0  # (metres along the spine, angle)
    ARM = 1  # (fraction of the arm, angle)
    HAND = 2  # (fraction, angle)
    FINGER = 3
    LEG = 4  # (fraction of the leg, angle)
    FOOT = 5  # (fraction from heel to toe, angle)
    HEAD = 6  # (azimuth, elevation)
    EAR = 7
    CURTAIN = 8  # hanging hair
    GLASSES = 9
    BRIM = 10
    SKIRT = 11  # (metres down, angle)
    PROP = 12  # (metres, metres)


NECK_BASE = 0.53  # metres along the spine
SIDES = np.array([0, 1])
SIGNS = np.array([1.0, -1.0])
_MIRROR = np.array([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])


@dataclass
class Frame:
    """A joint's place and axes, for both sides or one: origin [..., 3], axes [..., 3, 3] (columns x, y, z)."""

    origin: Array
    axes: Array

    def place(self, points: Array) -> Array:
        """Local points to body axes; the frame's stack and the points' first axis agree."""
        if self.origin.ndim == 1:
            return points @ self.axes.T + self.origin
        lead = (len(self.origin),) + (1,) * (points.ndim - 2)
        turned = np.matmul(points.reshape(len(points), -1, 3), np.swapaxes(self.axes, -1, -2)).reshape(points.shape)
        return turned + self.origin.reshape(*lead, 3)

    def inside(self, parent: Frame) -> Frame:
        """This frame, given in its parent's axes, in the axes that the parent is given in."""
        return Frame(parent.place(self.origin[:, None])[:, 0], parent.axes @ self.axes)


@dataclass
class Spine:
    """The centre line of the trunk, pelvis to skull."""

    at: Array  # [S] metres from the pelvis
    centre: Array  # [S, 3]
    axes: Array  # [S, 3, 3]

    def frame(self, at: float) -> Frame:
        """The frame at a height along the spine."""
        i = int(np.abs(self.at - at).argmin())
        return Frame(np.array([np.interp(at, self.at, self.centre[:, k]) for k in range(3)]), self.axes[i])


def mirrored(local: Array) -> Array:
    """Left-hand geometry [2, ..., 3], stacked for both sides, with the second one mirrored in x."""
    return local * _MIRROR.reshape(2, *(1,) * (local.ndim - 2), 3)


def spine_of(pose: Pose) -> Spine:
    """The bent spine of a pose; the pelvis is the origin."""
    at = np.concatenate([np.linspace(-0.14, 0.5, 24), np.linspace(0.515, 0.635, 8)])
    bend = smoothstep(0.02, 0.42, at)[:, None] * pose.spine
    neck = smoothstep(0.50, 0.63, at)[:, None] * pose.neck
    lean = rotation(0, pose.lean)
    lower = rotation(1, bend[:, 2]) @ rotation(2, -bend[:, 1]) @ rotation(0, bend[:, 0])
    upper = rotation(1, neck[:, 2]) @ rotation(2, -neck[:, 1]) @ rotation(0, neck[:, 0])
    axes = lean @ lower @ upper
    step = 0.5 * (axes[1:, :, 1] + axes[:-1, :, 1]) * np.diff(at)[:, None]
    centre = np.concatenate([np.zeros((1, 3)), np.cumsum(step, 0)])
    centre -= np.array([np.interp(0.0, at, centre[:, k]) for k in range(3)])
    return Spine(at, centre, axes)


# The trunk's cross-section: metres along the spine, half width, half depth.
_TRUNK = np.array(
    [
        (-0.14, 0.02, 0.02), (-0.12, 0.085, 0.07), (-0.07, 0.155, 0.105), (0, 0.172, 0.116),
        (0.07, 0.166, 0.112), (0.15, 0.142, 0.098), (0.22, 0.14, 0.098), (0.3, 0.155, 0.107),
        (0.37, 0.168, 0.114), (0.43, 0.175, 0.105), (0.475, 0.168, 0.092), (0.505, 0.135, 0.08),
        (0.525, 0.098, 0.07), (0.545, 0.07, 0.062), (0.57, 0.06, 0.058), (0.635, 0.058, 0.058),
    ]
)  # fmt: skip


def _flesh(person: Person, at: Array, angle: Array) -> Array:
    """What belly, chest, seat and shirt add to the trunk's radius [S, C], in metres."""
    build, outfit = person.build, person.outfit
    front = np.maximum(np.cos(angle), 0)
    grow = build.belly * np.exp(-(((at - 0.13) / 0.09) ** 2))[:, None] * front**0.7
    breast = np.exp(-(((np.abs(angle) - 0.55) / 0.38) ** 2))
    grow = grow + build.bust * np.exp(-(((at - 0.345) / 0.05) ** 2))[:, None] * breast
    seat = np.exp(-(((np.abs(angle) - 2.65) / 0.5) ** 2)) * np.exp(-(((at + 0.045) / 0.06) ** 2))[:, None]
    grow = grow + 0.022 * build.girth * seat
    if outfit.top is None:
        return grow
    covered = smoothstep(outfit.hem - 0.008, outfit.hem + 0.008, at) * (1 - smoothstep(0.44, 0.53, at))
    folds = 0.5 + noise(angle * 1.6, at[:, None] * 12, outfit.top.seed)
    return grow + outfit.top_loose * covered[:, None] * folds


def torso(person: Person, spine: Spine) -> Sheet:
    """Trunk and neck as one closed tube, with the shirt's thickness."""
    build = person.build
    at, centre, axes = spine.at, spine.centre, spine.axes
    angle = circle(26)
    a, b = profile(at, _TRUNK[:, 0], _TRUNK[:, 1]), profile(at, _TRUNK[:, 0], _TRUNK[:, 2])
    body = 1 - smoothstep(0.47, 0.56, at)
    girth = 1 + (build.girth - 1) * (0.35 + 0.65 * body)
    hips = (build.hips - 1) * (1 - smoothstep(0.05, 0.2, at))
    wide = 1 + hips + (build.shoulders - 1) * smoothstep(0.25, 0.4, at) * body
    a, b = (a * girth * wide)[:, None], (b * girth)[:, None]
    grow = _flesh(person, at, angle)
    forward = profile(at, (-0.14, 0.0, 0.15, 0.35, 0.5, 0.58, 0.635), (0.0, 0.0, 0.012, 0.008, -0.012, -0.002, 0.004))
    middle = centre + axes[:, :, 2] * forward[:, None]
    points = rings(middle, axes[:, :, 0], axes[:, :, 2], a + grow, b + grow, angle)
    coords = np.stack(np.broadcast_arrays(at[:, None], angle), -1)
    return Sheet(points[None], coords[None], Part.TORSO, np.array([-1.0]), np.array([0]))
