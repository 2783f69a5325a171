"""Everything random about one person but the pose: build, face, hair, clothes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapiens2.data.synthetic.fabric import Fabric, draw_fabric

Array = np.ndarray


@dataclass
class Build:
    """Body proportions; 1 is average."""

    stature: float
    girth: float
    shoulders: float
    hips: float
    bust: float  # metres added at the chest
    belly: float  # metres added at the waist
    head: float


@dataclass
class Face:
    """Face shape and colours. Lengths are radians of the head's surface coordinates (azimuth, elevation)."""

    skin: Array  # [3] sRGB
    lips: Array
    iris: Array
    brow: Array
    eye_open: float
    mouth_open: float  # 0 closed to 1 wide
    tongue: bool
    gaze: Array  # [2]
    nose: float
    jaw: float
    brow_weight: float
    beard: float  # opacity of the beard, 0 none


@dataclass
class Hair:
    """Hair style: thickness over the skull, where it starts, how far it hangs."""

    colour: Array
    thickness: float  # m
    front: float  # elevation of the hairline over the forehead
    back: float  # elevation where it ends at the back
    length: float  # m hanging from ear height; 0 short
    bald: bool
    cap: Fabric | None
    rough: float


@dataclass
class Outfit:
    """Clothes as intervals of the body's surface coordinates."""

    top: Fabric | None
    sleeve: float  # fraction of the arm; 0 none
    neckline: float  # metres along the spine
    neck_dip: float
    hem: float  # metres along the spine
    top_loose: float  # m
    bottom: Fabric
    leg: float  # fraction of the leg covered by trousers
    leg_loose: float
    waist: float
    skirt: float  # length of a skirt in m; 0 none
    dress: bool
    shoes: Fabric | None
    socks: Fabric | None
    sock: float  # fraction of the leg where the sock begins
    glasses: bool
    belt: Array | None


@dataclass
class Person:
    build: Build
    face: Face
    hair: Hair
    outfit: Outfit


_SKIN = np.array([[0.36, 0.22, 0.15], [0.52, 0.34, 0.23], [0.70, 0.50, 0.37], [0.85, 0.66, 0.53], [0.94, 0.78, 0.68]])
_HAIR = np.array(
    [
        [0.06, 0.05, 0.05],
        [0.17, 0.11, 0.07],
        [0.36, 0.22, 0.11],
        [0.66, 0.50, 0.27],
        [0.52, 0.20, 0.09],
        [0.6, 0.6, 0.6],
    ]
)
_IRIS = np.array([[0.22, 0.12, 0.06], [0.35, 0.24, 0.10], [0.24, 0.38, 0.26], [0.25, 0.42, 0.60]])


def _build(rng: np.random.Generator) -> Build:
    female = rng.random() < 0.5
    return Build(
        stature=rng.normal(0.95 if female else 1.02, 0.04),
        girth=float(np.clip(rng.normal(1.0, 0.12), 0.8, 1.4)),
        shoulders=rng.normal(0.92 if female else 1.06, 0.04),
        hips=rng.normal(1.06 if female else 0.97, 0.04),
        bust=float(abs(rng.normal(0.025, 0.012))) if female else 0.0,
        belly=float(max(0.0, rng.normal(0.0, 0.03))),
        head=rng.normal(1.0, 0.03),
    )


def _face(rng: np.random.Generator, hair: Array) -> Face:
    k = rng.uniform(0, len(_SKIN) - 1)
    skin = np.array([np.interp(k, range(len(_SKIN)), _SKIN[:, c]) for c in range(3)]) * rng.normal(1, 0.03, 3)
    lips = skin * np.array([0.95, 0.68, 0.68]) if rng.random() < 0.6 else skin * 0.4 + np.array([0.42, 0.05, 0.09])
    return Face(
        skin=skin.clip(0.05, 0.97),
        lips=lips.clip(0.05, 0.95),
        iris=_IRIS[rng.integers(len(_IRIS))] * rng.uniform(0.8, 1.2),
        brow=hair * 0.75,
        eye_open=float(np.clip(rng.normal(1.0, 0.25), 0.25, 1.4)),
        mouth_open=float(rng.uniform(0.25, 1.0)) if rng.random() < 0.35 else 0.0,
        tongue=bool(rng.random() < 0.6),
        gaze=rng.normal(0, 0.3, 2),
        nose=float(rng.normal(1.0, 0.15)),
        jaw=float(rng.normal(1.0, 0.12)),
        brow_weight=float(rng.uniform(0.7, 1.4)),
        beard=float(rng.uniform(0.3, 0.9)) if rng.random() < 0.2 else 0.0,
    )


def _hair(rng: np.random.Generator, split: str) -> Hair:
    style = rng.choice(["short", "short", "bob", "long", "afro", "bald"])
    thickness = {"short": 0.012, "bob": 0.018, "long": 0.016, "afro": 0.05, "bald": 0.0}[str(style)]
    length = {"bob": rng.uniform(0.06, 0.12), "long": rng.uniform(0.18, 0.38)}.get(str(style), 0.0)
    return Hair(
        colour=_HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.8, 1.2),
        thickness=float(thickness * rng.uniform(0.7, 1.3)),
        front=float(rng.uniform(0.62, 0.9)),
        back=float(rng.uniform(-0.75, -0.45)),
        length=float(length),
        bald=style == "bald",
        cap=draw_fabric(rng, split, 0.5) if rng.random() < 0.15 else None,
        rough=float(rng.uniform(0.0, 0.004) + (0.004 if style == "afro" else 0.0)),
    )


def _outfit(rng: np.random.Generator, split: str, seated: bool) -> Outfit:
    bare = rng.random() < 0.05
    skirt = not seated and rng.random() < 0.25
    dress = skirt and not bare and rng.random() < 0.5
    leg = float(rng.choice([rng.uniform(0.90, 0.97), rng.uniform(0.28, 0.46)], p=[0.7, 0.3]))
    top = None if bare else draw_fabric(rng, split, 1.0)
    shoes = draw_fabric(rng, split, 0.3) if rng.random() < 0.85 else None
    return Outfit(
        top=top,
        sleeve=0.0
        if bare
        else float(rng.choice([0.0, rng.uniform(0.2, 0.4), rng.uniform(0.85, 0.97)], p=[0.12, 0.44, 0.44])),
        neckline=float(rng.uniform(0.465, 0.53)),
        neck_dip=float(rng.uniform(0.0, 0.07)),
        hem=float(rng.choice([rng.uniform(-0.06, 0.06), rng.uniform(0.1, 0.16)], p=[0.85, 0.15])),
        top_loose=float(rng.uniform(0.004, 0.022)),
        bottom=top if dress and top else draw_fabric(rng, split, 0.6),
        leg=0.0 if skirt else leg,
        leg_loose=float(rng.uniform(0.004, 0.03)),
        waist=float(rng.uniform(0.05, 0.13)),
        skirt=float(rng.uniform(0.32, 0.72)) if skirt else 0.0,
        dress=bool(dress),
        shoes=shoes,
        socks=draw_fabric(rng, split, 0.3) if shoes and rng.random() < 0.5 else None,
        sock=float(rng.uniform(0.7, 0.93)),
        glasses=bool(rng.random() < 0.2),
        belt=rng.uniform(0.05, 0.35, 3) if not dress and rng.random() < 0.3 else None,
    )


def draw_person(rng: np.random.Generator, split: str, seated: bool) -> Person:
    """A random person; clothes fit for sitting when `seated` (no skirt)."""
    hair = _hair(rng, split)
    return Person(_build(rng), _face(rng, hair.colour), hair, _outfit(rng, split, seated))
