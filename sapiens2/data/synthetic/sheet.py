"""A contact sheet of scenes: what the renderer makes, at a glance."""

from __future__ import annotations

import numpy as np

from sapiens2.data.synthetic.scene import render

Array = np.ndarray
# One colour a class, spread over the hue circle by the golden angle; the background stays black.
PALETTE = np.concatenate(
    [
        np.zeros((1, 3)),
        [
            (0.35 + 0.6 * (k % 3) / 2) * (0.5 + 0.5 * np.cos(2 * np.pi * (k * 0.618034 + np.array([0, 1 / 3, 2 / 3]))))
            for k in range(1, 29)
        ],
    ]
)


def label_views(seed: int, height: int, width: int, split: str) -> Array:
    """One scene beside its labels: picture, parts, normals, depth, albedo; uint8 [H, 5 W, 3]."""
    scene = render(seed, height, width, split)
    depth = scene.points[..., 2]
    near, far = depth[scene.valid].min(), depth[scene.valid].max()
    grey = np.where(scene.valid, 1 - 0.85 * (depth - near) / max(far - near, 1e-6), 0)[..., None].repeat(3, -1)
    facing = np.where(scene.valid[..., None], 0.5 - 0.5 * scene.normals * np.array([-1, 1, 1]), 0)
    views = [scene.image / 255, PALETTE[scene.mask], facing, grey, scene.albedo]
    return (np.concatenate(views, 1).clip(0, 1) * 255).astype(np.uint8)


def contact_sheet(rows: int, columns: int, height: int, width: int, split: str = "train", seed: int = 0) -> Array:
    """A grid of rendered scenes, uint8 [rows * height, columns * width, 3]; seeds count up from `seed`."""
    tiles = [render(seed + k, height, width, split).image for k in range(rows * columns)]
    return np.concatenate([np.concatenate(tiles[r * columns : (r + 1) * columns], 1) for r in range(rows)])
