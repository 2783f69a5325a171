"""The one number beside a pointmap, in both published conventions.

Canonical points are P = s (X, Y, Z) with s = image width / f_x: what a camera whose focal length is one image width
would need to give the same picture. `release`: the network says s, and metres are points / scale. `paper`: it says
1 / s, and metres are points * scale (equation of section 5).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Convention = Literal["release", "paper"]
FLOOR = 1e-3


def canonical_scale(intrinsics: Tensor, width: int) -> Tensor:
    """s [B] of images `width` pixels wide; intrinsics: [B, 3, 3] in those pixels."""
    return width / intrinsics[:, 0, 0]


def spoken(s: Tensor, convention: Convention) -> Tensor:
    """What the network has to say where the canonical scale is s."""
    return s if convention == "release" else 1 / s


def heard(said: Tensor, convention: Convention) -> Tensor:
    """The canonical scale that the network means, the inverse of `spoken`; what it says is floored at 1e-3."""
    return spoken(said.clamp(min=FLOOR), convention)


def to_metres(points: Tensor, said: Tensor, convention: Convention) -> Tensor:
    """Metric points from canonical ones [B, 3, H, W] and the network's number [B]."""
    said = said.clamp(min=FLOOR)[:, None, None, None]
    return points / said if convention == "release" else points * said


def focal_px(said: Tensor, width: int, convention: Convention) -> Tensor:
    """The focal length f_x, in pixels of an image `width` wide, that the network's number [B] implies."""
    return width / heard(said, convention)
