"""The face, painted per pixel in (azimuth, elevation): eyes, brows, lips, teeth, tongue, beard, hair."""

from __future__ import annotations

import numpy as np

from sapiens2.data.synthetic.fabric import noise, paint
from sapiens2.data.synthetic.face_points import (
    BROW_LENGTH,
    BROW_START,
    IRIS_RADIUS,
    MOUTH_HALF,
    PUPIL_RADIUS,
    ROUND,
    brow_half,
    brow_line,
    iris_centre,
    lid,
    lip,
)
from sapiens2.data.synthetic.head import EYE, EYE_HALF, MOUTH_ELEVATION, hairline
from sapiens2.data.synthetic.person import Face, Person
from sapiens2.data.synthetic.surface import smoothstep
from sapiens2.data.synthetic.vocabulary import CLASS

Array = np.ndarray


def _mix(albedo: Array, weight: Array, colour: Array | float) -> None:
    albedo += (np.asarray(colour, np.float32) - albedo) * weight.astype(np.float32)[:, None]


def _eyes(face: Face, albedo: Array, gloss: Array, x: Array, y: Array) -> None:
    side = np.abs(x)
    q = (side - EYE[0]) / EYE_HALF[0]
    near = np.abs(q) < 1
    up, low = EYE_HALF[1] * face.eye_open, EYE_HALF[1] * 0.75 * face.eye_open
    safe = np.clip(q, -1, 1)
    over, under = y - EYE[1] - lid(safe, up), y - EYE[1] + lid(safe, low)
    # Shadowed lids first, then the eyeball, then the lash line on top.
    _mix(albedo, 0.30 * np.exp(-(((q) / 1.2) ** 4) - ((y - 0.03) / 0.10) ** 2), face.skin * 0.55)
    ball = near & (over < 0) & (under > 0)
    albedo[ball] = 0.93
    gloss[ball] = 0.5
    gaze = float(np.clip(face.gaze[0], -0.8, 0.8)) * 0.06
    centre_x = EYE[0] + np.where(x >= 0, gaze, -gaze)
    distance = np.hypot((side - centre_x) / ROUND, y - iris_centre(face)[1])
    albedo[ball & (distance < IRIS_RADIUS)] = face.iris.clip(0, 1)
    albedo[ball & (distance > IRIS_RADIUS * 0.88) & (distance < IRIS_RADIUS)] = face.iris.clip(0, 1) * 0.4
    albedo[ball & (distance < PUPIL_RADIUS)] = 0.02
    lash = near & (np.abs(over) < 0.014)
    albedo[lash] = 0.06
    _mix(albedo, 0.5 * (near & (np.abs(over - 0.05) < 0.008)), face.skin * 0.5)
    _mix(albedo, 0.4 * (near & (np.abs(under) < 0.008)), face.skin * 0.4)


def _brows(face: Face, albedo: Array, x: Array, y: Array) -> None:
    q = (np.abs(x) - BROW_START) / BROW_LENGTH
    safe = np.clip(q, 0, 1)
    inside = (q > 0) & (q < 1) & (np.abs(y - brow_line(safe)) < brow_half(safe, face.brow_weight))
    _mix(albedo, 0.85 * inside, face.brow.clip(0, 1))


def _mouth(face: Face, albedo: Array, label: Array, gloss: Array, x: Array, y: Array) -> None:
    q = x / MOUTH_HALF
    near = np.abs(q) < 1
    q = np.clip(q, -1, 1)
    inner = np.clip(x / 0.38, -1, 1)
    top, bottom = lip(q, True, True, face.mouth_open), lip(q, False, True, face.mouth_open)
    seam_top, seam_bottom = lip(inner, True, False, face.mouth_open), lip(inner, False, False, face.mouth_open)
    upper, lower = near & (y < top) & (y >= seam_top), near & (y > bottom) & (y <= seam_bottom)
    _mix(albedo, 0.9 * upper, face.lips * 0.92)
    _mix(albedo, 0.9 * lower, face.lips)
    label[upper], label[lower] = CLASS["Upper_Lip"], CLASS["Lower_Lip"]
    gloss[upper | lower] = 0.35
    hole = near & (y < seam_top) & (y > seam_bottom)
    albedo[hole] = np.array([0.20, 0.05, 0.05])
    teeth = hole & (y > seam_top - 0.042)
    albedo[teeth], label[teeth] = 0.92, CLASS["Upper_Teeth"]
    if face.mouth_open > 0.55:
        low = hole & (y < seam_bottom + 0.028)
        albedo[low], label[low] = 0.86, CLASS["Lower_Teeth"]
    if face.tongue:
        tongue = (
            hole
            & (np.hypot(x / 0.26, (y - np.min(seam_bottom) - 0.02) / 0.06) < 1)
            & ~teeth
            & (label != CLASS["Lower_Teeth"])
        )
        albedo[tongue], label[tongue] = np.array([0.72, 0.32, 0.33]), CLASS["Tongue"]
    _mix(albedo, 0.55 * (near & (np.abs(y - MOUTH_ELEVATION) < 0.008) & ~hole), face.lips * 0.35)


def paint_head(person: Person, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Albedo [N, 3], label [N] and gloss [N] of pixels at azimuth x, elevation y on the skull."""
    face, hair = person.face, person.hair
    mottled = 1 + 0.06 * (noise(x * 8, y * 8, 3) - 0.5)
    albedo = (face.skin * mottled[:, None]).astype(np.float32)
    label = np.full(len(x), CLASS["Face_Neck"], np.uint8)
    gloss = np.full(len(x), 0.12, np.float32)
    side = np.abs(x)
    blush = 0.25 * np.exp(-(((side - 0.62) / 0.3) ** 2) - ((y + 0.3) / 0.2) ** 2)
    _mix(albedo, blush, face.skin * np.array([1.05, 0.78, 0.75]))
    nostril = np.exp(-(((side - 0.11) / 0.05) ** 2) - ((y + 0.352) / 0.018) ** 2) + 0.25 * np.exp(
        -(((side - 0.24) / 0.03) ** 2) - ((y + 0.31) / 0.05) ** 2
    )
    _mix(albedo, 0.8 * nostril, face.skin * 0.3)
    if face.beard > 0:
        # The upper edge runs from under the nose, down the cheek and up again into the sideburns.
        edge = -0.43 - 0.22 * np.exp(-(((side - 0.62) / 0.28) ** 2)) + 0.45 * smoothstep(0.95, 1.4, side)
        ragged = 0.06 * (noise(x * 22, y * 22, 13) - 0.5)
        _mix(albedo, face.beard * smoothstep(-0.05, 0.05, edge + ragged - y) * (side < 1.45), hair.colour.clip(0, 1))
    _eyes(face, albedo, gloss, x, y)
    _brows(face, albedo, x, y)
    _mouth(face, albedo, label, gloss, x, y)
    over = y > hairline(x, hair) + 0.03 * (noise(x * 14, y * 3, 9) - 0.5)
    if hair.cap is not None:
        albedo[over] = paint(hair.cap, x[over] * 0.09, y[over] * 0.11)
        label[over] = CLASS["Apparel"]
        under = ~over & (y > hairline(x, hair) - 0.18) & (side > 0.9)
        over = under if not hair.bald else np.zeros_like(over)
    if not hair.bald or hair.cap is not None:
        strands = 0.75 + 0.5 * noise(x * 26, y * 5, 5)
        if hair.cap is None or over.any():
            albedo[over] = (hair.colour * strands[over, None]).clip(0, 1)
            label[over], gloss[over] = CLASS["Hair"], 0.25
    return albedo.clip(0, 1), label, gloss
