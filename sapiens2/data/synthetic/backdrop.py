"""What is behind the person: rooms, streets, studio sheets; and the light. Families are disjoint between splits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapiens2.data.synthetic.fabric import Fabric, draw_fabric, noise, paint, vivid
from sapiens2.data.synthetic.surface import smoothstep

Array = np.ndarray
KINDS = {"train": ("room", "studio", "meadow", "bokeh"), "test": ("corner", "skyline", "dusk", "collage")}


@dataclass
class Backdrop:
    """A random background."""

    kind: str
    colours: Array  # [6, 3] sRGB
    wall: Fabric
    floor: Fabric
    distance: float  # metres behind the person
    turn: float  # radians
    seed: int


@dataclass
class Light:
    """Illumination in camera axes (x right, y down, z forward)."""

    key: Array  # [3] unit, towards the light
    key_colour: Array  # [3] linear
    sky: Array  # [3] linear, from above
    ground: Array  # [3] linear, from below
    exposure: float
    noise: float  # standard deviation on [0, 1]


def draw_backdrop(rng: np.random.Generator, split: str) -> Backdrop:
    """A random background of a family of the split."""
    return Backdrop(
        kind=str(rng.choice(KINDS[split])),
        colours=np.stack([vivid(rng) for _ in range(6)]),
        wall=draw_fabric(rng, split, 0.9),
        floor=draw_fabric(rng, split, 0.9),
        distance=float(rng.uniform(0.5, 3.5)),
        turn=float(rng.normal(0, 0.5)),
        seed=int(rng.integers(1 << 30)),
    )


def draw_light(rng: np.random.Generator) -> Light:
    """A random key light from above or beside the camera, with a tinted sky and ground."""
    azimuth, height = rng.normal(0, 0.9), rng.uniform(0.15, 1.1)
    key = np.array([np.sin(azimuth) * np.cos(height), -np.sin(height), -np.cos(azimuth) * np.cos(height)])
    warm = rng.normal(0, 0.09)
    tint = np.array([1 + warm, 1.0, 1 - warm])
    strength = rng.uniform(0.45, 1.1)
    fill = rng.uniform(0.28, 0.55)
    return Light(
        key=key,
        key_colour=tint * strength,
        sky=fill * np.array([1 - 0.6 * warm, 1.0, 1 + 0.6 * warm]),
        ground=fill * rng.uniform(0.4, 0.8) * (0.7 + 0.3 * vivid(rng)),
        exposure=float(np.exp(rng.normal(0, 0.16))),
        noise=float(rng.uniform(0.0, 0.018)),
    )


def _indoor(drop: Backdrop, x: Array, y: Array, depth: Array, floor: Array) -> Array:
    """Walls and floor from plane coordinates; the corner variant has two walls."""
    out = np.array(paint(drop.wall, x * 0.3, y * 0.3)) * (0.72 + 0.1 * y.clip(0, 3)[:, None])
    if drop.kind == "corner":
        second = x > drop.colours[0, 0] * 1.5 - 0.5
        out[second] = drop.colours[1] * (0.55 + 0.1 * y[second].clip(0, 3)[:, None])
    panel = (np.abs(np.mod(x * 0.7 + 0.3, 2.2) - 0.6) < 0.45) & (np.abs(y - 1.5) < 0.35 + 0.3 * drop.colours[0, 1])
    out[panel] = drop.colours[2] * (0.6 + 0.4 * noise(x[panel] * 5, y[panel] * 5, drop.seed)[:, None])
    skirting = (y < 0.1) & ~floor
    out[skirting] = drop.colours[3] * 0.5 + 0.3
    out[floor] = np.array(paint(drop.floor, x[floor] * 0.25, depth[floor] * 0.25)) * 0.75
    return out


def _outdoor(drop: Backdrop, x: Array, y: Array, depth: Array, floor: Array, up: Array) -> Array:
    """Sky with hills or towers over open ground; `up` is the sine of the ray's elevation."""
    sky = drop.colours[0] * 0.35 + np.array([0.45, 0.52, 0.62])
    low = np.array([0.9, 0.85, 0.8]) if drop.kind != "dusk" else drop.colours[1] * 0.5 + np.array([0.45, 0.2, 0.05])
    t = smoothstep(0.0, 0.5, up)[:, None]
    out = low * (1 - t) + sky * t
    if drop.kind == "skyline":
        column = np.floor(x * 0.8)
        height = 0.05 + 0.45 * np.abs(np.sin(column * 12.9898 + drop.seed % 97))
        tower = up < height
        window = (np.mod(x * 4, 1) > 0.4) & (np.mod(up * 30, 1) > 0.4)
        out[tower] = drop.colours[2] * 0.5 + 0.2 + 0.15 * (window[tower, None] - 0.5)
    else:
        hill = up < 0.05 + 0.25 * noise(x * 0.4, np.zeros_like(x), drop.seed)
        out[hill] = drop.colours[3] * 0.35 + np.array([0.1, 0.22, 0.08]) * (
            0.6 + 0.8 * noise(x[hill] * 6, up[hill] * 60, 5)[:, None]
        )
    earth = 0.5 * drop.colours[4] + np.array([0.18, 0.24, 0.12])
    grain = 0.6 + 0.8 * noise(x * 4, depth * 4, drop.seed + 1) * noise(x * 1.1, depth * 1.1, drop.seed + 2)
    out[floor] = (earth * grain[:, None])[floor]
    return out


def _flat(drop: Backdrop, u: Array, v: Array) -> Array:
    """Studio sheet, out-of-focus lights, or a collage of rectangles; u, v in [-1, 1]."""
    out = drop.colours[0] + (drop.colours[1] - drop.colours[0]) * (0.5 + 0.35 * v + 0.3 * np.exp(-(u**2) * 2))[:, None]
    rng = np.random.default_rng(drop.seed)
    if drop.kind == "bokeh":
        for _ in range(14):
            cx, cy, r = rng.uniform(-1.2, 1.2), rng.uniform(-1.2, 1.2), rng.uniform(0.08, 0.5)
            out[np.hypot(u - cx, v - cy) < r] = drop.colours[rng.integers(6)] * rng.uniform(0.5, 1.1)
    if drop.kind == "collage":
        for _ in range(16):
            cx, cy, w, h = rng.uniform(-1.1, 1.1), rng.uniform(-1.1, 1.1), *rng.uniform(0.08, 0.5, 2)
            box = (np.abs(u - cx) < w) & (np.abs(v - cy) < h)
            out[box] = drop.colours[rng.integers(6)] * (0.5 + 0.6 * noise(u[box] * 6, v[box] * 6, drop.seed)[:, None])
    return out


def paint_backdrop(drop: Backdrop, rays: Array, position: Array, to_world: Array, ground: float, spots: Array) -> Array:
    """Background colours [h, w, 3] in sRGB.

    rays: [h, w, 3] camera rays; position: [3] camera in world axes (y up); to_world: camera to world rotation;
    ground: height of the floor; spots: [K, 2] x, z on the floor that the person shades.
    """
    h, w = rays.shape[:2]
    ray = rays.reshape(-1, 3) @ to_world.T
    if drop.kind in ("studio", "bokeh", "collage"):
        v, u = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
        return _flat(drop, u.ravel(), v.ravel()).clip(0, 1).reshape(h, w, 3)
    heading = to_world @ np.array([0.0, 0.0, 1.0])
    heading[1] = 0
    heading /= max(float(np.linalg.norm(heading)), 1e-6)
    c, s = np.cos(drop.turn), np.sin(drop.turn)
    normal = np.array([heading[0] * c + heading[2] * s, 0, heading[2] * c - heading[0] * s])
    across = np.array([normal[2], 0, -normal[0]])
    reach = -position @ normal + drop.distance
    wall = np.where(ray @ normal > 1e-3, reach / np.maximum(ray @ normal, 1e-3), 1e3)
    below = np.where(ray[:, 1] < -1e-4, (ground - position[1]) / np.minimum(ray[:, 1], -1e-4), 1e3)
    indoor = drop.kind in ("room", "corner")
    floor = below < wall if indoor else (below < 60)
    hit = position + ray * np.where(floor, below, wall.clip(0, 1e3))[:, None]
    x, depth, y = hit @ across, hit @ normal, hit[:, 1] - ground
    up = ray[:, 1] / np.linalg.norm(ray, axis=1)
    bearing = np.arctan2(ray @ across, ray @ normal) * 6
    out = (
        _indoor(drop, x, y, depth, floor)
        if indoor
        else _outdoor(drop, np.where(floor, x, bearing), y, depth, floor, up)
    )
    shade = np.ones(len(out))
    for sx, sz in spots:
        shade -= 0.45 * np.exp(-((hit[:, 0] - sx) ** 2 + (hit[:, 2] - sz) ** 2) / 0.05)
    out[floor] *= shade.clip(0.25)[floor, None]
    return out.clip(0, 1).reshape(h, w, 3)
