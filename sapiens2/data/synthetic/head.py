"""The head: a skull with brow, eye sockets, nose, lips and chin, its ears, hair, cap and glasses.

Surface coordinates are (azimuth, elevation) in radians: azimuth 0 is the front and grows to the person's left,
elevation is 0 at eye height, pi/2 at the crown. Head axes: x left, y up, z forward, origin between the ears.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from sapiens2.data.synthetic.body import SIDES, SIGNS, Frame, Part, mirrored
from sapiens2.data.synthetic.fabric import noise
from sapiens2.data.synthetic.person import Face, Hair, Person
from sapiens2.data.synthetic.surface import Sheet, circle, rings, smoothstep

Array = np.ndarray
HALF_WIDTH, HALF_HEIGHT, HALF_DEPTH = 0.077, 0.118, 0.097
EYE = (0.46, 0.0)
EYE_HALF = (0.20, 0.062)
MOUTH_ELEVATION = -0.60
_ROWS, _COLUMNS = 44, 50


@cache
def _grid() -> tuple[Array, Array]:
    """Elevations [R] from the crown down and azimuths [C + 1]; both are denser over the face."""
    t = np.linspace(-1, 1, _COLUMNS + 1)
    azimuth = np.pi * t * (0.42 + 0.58 * t * t)
    r = np.linspace(0, 1, _ROWS)
    return 1.53 - 3.06 * (r + 0.13 * np.sin(2 * np.pi * r) / (2 * np.pi) * 2), azimuth


def _bump(x: Array, y: Array, at: tuple[float, float], size: tuple[float, float]) -> Array:
    return np.exp(-(((x - at[0]) / size[0]) ** 2) - ((y - at[1]) / size[1]) ** 2)


def hairline(azimuth: Array, hair: Hair) -> Array:
    """Elevation above which the scalp is covered, by azimuth: high over the forehead, low behind the ears."""
    side = np.abs(azimuth)
    temple = hair.front * (1 - smoothstep(0.75, 1.25, side)) + 0.05 * smoothstep(0.75, 1.25, side)
    return temple * (1 - smoothstep(1.45, 1.9, side)) + hair.back * smoothstep(1.45, 1.9, side)


def _features(face: Face, x: Array, y: Array) -> Array:
    """Radial displacement [R, C] in metres of nose, brow, sockets, cheeks, lips and chin."""
    side = np.abs(x)
    out = -0.006 * _bump(side, y, (0.42, 0.0), (0.22, 0.10))
    out += 0.004 * _bump(side, y, (0.40, 0.20), (0.30, 0.09))
    out += 0.004 * _bump(side, y, (0.60, -0.28), (0.25, 0.16))
    ridge = np.exp(-((x / 0.13) ** 2)) * smoothstep(-0.36, -0.30, y) * (1 - smoothstep(-0.32, 0.12, y)) ** 1.3
    out += 0.024 * face.nose * ridge
    out += 0.008 * face.nose * _bump(side, y, (0.17, -0.31), (0.09, 0.06))
    out += 0.0035 * _bump(x, y, (0.0, MOUTH_ELEVATION + 0.055), (0.34, 0.045))
    out += 0.0042 * _bump(x, y, (0.0, MOUTH_ELEVATION - 0.06), (0.28, 0.05))
    out -= 0.003 * _bump(x, y, (0.0, -0.80), (0.3, 0.06))
    return out + 0.008 * _bump(x, y, (0.0, -1.0), (0.35, 0.16))


def skull(person: Person, frame: Frame) -> Sheet:
    """Head surface in body axes, hair volume included where hair covers it."""
    face, hair = person.face, person.hair
    elevation, azimuth = _grid()
    x, y = azimuth[None], elevation[:, None]
    jaw = smoothstep(0.25, 1.15, -y) * face.jaw
    wide = HALF_WIDTH * (1 - 0.20 * jaw * (1 - 0.35 * smoothstep(1.2, 2.2, np.abs(x))))
    deep = np.where(np.cos(x) > 0, HALF_DEPTH * (1 + 0.02 * jaw), HALF_DEPTH * (1 - 0.33 * jaw))
    deep = deep + 0.006 * np.cos(x) * smoothstep(0.2, 0.9, y)
    cos = np.cos(y)
    full = np.sign(cos) * np.abs(cos) ** (1 - 0.25 * smoothstep(0.0, 1.0, -y))
    points = np.stack(
        np.broadcast_arrays(wide * full * np.sin(x), HALF_HEIGHT * np.sin(y), deep * full * np.cos(x)), -1
    )
    outward = points / np.linalg.norm(points, axis=-1, keepdims=True)
    grow = _features(face, x, y)
    if hair.cap is not None or not hair.bald:
        thickness = 0.014 if hair.cap is not None else hair.thickness
        over = smoothstep(-0.02, 0.12 + thickness * 2, y - hairline(x, hair))
        grow = grow * (1 - over) + thickness * over
        if hair.cap is None:
            grow = grow + over * hair.rough * (noise(x * 9, y * 9, 7) - 0.5) * 2
    points = (points + outward * grow[..., None]) * person.build.head
    points[..., 2] += 0.012
    coords = np.stack(np.broadcast_arrays(x, y), -1)
    return Sheet(
        frame.place(points[None].reshape(-1, 3)).reshape(1, *points.shape),
        coords[None],
        Part.HEAD,
        np.array([1.0]),
        np.array([0]),
    )


def on_skull(sheet: Sheet, azimuth: Array, elevation: Array) -> tuple[Array, Array]:
    """Fractional (row, column) of surface coordinates on the skull's grid."""
    rows, columns = _grid()
    row = np.interp(-np.asarray(elevation, float), -rows, np.arange(_ROWS))
    return row, np.interp(azimuth, columns, np.arange(_COLUMNS + 1))


def ears(person: Person, frame: Frame) -> Sheet:
    """Both ears: shallow cups; coords are (radius 0..1, angle from the front edge over the top)."""
    radius = np.array([0.02, 0.22, 0.42, 0.6, 0.75, 0.88, 1.0])
    angle = np.linspace(0, 2 * np.pi, 19)
    r, a = radius[:, None], angle[None]
    forward = 0.018 * r * np.cos(a)
    up = 0.034 * r * np.sin(a) * np.where(np.sin(a) < 0, 1.0, 0.95)
    out = 0.002 + 0.006 * smoothstep(0.3, 0.8, r) - 0.006 * smoothstep(0.9, 1.0, r) + 0.008 * (1 - np.cos(a)) * 0.5
    x = (HALF_WIDTH - 0.001) + out - 0.05 * forward
    points = np.stack(np.broadcast_arrays(x, up - 0.012, forward - 0.004), -1) * person.build.head
    both = mirrored(np.stack([points] * 2))
    coords = np.stack(np.broadcast_arrays(r, a), -1)
    placed = frame.place(both.reshape(-1, 3)).reshape(both.shape)
    return Sheet(placed, np.stack([coords] * 2), Part.EAR, SIGNS, SIDES, two_sided=True)


def curtain(person: Person, frame: Frame) -> list[Sheet]:
    """Hanging hair: an open sheet round the back and the sides."""
    hair = person.hair
    if hair.length <= 0 or (hair.bald and hair.cap is None):
        return []
    angle = np.linspace(1.25, 2 * np.pi - 1.25, 25)
    fall = np.linspace(0, 1, 9)
    drop = fall[:, None] * hair.length
    swell = 1.10 + 0.06 * np.sin(np.pi * fall)[:, None] + 0.02 * noise(angle[None] * 5, fall[:, None] * 2, 11)
    back = 0.022 * smoothstep(0.3, 1, fall)[:, None]
    x = (HALF_WIDTH + hair.thickness * 0.7) * swell * np.sin(angle)
    z = (HALF_DEPTH + hair.thickness * 0.7) * (swell - 0.06) * np.cos(angle) - back * np.sin(
        (angle - 1.25) / 3.78 * np.pi
    ) * 0.4
    points = np.stack(np.broadcast_arrays(x, 0.035 - drop, z + 0.012), -1) * person.build.head
    coords = np.stack(np.broadcast_arrays(angle, fall[:, None]), -1)
    placed = frame.place(points.reshape(-1, 3)).reshape(1, *points.shape)
    return [Sheet(placed, coords[None], Part.CURTAIN, np.array([1.0]), np.array([0]), closed=False, two_sided=True)]


def glasses(person: Person, frame: Frame, skin: Sheet) -> list[Sheet]:
    """Two rims standing before the eyes, with temples."""
    if not person.outfit.glasses:
        return []
    turn = np.linspace(0, 2 * np.pi, 25)
    scale = person.build.head
    middle = np.stack(
        [0.0335 + 0.024 * np.cos(turn), 0.018 * np.sin(turn) - 0.003, np.full_like(turn, 0.118) - 0.006 * np.cos(turn)],
        -1,
    )
    temple = np.stack(
        [np.linspace(0.058, HALF_WIDTH + 0.006, 25), np.full(25, 0.004), np.linspace(0.111, 0.005, 25)], -1
    )
    bridge = np.stack([np.linspace(0.011, -0.0005, 25), np.full(25, 0.004), np.full(25, 0.122)], -1)
    sheets = []
    for line, first in ((middle, [0, 0, 1.0]), (temple, [1.0, 0, 0]), (bridge, [0, 0, 1.0])):
        along = np.gradient(line, axis=0)
        along /= np.linalg.norm(along, axis=-1, keepdims=True)
        third = np.cross(along, np.array(first))
        tube = rings(
            line * scale,
            np.broadcast_to(first, line.shape),
            third,
            np.full((25, 1), 0.0022),
            np.full((25, 1), 0.0022),
            circle(5),
        )
        both = mirrored(np.stack([tube] * 2))
        placed = frame.place(both.reshape(-1, 3)).reshape(both.shape)
        sheets.append(Sheet(placed, np.zeros((*both.shape[:-1], 2)), Part.GLASSES, SIGNS, SIDES, two_sided=True))
    return sheets


def brim(person: Person, frame: Frame) -> list[Sheet]:
    """The peak of a cap."""
    if person.hair.cap is None:
        return []
    angle = np.linspace(-1.05, 1.05, 13)
    out = np.linspace(0, 1, 5)[:, None]
    reach = HALF_DEPTH + 0.012 + 0.06 * out * np.cos(angle * 1.35).clip(0.0)
    x, z = (HALF_WIDTH + 0.012) * (1 + 0.25 * out) * np.sin(angle), reach * np.cos(angle) ** 0.6
    lift = HALF_HEIGHT * np.sin(person.hair.front + 0.02) - 0.02 * out
    points = (
        np.stack(np.broadcast_arrays(x, lift, z * np.cos(person.hair.front) ** 0.5 + 0.012), -1) * person.build.head
    )
    coords = np.stack(np.broadcast_arrays(angle * 0.1, out), -1)
    placed = frame.place(points.reshape(-1, 3)).reshape(1, *points.shape)
    return [Sheet(placed, coords[None], Part.BRIM, np.array([1.0]), np.array([0]), closed=False, two_sided=True)]
