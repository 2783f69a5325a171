"""Cameras that frame a whole body, a half figure or a head.

Camera axes are OpenCV's: x right, y down, z forward, metres. Pixel (0, 0) is the centre of the first pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapiens2.data.synthetic.surface import rotation

Array = np.ndarray
FRAMINGS = ("full", "knees", "waist", "head")
_SHARE = (0.5, 0.18, 0.2, 0.12)
# Lowest and highest body height shown, as fractions between feet and crown of the standing or seated figure.
_SPAN = {"full": (0.0, 1.0), "knees": (0.25, 1.0), "waist": (0.48, 1.0), "head": (0.8, 1.0)}


@dataclass
class Camera:
    """A pinhole camera: camera = world @ axes.T + shift."""

    axes: Array  # [3, 3] world to camera
    shift: Array  # [3]
    intrinsics: Array  # [3, 3] pixels

    @property
    def position(self) -> Array:
        """The camera's place in world axes."""
        return -self.axes.T @ self.shift

    def to_camera(self, points: Array) -> Array:
        """World points [..., 3] in camera axes."""
        return points @ self.axes.T + self.shift


@dataclass
class View:
    """The random part of a camera."""

    framing: str
    yaw: float
    pitch: float
    roll: float
    focal: float  # focal length over image height
    fill: float  # share of the frame that the figure fills
    offset: Array  # [2] of the frame


def draw_view(rng: np.random.Generator) -> View:
    """A random view, mostly from the front and near eye height."""
    back = rng.random() < 0.15
    return View(
        framing=str(rng.choice(FRAMINGS, p=_SHARE)),
        yaw=float(rng.uniform(-np.pi, np.pi) if back else rng.normal(0, 0.55)),
        pitch=float(rng.normal(0.08, 0.14)),
        roll=float(rng.normal(0, 0.05)),
        focal=float(rng.uniform(1.0, 2.2)),
        fill=float(rng.uniform(0.72, 0.98)),
        offset=rng.normal(0, 0.03, 2),
    )


def aim(view: View, points: Array, crown: float, height: int, width: int) -> Camera:
    """The camera that shows the framing's share of body points [V, 3] (y up) in an image of height x width pixels.

    crown: height of the top of the head, which half figures are framed by, whatever the arms do.
    """
    low, high = points[:, 1].min(), points[:, 1].max() if view.framing == "full" else crown
    bottom, top = (low + (high - low) * k for k in _SPAN[view.framing])
    shown = points[(points[:, 1] >= bottom - 1e-6) & (points[:, 1] <= top + 1e-6)]
    axes = rotation(2, view.roll) @ rotation(0, view.pitch) @ np.diag([1.0, -1.0, -1.0]) @ rotation(1, view.yaw)
    local = shown @ axes.T
    middle = 0.5 * (local.min(0) + local.max(0))
    half = 0.5 * (local.max(0) - local.min(0))
    # A half figure may have its arms cut off at the sides: only the trunk's width has to fit.
    wide = half[0] if view.framing == "full" else min(half[0], 0.9 * half[1] * width / height)
    focal = view.focal * height
    near = focal * max(half[1] / (0.5 * height * view.fill), wide / (0.5 * width * view.fill))
    depth = near + half[2] * 0.6
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    intrinsics = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1.0]])
    shift = np.array([view.offset[0] * half[0], view.offset[1] * half[1], depth]) - middle
    return Camera(axes, shift, intrinsics)
