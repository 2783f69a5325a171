"""Poses as joint angles: named families with wide random variation, some only for training, some only for test.

Angles are radians. Arms: flexion forward, abduction outward, inward twist, elbow, pronation, wrist flexion, wrist
sideways. Legs: hip flexion forward, abduction outward, inward twist, knee, ankle (toes up). Row 0 is left, 1 right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass
class Pose:
    """Joint angles of one person."""

    family: str
    arms: Array  # [2, 7]
    legs: Array  # [2, 5]
    spine: Array  # [3] flexion forward, to the left, turn left
    neck: Array  # [3] nod down, tilt left, turn left
    lean: float  # pelvis tipped forward
    curl: Array  # [2, 5] finger curl, thumb first, 0 straight to 1 fist
    spread: Array  # [2] finger spread, 0 to 1
    seated: bool


# family: (left arm, right arm, left leg, right leg, lean) in degrees; None for an arm means the mirror of the left.
_ARM = tuple[float, ...]
_Family = tuple[_ARM, _ARM | None, _ARM, _ARM | None, float]
_STAND = (2.0, 5.0, -4.0, 4.0, 0.0)
FAMILIES: dict[str, dict[str, _Family]] = {
    "train": {
        "stand": ((5, 10, 10, 15, 0, 0, 0), None, _STAND, None, 0),
        "walk": ((25, 8, 10, 30, 0, 0, 0), (-25, 8, 10, 15, 0, 0, 0), (-20, 3, 0, 25, 0), (28, 3, 0, 8, 5), 4),
        "arms_out": ((5, 80, 0, 15, 20, 0, 0), None, _STAND, None, 0),
        "wave": ((20, 95, -80, 80, 20, 0, 0), (5, 10, 10, 15, 0, 0, 0), _STAND, None, 0),
        "arms_up": ((20, 150, 0, 20, 0, 0, 0), None, _STAND, None, 0),
        "point": ((80, 10, 0, 10, 40, 0, 0), (5, 12, 10, 20, 0, 0, 0), _STAND, None, 0),
        "sit": ((30, 12, 15, 60, 50, 0, 0), None, (82, 12, 0, 85, 0), None, 0),
        "think": ((45, 5, 45, 125, 30, 0, 0), (30, 5, 60, 85, 50, 0, 0), _STAND, None, 4),
    },
    "test": {
        "hands_on_hips": ((-15, 42, 70, 95, 30, 20, 0), None, (2, 9, -6, 4, 0), None, 0),
        "run": ((45, 12, 15, 85, 0, 0, 0), (-45, 12, 10, 80, 0, 0, 0), (-25, 3, 0, 70, -15), (60, 3, 0, 65, 5), 12),
        "reach": ((130, 30, 0, 15, 20, 0, 0), (20, 25, 10, 40, 10, 0, 0), (12, 8, 0, 12, 5), _STAND, 6),
        "lunge": ((35, 25, 30, 60, 20, 0, 0), (-15, 20, 10, 25, 0, 0, 0), (70, 6, 0, 75, 5), (-25, 6, 0, 15, 0), 6),
        "arms_folded": ((35, 2, 70, 95, 60, 0, 0), (30, 4, 62, 100, 50, 0, 0), _STAND, None, 0),
        "perch": ((20, 25, 25, 45, 40, 0, 0), (35, 10, 20, 75, 30, 0, 0), (75, 18, 0, 70, 0), (88, 8, 0, 95, 0), 8),
    },
}
_ARM_NOISE = np.radians([16, 11, 18, 14, 25, 12, 6])
_LEG_NOISE = np.radians([7, 4, 7, 8, 6])
_ARM_RANGE = np.radians([[-60, 2, -90, 2, -60, -50, -20], [170, 165, 95, 140, 90, 60, 20]])
_LEG_RANGE = np.radians([[-35, 0, -25, 0, -25], [110, 40, 20, 130, 25]])


def draw_pose(rng: np.random.Generator, split: str) -> Pose:
    """A random pose of a family of the split."""
    families = FAMILIES[split]
    name = str(rng.choice(list(families)))
    left_arm, right_arm, left_leg, right_leg, lean = families[name]
    arms = np.radians(np.array([left_arm, right_arm or left_arm], float))
    legs = np.radians(np.array([left_leg, right_leg or left_leg], float))
    if rng.random() < 0.5:
        arms, legs = arms[::-1], legs[::-1]
    arms = np.clip(arms + rng.normal(size=(2, 7)) * _ARM_NOISE, *_ARM_RANGE)
    legs = np.clip(legs + rng.normal(size=(2, 5)) * _LEG_NOISE, *_LEG_RANGE)
    fist = rng.uniform(0.05, 0.9, (2, 1))
    return Pose(
        family=name,
        arms=arms,
        legs=legs,
        spine=rng.normal(size=3) * np.radians([7, 5, 9]),
        neck=rng.normal(size=3) * np.radians([8, 6, 18]),
        lean=float(np.radians(lean + rng.normal() * 3)),
        curl=np.clip(fist + rng.normal(size=(2, 5)) * 0.12, 0, 1),
        spread=rng.uniform(0.1, 0.9, 2),
        seated=name in {"sit", "perch"},
    )
