"""Where the 238 face keypoints lie, in the head's (azimuth, elevation) and the ear's (radius, angle) coordinates.

Only the person's left side and the midline are written down; the right side is the mirror image through the
vocabulary's flip table, so that mirrored names always agree. Midpoints of a curve are numbered as seen in the picture:
1 and 2 are the quarters, 3 to 6 the eighths.
"""

from __future__ import annotations

import numpy as np

from sapiens2.data.synthetic.head import EYE, EYE_HALF, MOUTH_ELEVATION
from sapiens2.data.synthetic.person import Face

Array = np.ndarray
Spot = tuple[float, float]
# Eighths along a curve, from the person's right (left in the picture) to the left.
_EIGHTHS = {"3": 1 / 8, "1": 2 / 8, "4": 3 / 8, "5": 5 / 8, "2": 6 / 8, "6": 7 / 8}
_CLOCK = ("3", "midpoint_1", "12", "midpoint_4", "9", "midpoint_3", "6", "midpoint_2")
IRIS_RADIUS, PUPIL_RADIUS, ROUND = 0.052, 0.023, 1.6  # ROUND: azimuth per elevation of a circle
MOUTH_HALF = 0.42


def iris_centre(face: Face) -> Spot:
    """Where the left iris sits; the right one uses the mirrored vertical gaze and the same horizontal one."""
    return EYE[0] + 0.06 * float(np.clip(face.gaze[0], -0.8, 0.8)), EYE[1] + 0.012 * float(np.clip(face.gaze[1], -1, 1))


def lid(q: Array | float, height: float) -> Array | float:
    """Offset of an eyelid from the eye's centre line at q in [-1, 1] across the eye."""
    return height * (1 - np.abs(q) ** 2.2)


def lip(q: Array | float, upper: bool, outer: bool, opened: float) -> Array | float:
    """Elevation of a lip line at q in [-1, 1] across the mouth; `opened` is the face's mouth_open."""
    gap = 0.075 * opened * (1 - np.abs(q) ** 2)
    body = 0.085 * (1 - np.abs(q) ** 2) if outer else 0.0
    bow = 0.018 * np.exp(-((np.asarray(q) / 0.12) ** 2)) if outer and upper else 0.0
    return MOUTH_ELEVATION + (gap * 0.7 + body - bow if upper else -gap * 1.3 - body * 1.05)


def _eye(face: Face) -> dict[str, Spot]:
    at, half = EYE, EYE_HALF
    up, low = half[1] * face.eye_open, half[1] * 0.75 * face.eye_open
    lines = {
        "upper_lash_line": (lambda q: lid(q, up)),
        "upper_eyelid_line": (lambda q: lid(q, up) + 0.022 * (1 - 0.4 * q * q)),
        "upper_crease_line": (lambda q: lid(q, up) + 0.050 * (1 - 0.3 * q * q)),
        "lower_lash_line": (lambda q: -lid(q, low)),
        "lower_eyelid_line": (lambda q: -lid(q, low) - 0.022 * (1 - 0.4 * q * q)),
    }
    out: dict[str, Spot] = {}
    for line, curve in lines.items():
        where = {f"midpoint_{k}": 2 * v - 1 for k, v in _EIGHTHS.items()} | {"centerpoint": 0.0}
        if "crease" not in line:
            where |= {"outer_end": 1.0}
        if "lash" in line:
            where |= {"inner_end": -1.0}
        for name, q in where.items():
            out[f"l_{name}_of_{line}"] = (at[0] + half[0] * q, at[1] + float(curve(q)))
    centre = iris_centre(face)
    for kind, radius in (("iris", IRIS_RADIUS), ("pupil", PUPIL_RADIUS)):
        out[f"l_center_of_{kind}"] = centre
        for k, name in enumerate(_CLOCK):
            turn = k * np.pi / 4
            out[f"l_border_of_{kind}_{name}"] = (
                centre[0] + radius * ROUND * np.cos(turn),
                centre[1] + radius * np.sin(turn),
            )
    return out


def brow_line(q: Array | float) -> Array | float:
    """Elevation of the middle of the eyebrow at q from 0 (inner) to 1 (outer)."""
    return 0.155 + 0.055 * np.sin(np.pi * np.asarray(q) ** 0.8) - 0.05 * np.asarray(q) ** 2


def brow_half(q: Array | float, weight: float) -> Array | float:
    """Half the thickness of the eyebrow."""
    return 0.028 * weight * (1 - 0.75 * np.asarray(q))


BROW_START, BROW_LENGTH = 0.17, 0.58


def _brow(face: Face) -> dict[str, Spot]:
    def at(q: float, side: float) -> Spot:
        return BROW_START + BROW_LENGTH * q, float(brow_line(q) + side * brow_half(q, face.brow_weight))

    out = {"end_of_l_eyebrow": at(1.0, 0.0)}
    for word, side in (("upper", 1.0), ("lower", -1.0)):
        out[f"{word}_startpoint_of_l_eyebrow"] = at(0.0, side)
        for k, q in (("2", 0.25), ("1", 0.5), ("3", 0.75)):
            out[f"{word}_midpoint_{k}_of_l_eyebrow"] = at(q, side)
    return out


def _middle() -> dict[str, Spot]:
    return {
        "center_of_glabella": (0.0, 0.16),
        "center_of_nose_root": (0.0, 0.06),
        "tip_of_nose_bridge": (0.0, -0.26),
        "midpoint_2_of_nose_bridge": (0.0, -0.02),
        "midpoint_1_of_nose_bridge": (0.0, -0.10),
        "midpoint_3_of_nose_bridge": (0.0, -0.18),
        "center_of_labiomental_groove": (0.0, -0.80),
        "tip_of_chin": (0.0, -1.02),
        "tip_of_nose": (0.0, -0.30),
        "bottom_center_of_nose": (0.0, -0.375),
        "l_outer_corner_of_nose": (0.25, -0.32),
        "inner_corner_of_l_nostril": (0.05, -0.355),
        "outer_corner_of_l_nostril": (0.16, -0.35),
        "upper_corner_of_l_nostril": (0.11, -0.335),
    }


def _mouth(face: Face) -> dict[str, Spot]:
    out: dict[str, Spot] = {
        "l_outer_corner_of_mouth": (MOUTH_HALF, MOUTH_ELEVATION),
        "l_inner_corner_of_mouth": (0.38, MOUTH_ELEVATION),
    }
    for ring, half in (("outer", MOUTH_HALF), ("inner", 0.38)):
        for word in ("upper", "lower"):
            for k, v in _EIGHTHS.items():
                q = 2 * v - 1
                name = f"midpoint_{k}_of_{word}_{ring}_lip"
                out[name] = (half * q, float(lip(q, word == "upper", ring == "outer", face.mouth_open)))
            middle = "center_of_cupid_bow" if (word, ring) == ("upper", "outer") else f"center_of_{word}_{ring}_lip"
            out[middle] = (0.0, float(lip(0.0, word == "upper", ring == "outer", face.mouth_open)))
    return out


# Forward and up, in units of the ear's half sizes, on the person's left ear.
_EAR: dict[str, Spot] = {
    "top_connecting_point_of_helix": (0.72, 0.50),
    "start_point_of_crus_of_helix": (0.30, 0.10),
    "point_1_of_inner_helix": (0.52, 0.62),
    "point_2_of_inner_helix": (0.26, 0.78),
    "point_3_of_inner_helix": (-0.06, 0.84),
    "point_4_of_inner_helix": (-0.40, 0.74),
    "point_5_of_inner_helix": (-0.64, 0.50),
    "point_6_of_inner_helix": (-0.76, 0.20),
    "point_7_of_inner_helix": (-0.74, -0.12),
    "point_8_of_inner_helix": (-0.62, -0.40),
    "top_end_of_inferior_crus": (0.34, 0.42),
    "midpoint_1_of_inferior_crus": (0.06, 0.36),
    "top_end_of_superior_crus": (0.02, 0.62),
    "start_of_antihelix": (-0.18, 0.30),
    "midpoint_1_of_antihelix": (-0.34, 0.12),
    "midpoint_2_of_antihelix": (-0.40, -0.08),
    "midpoint_3_of_antihelix": (-0.34, -0.26),
    "end_of_antihelix": (-0.20, -0.40),
    "highest_point_of_antitragus": (-0.02, -0.44),
    "bottom_point_of_tragus": (0.36, -0.34),
    "protruding_point_of_tragus": (0.32, -0.20),
    "top_point_of_tragus": (0.40, -0.06),
    "deepest_point_of_concha": (-0.04, -0.10),
    "tip_of_ear_lobe": (0.10, -0.96),
    "midpoint_between_22_15": (-0.40, -0.74),
    "bottom_connecting_point_of_ear_lobe": (0.55, -0.72),
}


def face_spots(face: Face) -> dict[str, Spot]:
    """(azimuth, elevation) of every left and middle face keypoint on the skull."""
    return _eye(face) | _brow(face) | _middle() | _mouth(face)


def ear_spots() -> dict[str, Spot]:
    """(radius 0..1, angle 0..2 pi) of every keypoint of the left ear."""
    return {
        f"l_{name}": (float(np.hypot(f, u)), float(np.arctan2(u, f) % (2 * np.pi))) for name, (f, u) in _EAR.items()
    }
