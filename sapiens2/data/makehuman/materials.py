"""Colours of bodies and clothes; patterns are those of `sapiens2.data.synthetic.fabric`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sapiens2.data.synthetic.fabric import Fabric, noise, paint
from sapiens2.data.synthetic.paint import Painted
from sapiens2.data.synthetic.person import Person
from sapiens2.data.synthetic.vocabulary import CLASS

Array = np.ndarray
# Codes of what is no skin and no cloth; skin and cloth carry their class.
EYEBALL, IRIS, PUPIL, MOUTH, PROP = 100, 101, 102, 103, 104
_FIXED = {EYEBALL: (0.92, 0.91, 0.90), PUPIL: (0.02, 0.02, 0.02), MOUTH: (0.25, 0.07, 0.07)}
_TEETH = (CLASS["Upper_Teeth"], CLASS["Lower_Teeth"])


def painter(person: Person, prop: Fabric) -> Callable[[Array, Array, Array], Painted]:
    """What paints pixels [N] of code `part` at rest places [N, 2] in metres; codes are classes or those above."""

    def painted(part: Array, side: Array, coords: Array) -> Painted:
        out = Painted(np.zeros((len(part), 3), np.float32), np.zeros(len(part), np.uint8), np.zeros(len(part)))
        for code in np.unique(part):
            where = np.flatnonzero(part == code)
            x, y = coords[where, 0], coords[where, 1]
            out.albedo[where] = _colour(person, prop, int(code), x, y)
            out.label[where] = 0 if code == PROP else CLASS["Face_Neck"] if code >= EYEBALL else code
            out.gloss[where] = 0.5 if code in (EYEBALL, IRIS, PUPIL) else 0.1
        return out

    return painted


def _colour(person: Person, prop: Fabric, code: int, x: Array, y: Array) -> Array:
    outfit, face, hair = person.outfit, person.face, person.hair
    if code == PROP:
        return paint(prop, x, y)
    if code in _FIXED:
        return np.broadcast_to(np.array(_FIXED[code], np.float32), (len(x), 3))
    if code == IRIS:
        return np.broadcast_to(face.iris.clip(0, 1).astype(np.float32), (len(x), 3))
    if code == CLASS["Hair"]:
        strands = 0.8 + 0.4 * noise(x * 160, y * 25, 5)
        return (hair.colour * strands[:, None]).clip(0, 1).astype(np.float32)
    if code in (CLASS["Upper_Lip"], CLASS["Lower_Lip"]):
        return np.broadcast_to(face.lips.clip(0, 1).astype(np.float32), (len(x), 3))
    if code in _TEETH:
        return np.full((len(x), 3), 0.9, np.float32)
    if code == CLASS["Tongue"]:
        return np.broadcast_to(np.array((0.72, 0.32, 0.33), np.float32), (len(x), 3))
    cloth = {
        "Upper_Clothing": outfit.top or outfit.bottom,
        "Lower_Clothing": outfit.bottom,
        "Left_Shoe": outfit.shoes,
        "Right_Shoe": outfit.shoes,
        "Left_Sock": outfit.socks or outfit.shoes,
        "Right_Sock": outfit.socks or outfit.shoes,
    }
    for name, fabric in cloth.items():
        if code == CLASS[name] and fabric is not None:
            return paint(fabric, x, y)
    mottled = 1 + 0.05 * (noise(x * 30, y * 30, 3) - 0.5)
    return (face.skin.astype(np.float32) * mottled[:, None]).clip(0, 1)
