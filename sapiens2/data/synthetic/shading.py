"""Light on surfaces, and the camera's way from light to pixels."""

from __future__ import annotations

import numpy as np

from sapiens2.data.synthetic.backdrop import Light
from sapiens2.data.synthetic.camera import Camera
from sapiens2.data.synthetic.paint import Painted
from sapiens2.data.synthetic.raster import Hits, rasterise
from sapiens2.data.synthetic.surface import Mesh

Array = np.ndarray
SHADOW_MAP = 96
SHADOW_BIAS_M = 0.045


def to_linear(srgb: Array) -> Array:
    """sRGB to linear light, the 2.2 power approximation."""
    return np.power(srgb, 2.2)


def to_srgb(linear: Array) -> Array:
    """Linear light to sRGB, clipped to [0, 1]."""
    return np.power(np.clip(linear, 0, 1), 1 / 2.2)


def _enlarge(coarse: Array, step: int, size: tuple[int, int]) -> Array:
    """Bilinear enlargement of a grid whose samples are `step` pixels apart."""
    height, width = size
    if step == 1:
        return coarse[:height, :width].astype(np.float32)
    coarse = coarse.astype(np.float32)
    y, x = np.arange(height) / step, np.arange(width) / step
    i, j = np.minimum(y.astype(int), coarse.shape[0] - 2), np.minimum(x.astype(int), coarse.shape[1] - 2)
    f, g = (y - i).astype(np.float32)[:, None, None], (x - j).astype(np.float32)[None, :, None]
    rows = coarse[i] * (1 - f) + coarse[i + 1] * f
    return rows[:, j] * (1 - g) + rows[:, j + 1] * g


def lit(light: Light, mesh: Mesh, points: Array) -> Array:
    """How much of the key light reaches each point [N], 0 to 1: a shadow map seen from the light, smoothed."""
    forward = -light.key
    side = np.cross(forward, [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(forward, side), forward])
    local = mesh.points @ axes.T
    low, high = local.min(0), local.max(0)
    scale = (SHADOW_MAP - 4) / max(float((high - low)[:2].max()), 1e-6)
    xy = (local[:, :2] - low[:2]) * scale + 2
    # Depth is shifted to be positive; parallel light needs no perspective, and far offsets make 1/z nearly linear.
    z = local[:, 2] - low[2] + 50.0
    hits = rasterise(xy, z, mesh.faces, np.zeros_like(mesh.facing), SHADOW_MAP, SHADOW_MAP)
    depth = np.full((SHADOW_MAP, SHADOW_MAP), np.inf)
    depth.reshape(-1)[hits.pixel] = hits.depth
    at = points @ axes.T
    u, v = (at[:, 0] - low[0]) * scale + 2, (at[:, 1] - low[1]) * scale + 2
    i, j = np.clip(v.astype(int), 0, SHADOW_MAP - 2), np.clip(u.astype(int), 0, SHADOW_MAP - 2)
    f, g = np.clip(v - i, 0, 1), np.clip(u - j, 0, 1)
    limit = at[:, 2] - low[2] + 50.0 - SHADOW_BIAS_M
    return ((depth[i, j] > limit) * (1 - g) + (depth[i, j + 1] > limit) * g) * (1 - f) + (
        (depth[i + 1, j] > limit) * (1 - g) + (depth[i + 1, j + 1] > limit) * g
    ) * f


def _blur(image: Array, weight: float) -> Array:
    """A 3 x 3 tent blur, mixed in by `weight`: the lens."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = 0.25 * (padded[:-2] + padded[2:]) + 0.5 * padded[1:-1]
    soft = 0.25 * (rows[:, :-2] + rows[:, 2:]) + 0.5 * rows[:, 1:-1]
    return image + (soft - image) * weight


def shade(
    rng: np.random.Generator,
    light: Light,
    behind: Array,
    step: int,
    size: tuple[int, int],
    hits: Hits,
    normals: Array,
    points: Array,
    painted: Painted,
    mesh: Mesh,
    camera: Camera,
) -> Array:
    """The picture, uint8 [H, W, 3]: painted surfaces under the light over an enlarged background [h, w, 3]."""
    height, width = size
    direct = normals @ light.key
    visible = lit(light, mesh, points)
    up = camera.axes @ np.array([0.0, 1.0, 0.0])
    sky = (0.5 + 0.5 * (normals @ up))[:, None]
    energy = light.sky * sky + light.ground * (1 - sky)
    # A little light wraps round the edge, as it does on skin and cloth.
    energy = energy + light.key_colour * (visible * np.clip((direct + 0.15) / 1.15, 0, 1))[:, None]
    view = -points / np.linalg.norm(points, axis=1, keepdims=True)
    half = view + light.key
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = painted.gloss * visible * np.clip((normals * half).sum(1), 0, 1) ** 24
    colour = to_linear(painted.albedo) * energy + 0.35 * shine[:, None] * light.key_colour
    image = _enlarge(behind, step, size).reshape(-1, 3)
    tint = (0.6 * light.sky + 0.5 * light.key_colour).mean()
    image *= np.float32(np.clip(0.55 + 0.5 * tint, 0.4, 1.2))
    image[hits.pixel] = to_srgb(colour * light.exposure)
    image = _blur(image.reshape(height, width, 3), 0.5 if min(size) >= 192 else 0.3)
    image += rng.normal(0, light.noise + 1e-6, image.shape).astype(np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
