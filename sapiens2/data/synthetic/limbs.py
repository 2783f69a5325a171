"""Arms and legs: tubes about hinged curves, with the thickness of sleeves and trousers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapiens2.data.synthetic.body import SIDES, SIGNS, Frame, Part, Spine, mirrored
from sapiens2.data.synthetic.fabric import noise
from sapiens2.data.synthetic.person import Person
from sapiens2.data.synthetic.poses import Pose
from sapiens2.data.synthetic.surface import Sheet, circle, hinged, profile, rings, rotation, smoothstep

Array = np.ndarray
ARM_ELBOW, ARM_LENGTH = 0.54, 0.54
LEG_KNEE, LEG_LENGTH = 0.5, 0.84
ARM_COLUMNS, LEG_COLUMNS = 14, 16


@dataclass
class Limb:
    """A pair of limbs, still as left ones in the parent's axes."""

    parent: Frame  # one frame, in body axes
    sheet: Sheet  # points in body axes
    end: Frame  # wrist or ankle, both sides, in the parent's axes
    points: dict[str, Array]  # name without side -> [2, 3] in body axes

    def place(self, local: Array) -> Array:
        """Left-hand geometry [2, ..., 3] in the parent's axes, mirrored for the right side, in body axes."""
        return self.parent.place(mirrored(local).reshape(-1, 3)).reshape(local.shape)


def _rows(length: float, count: int, hems: tuple[float, ...]) -> Array:
    """Arc lengths of rings, with a close pair at every hem so that cloth ends in a step."""
    extra = [h * length + d for h in hems if 0.02 < h < 0.97 for d in (-0.001, 0.011)]
    return np.sort(np.concatenate([np.linspace(0, length, count), extra]))


def _cap(s: Array, radius: float) -> Array:
    """Rounds the first end of a tube."""
    return np.sqrt(np.clip(1 - np.clip(1 - s / radius, 0, 0.999) ** 2, 1e-3, 1))


def _cloth(t: Array, end: float, loose: float, angle: Array, seed: int) -> Array:
    """Thickness of cloth [R, C] on a limb covered from 0 to the fraction `end`; folds grow towards the hem."""
    folds = 0.4 + 1.2 * noise(angle * 1.2 + 5, t[:, None] * 9, seed)
    return loose * folds * (1 - smoothstep(end, end + 0.012, t))[:, None] * (0.6 + 0.6 * t[:, None] / max(end, 0.1))


def _at(s: Array, centre: Array, where: float) -> Array:
    """Points [2, 3] of both sides at arc length `where`."""
    return np.stack([[np.interp(where, s, side[:, k]) for k in range(3)] for side in centre])


def _tube(s: Array, bend: Array, a: Array, b: Array, part: Part, columns: int, shift: Array) -> tuple[Sheet, Array]:
    """A pair of tubes in the joint's own axes, and their centre lines [2, R, 3]; shift: [R] along the third axis."""
    angle = circle(columns)
    centre, third = hinged(np.broadcast_to(s, bend.shape), bend)
    first = np.broadcast_to(np.array([1.0, 0, 0]), centre.shape)
    points = rings(centre + third * shift[:, None], first, third, a, b, angle)
    coords = np.stack(np.broadcast_arrays((s / s[-1])[:, None], angle), -1)
    return Sheet(points, np.stack([coords, coords]), part, SIGNS, SIDES), centre


def arms(person: Person, pose: Pose, spine: Spine) -> Limb:
    """Both arms."""
    build, outfit = person.build, person.outfit
    flex, abduct, twist, elbow, pronate, wrist, side = pose.arms.T
    lift = 0.22 * np.maximum(abduct - np.radians(60), 0) + 0.12 * np.maximum(flex - np.radians(80), 0)
    reach = 0.168 * build.shoulders * (1 + 0.35 * (build.girth - 1))
    socket = Frame(
        rotation(2, lift) @ np.array([reach, 0.0, 0.0]), rotation(2, abduct) @ rotation(0, -flex) @ rotation(1, -twist)
    )
    s = _rows(ARM_LENGTH, 22, (outfit.sleeve,))
    t, joint = s / ARM_LENGTH, ARM_ELBOW * ARM_LENGTH
    bend = -elbow[:, None] * smoothstep(joint - 0.045, joint + 0.045, s)
    thick = (1 + 0.8 * (build.girth - 1)) * _cap(s, 0.055)
    knots = (0, 0.15, 0.35, 0.5, 0.56, 0.66, 0.85, 1.0)
    a = profile(t, knots, (0.058, 0.055, 0.046, 0.038, 0.039, 0.041, 0.029, 0.022)) * thick
    b = profile(t, knots, (0.058, 0.054, 0.047, 0.040, 0.041, 0.043, 0.033, 0.029)) * thick
    cloth = np.zeros((len(s), ARM_COLUMNS + 1))
    if outfit.top is not None and outfit.sleeve > 0:
        cloth = _cloth(t, outfit.sleeve, outfit.top_loose + 0.003, circle(ARM_COLUMNS), outfit.top.seed)
    sheet, centre = _tube(s, bend, a[:, None] + cloth, b[:, None] + cloth, Part.ARM, ARM_COLUMNS, np.zeros(len(s)))
    turn = rotation(1, -pronate) @ rotation(2, -wrist) @ rotation(0, side)
    limb = Limb(spine.frame(0.472), sheet, Frame(centre[:, -1], rotation(0, bend[:, -1]) @ turn).inside(socket), {})
    row = float(np.interp(joint, s, np.arange(len(s))))
    limb.points = {
        "shoulder": socket.origin,
        "elbow": socket.place(_at(s, centre, joint)[:, None])[:, 0],
        "wrist": socket.place(centre[:, -1:])[:, 0],
        "acromion": socket.place(_on(sheet, 0.045 / ARM_LENGTH * 21, np.pi / 2))[:, 0],
        "olecranon": socket.place(_on(sheet, row, np.pi))[:, 0],
        "cubital_fossa": socket.place(_on(sheet, row, 0.0))[:, 0],
    }
    return _settle(limb, socket)


def _on(sheet: Sheet, row: float, angle: float) -> Array:
    """Points [2, 1, 3] on a tube's grid at a fractional row and the column nearest to `angle`."""
    column = round((angle + np.pi) / (2 * np.pi) * (sheet.points.shape[2] - 1))
    i = min(int(row), sheet.points.shape[1] - 2)
    edge = sheet.points[:, i : i + 2, column]
    return (edge[:, 0] + (edge[:, 1] - edge[:, 0]) * (row - i))[:, None]


def _settle(limb: Limb, socket: Frame) -> Limb:
    """Moves the sheet and the points of a limb from joint and parent axes to body axes."""
    limb.sheet.points = limb.place(socket.place(limb.sheet.points))
    limb.points = {name: limb.place(p) for name, p in limb.points.items()}
    return limb


def legs(person: Person, pose: Pose, spine: Spine) -> Limb:
    """Both legs."""
    build, outfit = person.build, person.outfit
    flex, abduct, twist, knee, _ = pose.legs.T
    hip = np.array([0.088 * build.hips * (1 + 0.4 * (build.girth - 1)), -0.035, 0.0])
    socket = Frame(np.stack([hip, hip]), rotation(2, abduct) @ rotation(0, -flex) @ rotation(1, -twist))
    s = _rows(LEG_LENGTH, 24, (outfit.leg, outfit.sock if outfit.socks else 0.0))
    t, joint = s / LEG_LENGTH, LEG_KNEE * LEG_LENGTH
    bend = knee[:, None] * smoothstep(joint - 0.06, joint + 0.06, s)
    thick = (1 + 0.9 * (build.girth - 1) * (1 - 0.6 * t)) * _cap(s, 0.08)
    knots = (0, 0.08, 0.3, 0.45, 0.5, 0.56, 0.66, 0.85, 0.95, 1.0)
    a = profile(t, knots, (0.085, 0.088, 0.073, 0.056, 0.054, 0.052, 0.055, 0.039, 0.035, 0.036)) * thick
    b = profile(t, knots, (0.09, 0.094, 0.080, 0.060, 0.058, 0.055, 0.057, 0.041, 0.038, 0.04)) * thick
    shift = profile(t, (0, 0.3, 0.5, 0.66, 0.9, 1.0), (0.0, 0.008, 0.006, -0.012, -0.004, 0.0))
    cloth = np.zeros((len(s), LEG_COLUMNS + 1))
    if outfit.leg > 0:
        cloth = _cloth(t, outfit.leg, outfit.leg_loose, circle(LEG_COLUMNS), outfit.bottom.seed)
    sheet, centre = _tube(s, bend, a[:, None] + cloth, b[:, None] + cloth, Part.LEG, LEG_COLUMNS, shift)
    ankle = Frame(centre[:, -1], rotation(0, bend[:, -1]) @ rotation(0, -pose.legs[:, 4])).inside(socket)
    limb = Limb(spine.frame(0.0), sheet, ankle, {})
    limb.points = {
        "hip": socket.origin,
        "knee": socket.place(_at(s, centre, joint)[:, None])[:, 0],
        "ankle": socket.place(centre[:, -1:])[:, 0],
    }
    return _settle(limb, socket)
