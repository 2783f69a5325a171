"""Albedo and part label of every visible pixel, from the surface coordinates of what it shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapiens2.data.synthetic.body import NECK_BASE, Part
from sapiens2.data.synthetic.fabric import Fabric, noise, paint
from sapiens2.data.synthetic.face_paint import paint_head
from sapiens2.data.synthetic.limbs import ARM_ELBOW, ARM_LENGTH, LEG_KNEE, LEG_LENGTH
from sapiens2.data.synthetic.person import Person
from sapiens2.data.synthetic.vocabulary import CLASS

Array = np.ndarray


@dataclass
class Painted:
    """What a set of pixels looks like and is."""

    albedo: Array  # [N, 3] sRGB in [0, 1]
    label: Array  # [N] part class
    gloss: Array  # [N] strength of the highlight


def _skin(person: Person, x: Array, y: Array) -> Array:
    mottled = 1 + 0.05 * (noise(x * 30, y * 30, 3) - 0.5)
    return (person.face.skin.astype(np.float32) * mottled[:, None]).clip(0, 1)


def _put(albedo: Array, label: Array, where: Array, fabric: Fabric, x: Array, y: Array, name: str) -> None:
    albedo[where] = paint(fabric, x[where], y[where])
    label[where] = CLASS[name]


def _torso(person: Person, a: Array, b: Array) -> Painted:
    outfit = person.outfit
    x = b * 0.15
    albedo = _skin(person, x, a)
    label = np.where(a > NECK_BASE, CLASS["Face_Neck"], CLASS["Torso"]).astype(np.uint8)
    if outfit.top is not None:
        front = np.maximum(np.cos(b), 0) ** 3
        neckline = outfit.neckline - outfit.neck_dip * front
        _put(albedo, label, (a < neckline) & (a > outfit.hem), outfit.top, x, a, "Upper_Clothing")
    name = "Upper_Clothing" if outfit.dress else "Lower_Clothing"
    covered = a < outfit.waist if outfit.top is None else a < np.minimum(outfit.hem, outfit.waist)
    _put(albedo, label, covered | (label == CLASS["Torso"]) & (a < outfit.waist), outfit.bottom, x, a, name)
    if outfit.belt is not None and outfit.hem > outfit.waist:
        belt = (np.abs(a - outfit.waist) < 0.016) & (label != CLASS["Upper_Clothing"])
        albedo[belt], label[belt] = outfit.belt, CLASS["Apparel"]
    return Painted(albedo, label, np.full(len(a), 0.08, np.float32))


def _arm(person: Person, side: Array, a: Array, b: Array) -> Painted:
    x, y = b * 0.045, a * ARM_LENGTH
    albedo = _skin(person, x, y)
    upper = np.where(side == 0, CLASS["Left_Upper_Arm"], CLASS["Right_Upper_Arm"])
    lower = np.where(side == 0, CLASS["Left_Lower_Arm"], CLASS["Right_Lower_Arm"])
    label = np.where(a < ARM_ELBOW, upper, lower).astype(np.uint8)
    if person.outfit.top is not None and person.outfit.sleeve > 0:
        _put(albedo, label, a < person.outfit.sleeve + 0.005, person.outfit.top, x, y, "Upper_Clothing")
    return Painted(albedo, label, np.full(len(a), 0.1, np.float32))


def _leg(person: Person, side: Array, a: Array, b: Array) -> Painted:
    outfit = person.outfit
    x, y = b * 0.06, a * LEG_LENGTH
    albedo = _skin(person, x, y)
    upper = np.where(side == 0, CLASS["Left_Upper_Leg"], CLASS["Right_Upper_Leg"])
    lower = np.where(side == 0, CLASS["Left_Lower_Leg"], CLASS["Right_Lower_Leg"])
    label = np.where(a < LEG_KNEE, upper, lower).astype(np.uint8)
    if outfit.socks is not None:
        sock = a > outfit.sock
        albedo[sock] = paint(outfit.socks, x[sock], y[sock])
        label[sock] = np.where(side[sock] == 0, CLASS["Left_Sock"], CLASS["Right_Sock"])
    covered = a < outfit.leg + 0.005 if outfit.leg > 0 else a < 0.06
    _put(albedo, label, covered, outfit.bottom, x, y, "Upper_Clothing" if outfit.dress else "Lower_Clothing")
    return Painted(albedo, label, np.full(len(a), 0.08, np.float32))


def _hand(person: Person, part: int, side: Array, a: Array, b: Array) -> Painted:
    albedo = _skin(person, b * 0.02, a * 0.1)
    if part == Part.FINGER:
        nail = (a > 0.86) & (np.abs(np.abs(b) - np.pi / 2) < 0.55) & (b > 0)
        albedo[nail] = (albedo[nail] * 0.75 + 0.24).clip(0, 1)
        albedo *= 1 - 0.10 * ((np.abs(a - 0.4) < 0.03) | (np.abs(a - 0.72) < 0.03))[:, None]
    label = np.where(side == 0, CLASS["Left_Hand"], CLASS["Right_Hand"]).astype(np.uint8)
    return Painted(albedo, label, np.full(len(a), 0.1, np.float32))


def _foot(person: Person, side: Array, a: Array, b: Array) -> Painted:
    shoes = person.outfit.shoes
    if shoes is None:
        label = np.where(side == 0, CLASS["Left_Foot"], CLASS["Right_Foot"]).astype(np.uint8)
        return Painted(_skin(person, b * 0.03, a * 0.2), label, np.full(len(a), 0.08, np.float32))
    albedo = np.array(paint(shoes, b * 0.04, a * 0.25))
    sole = np.abs(b) > 2.0
    albedo[sole] = 0.9 - 0.7 * float(shoes.colours[0].mean() > 0.55)
    laces = (np.abs(b) < 0.35) & (a > 0.45) & (a < 0.75) & (np.mod(a * 14, 1) > 0.5)
    albedo[laces] = 0.85
    label = np.where(side == 0, CLASS["Left_Shoe"], CLASS["Right_Shoe"]).astype(np.uint8)
    return Painted(albedo, label, np.full(len(a), 0.3, np.float32))


def _plain(person: Person, part: int, a: Array, b: Array, prop: Fabric) -> Painted:
    """Ears, hanging hair, glasses, cap peaks, skirts and props."""
    n = len(a)
    gloss = np.full(n, 0.1, np.float32)
    outfit, hair = person.outfit, person.hair
    if part == Part.EAR:
        return Painted(
            _skin(person, a, b) * np.array([1.0, 0.93, 0.92], np.float32),
            np.full(n, CLASS["Face_Neck"], np.uint8),
            gloss,
        )
    if part == Part.CURTAIN:
        strands = 0.8 + 0.4 * noise(a * 40, b * 3, 5)
        colour = (hair.colour * strands[:, None]).clip(0, 1).astype(np.float32)
        return Painted(colour, np.full(n, CLASS["Hair"], np.uint8), gloss + 0.2)
    if part == Part.GLASSES:
        return Painted(np.full((n, 3), 0.08, np.float32), np.full(n, CLASS["Eyeglass"], np.uint8), gloss + 0.4)
    if part == Part.BRIM:
        return Painted(np.array(paint(hair.cap or prop, a, b * 0.1)), np.full(n, CLASS["Apparel"], np.uint8), gloss)
    if part == Part.SKIRT:
        name = "Upper_Clothing" if outfit.dress else "Lower_Clothing"
        return Painted(np.array(paint(outfit.bottom, b * 0.2, a)), np.full(n, CLASS[name], np.uint8), gloss)
    return Painted(np.array(paint(prop, a, b)), np.zeros(n, np.uint8), gloss)


def paint_surface(person: Person, prop: Fabric, part: Array, side: Array, coords: Array) -> Painted:
    """Albedo, label and gloss of pixels [N] that show surface `part` at `coords` [N, 2]."""
    out = Painted(np.zeros((len(part), 3), np.float32), np.zeros(len(part), np.uint8), np.zeros(len(part), np.float32))
    for kind in np.unique(part):
        where = np.flatnonzero(part == kind)
        a, b, s = coords[where, 0], coords[where, 1], side[where]
        if kind == Part.TORSO:
            got = _torso(person, a, b)
        elif kind == Part.ARM:
            got = _arm(person, s, a, b)
        elif kind == Part.LEG:
            got = _leg(person, s, a, b)
        elif kind in (Part.HAND, Part.FINGER):
            got = _hand(person, kind, s, a, b)
        elif kind == Part.FOOT:
            got = _foot(person, s, a, b)
        elif kind == Part.HEAD:
            got = Painted(*paint_head(person, a, b))
        else:
            got = _plain(person, kind, a, b, prop)
        out.albedo[where], out.label[where], out.gloss[where] = got.albedo, got.label, got.gloss
    return out
