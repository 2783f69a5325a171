"""Joint angles of `sapiens2.data.synthetic.poses` as rotations of MakeHuman's bones.

A limb's axes are those of `sapiens2.data.synthetic.body`: y runs up the bone, so that a hanging limb has the axes of
the trunk. The rest pose is read from the rig, whatever way its arms point.
"""

from __future__ import annotations

import numpy as np

from sapiens2.data.makehuman.rig import Rig
from sapiens2.data.synthetic.poses import Pose
from sapiens2.data.synthetic.surface import rotation

Array = np.ndarray
SIDES = (("L", 1.0), ("R", -1.0))
_SPINE = {"spine05": 0.1, "spine04": 0.35, "spine03": 0.6, "spine02": 0.85, "spine01": 1.0}
_NECK = {"neck01": 0.3, "neck02": 0.5, "neck03": 0.75, "head": 1.0}
_FLEX = np.radians([[15, 25, 35], [70, 85, 55], [72, 88, 55], [74, 88, 55], [76, 85, 55]])  # at a fist
JAW_OPEN = np.radians(22)
"""How far the jaw turns for a mouth that is wide open."""


def _mirror(turn: Array, sign: float) -> Array:
    """A left-hand rotation [3, 3], mirrored in x for the right side."""
    flip = np.array([sign, 1.0, 1.0])
    return turn * flip[:, None] * flip[None]


def _along(start: Array, end: Array, forward: Array) -> Array:
    """Axes [3, 3] of a limb at rest: y against the bone, z as near to `forward` as may be."""
    y = (start - end) / np.linalg.norm(start - end)
    z = forward - (forward @ y) * y
    z /= np.linalg.norm(z)
    return np.stack([np.cross(y, z), y, z], 1)


def _about(axis: Array, angle: float) -> Array:
    """Rotation [3, 3] by `angle` about a direction."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def turns(rig: Rig, pose: Pose, mouth_open: float = 0.0) -> dict[str, Array]:
    """Rotations out of the rest pose by bone; mouth_open: 0 closed to 1 wide."""
    lean = rotation(0, pose.lean)
    out = {"root": lean}
    trunk = lean
    for bone, share in _SPINE.items():
        forward, left, turn = share * pose.spine
        trunk = lean @ rotation(1, turn) @ rotation(2, -left) @ rotation(0, forward)
        out[bone] = trunk
    for bone, share in _NECK.items():
        nod, left, turn = share * pose.neck
        out[bone] = trunk @ rotation(1, turn) @ rotation(2, -left) @ rotation(0, nod)
    out["jaw"] = out["head"] @ rotation(0, JAW_OPEN * mouth_open)
    for side, (word, sign) in enumerate(SIDES):
        out |= _arm(rig, pose, side, word, sign, trunk)
        out |= _leg(rig, pose, side, word, sign, lean)
    return out


def _arm(rig: Rig, pose: Pose, side: int, word: str, sign: float, trunk: Array) -> dict[str, Array]:
    flex, abduct, twist, elbow, pronate, wrist, aside = pose.arms[side]
    lift = 0.22 * max(abduct - np.radians(60), 0) + 0.12 * max(flex - np.radians(80), 0)
    shoulder = trunk @ _mirror(rotation(2, lift), sign)
    upper = trunk @ _mirror(rotation(2, abduct) @ rotation(0, -flex) @ rotation(1, -twist), sign)
    lower = upper @ rotation(0, -elbow)
    bent = rotation(2, -wrist) @ rotation(0, aside)
    hand = lower @ _mirror(rotation(1, -pronate) @ bent, sign)
    half = lower @ _mirror(rotation(1, -0.5 * pronate), sign)
    forward = np.array([0.0, 0.0, 1.0])
    joints = [rig.head(f"{bone}.{word}") for bone in ("upperarm01", "lowerarm01", "wrist")]
    elbow_rest = _along(joints[1], joints[2], forward)
    # The hand's own axes at rest: fingers against y, the thumb's side along z.
    knuckles = [rig.head(f"finger{k}-1.{word}") for k in (2, 5)]
    hand_rest = _along(joints[2], 0.5 * (knuckles[0] + knuckles[1]), knuckles[0] - knuckles[1])
    out = {f"clavicle.{word}": shoulder}
    out[f"shoulder01.{word}"] = shoulder
    out[f"upperarm01.{word}"] = upper @ _along(joints[0], joints[1], forward).T
    out[f"lowerarm01.{word}"] = lower @ elbow_rest.T
    out[f"lowerarm02.{word}"] = half @ elbow_rest.T
    out[f"wrist.{word}"] = hand @ hand_rest.T
    return out | _fingers(rig, pose, side, word, out[f"wrist.{word}"], hand_rest[:, 0] * sign)


def _fingers(rig: Rig, pose: Pose, side: int, word: str, hand: Array, back: Array) -> dict[str, Array]:
    """Fingers curl towards the palm; back: direction [3] out of the back of the hand, at rest."""
    out = {}
    for finger in range(5):
        angle = 0.0
        for joint in range(3):
            name = f"finger{finger + 1}-{joint + 1}.{word}"
            if not rig.has(name):
                continue
            along = rig.tail(name) - rig.head(name)
            angle += float(pose.curl[side, finger] * _FLEX[finger, joint])
            out[name] = hand @ _about(np.cross(back, along), angle)
    return out


def _leg(rig: Rig, pose: Pose, side: int, word: str, sign: float, lean: Array) -> dict[str, Array]:
    flex, abduct, twist, knee, ankle = pose.legs[side]
    upper = lean @ _mirror(rotation(2, abduct) @ rotation(0, -flex) @ rotation(1, -twist), sign)
    lower = upper @ rotation(0, knee)
    foot = lower @ rotation(0, -ankle)
    forward = np.array([0.0, 0.0, 1.0])
    joints = [rig.head(f"{bone}.{word}") for bone in ("upperleg01", "lowerleg01", "foot")]
    out = {f"upperleg01.{word}": upper @ _along(joints[0], joints[1], forward).T}
    out[f"lowerleg01.{word}"] = lower @ _along(joints[1], joints[2], forward).T
    out[f"foot.{word}"] = foot
    return out
