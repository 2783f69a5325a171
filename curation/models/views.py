"""Bytes to the view that every scorer shares: one decode, one resize, person boxes in its pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from curation.images.decode import decode
from curation.images.reasons import Reject
from curation.models.scorer import View, within


def view_of(
    image_id: str,
    data: bytes,
    *,
    width: int,
    height: int,
    long_side_px: int,
    boxes: Sequence[Sequence[float]] = (),
    metadata: str | None = None,
) -> View | Reject:
    """The picture at no more than `long_side_px` on its long side; `width`, `height`, `boxes` in upright original px.

    The decoder's power-of-two reduction never goes under the target size, so the rest is one area resize.
    """
    target = min(1.0, long_side_px / max(width, height, 1))
    image = decode(data, min_side=max(1, int(np.ceil(min(width, height) * target))))
    if isinstance(image, Reject):
        return image
    pixels = within(image.pixels, long_side_px)
    scale = max(pixels.shape[:2]) / max(image.width, image.height)
    scaled = tuple((b[0] * scale, b[1] * scale, b[2] * scale, b[3] * scale) for b in boxes)
    return View(image_id, pixels, scale, scaled, metadata_of(metadata))


def metadata_of(text: str | None) -> dict[str, Any]:
    """The JSON object of `images.metadata`; empty for null or anything that is no object."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
