"""Colours and patterns of clothes and walls. Training and test use different pattern families."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

Array = np.ndarray
PATTERNS = {"train": ("stripes", "checks", "dots", "grain"), "test": ("plaid", "chevron", "blotches", "bands")}


@dataclass
class Fabric:
    """A pattern of two colours."""

    pattern: str
    colours: Array  # [2, 3] sRGB
    period: float  # metres
    angle: float  # radians
    seed: int


def vivid(rng: np.random.Generator) -> Array:
    """A random colour [3], often muted, sometimes bright; sRGB."""
    hue = rng.random()
    value, saturation = rng.uniform(0.12, 0.95), rng.beta(1.3, 1.6)
    ramp = np.abs(((hue + np.array([0.0, 2 / 3, 1 / 3])) % 1.0) * 6 - 3) - 1
    return value * (1 - saturation + saturation * np.clip(ramp, 0, 1))


def draw_fabric(rng: np.random.Generator, split: str, patterned: float) -> Fabric:
    """A random fabric; `patterned` scales the chance of a pattern over a plain colour."""
    name = str(rng.choice(PATTERNS[split])) if rng.random() < 0.6 * patterned else "plain"
    first = vivid(rng)
    second = vivid(rng) if rng.random() < 0.5 else np.clip(first * rng.uniform(0.35, 1.8), 0, 0.97)
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal() * 0.1
    return Fabric(
        name, np.stack([first, second]), float(rng.uniform(0.04, 0.14)), float(angle), int(rng.integers(1 << 30))
    )


@cache
def _lattice(seed: int) -> Array:
    """64 x 64 values, row after row."""
    return np.random.default_rng(seed).random(64 * 64, dtype=np.float32)


def noise(x: Array, y: Array, seed: int) -> Array:
    """Smooth value noise in [0, 1]; its features are about one unit wide."""
    table = _lattice(seed % 16)
    x, y = x + (seed % 4093) * 0.37, y + (seed % 3967) * 0.71
    i, j = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    f, g = (x - i).astype(np.float32), (y - j).astype(np.float32)
    f, g = f * f * (3 - 2 * f), g * g * (3 - 2 * g)
    i, j, k, m = i & 63, (j & 63) << 6, (i + 1) & 63, ((j + 1) & 63) << 6
    top = table[j + i] * (1 - f) + table[j + k] * f
    return top * (1 - g) + (table[m + i] * (1 - f) + table[m + k] * f) * g


def _blend(fabric: Fabric, u: Array, v: Array) -> Array:
    name = fabric.pattern
    if name == "stripes":
        return (np.sin(2 * np.pi * u) > 0.2).astype(np.float32)
    if name == "checks":
        return ((np.sin(2 * np.pi * u) > 0) ^ (np.sin(2 * np.pi * v) > 0)).astype(np.float32)
    if name == "dots":
        return ((np.mod(u, 1) - 0.5) ** 2 + (np.mod(v, 1) - 0.5) ** 2 < 0.07).astype(np.float32)
    if name == "grain":
        return noise(u * 6, v * 6, fabric.seed)
    if name == "plaid":
        return 0.5 * (np.sin(2 * np.pi * u) > 0.4) + 0.5 * (np.sin(2 * np.pi * v) > 0.4)
    if name == "chevron":
        return (np.mod(u + np.abs(np.mod(v, 1) - 0.5), 1) > 0.5).astype(np.float32)
    if name == "blotches":
        return (noise(u * 2, v * 2, fabric.seed) > 0.52).astype(np.float32)
    if name == "bands":
        return np.mod(np.floor(u * 0.7), 3) / 2
    raise ValueError(f"unknown pattern {name!r}")


def paint(fabric: Fabric, x: Array, y: Array) -> Array:
    """Colours [N, 3] of a fabric at surface positions x, y in metres."""
    if fabric.pattern == "plain":
        return np.broadcast_to(fabric.colours[0].astype(np.float32), (len(x), 3))
    c, s = np.cos(fabric.angle) / fabric.period, np.sin(fabric.angle) / fabric.period
    t = np.asarray(_blend(fabric, x * c + y * s, y * c - x * s), np.float32)[:, None]
    first, second = fabric.colours.astype(np.float32)
    return first * (1 - t) + second * t
