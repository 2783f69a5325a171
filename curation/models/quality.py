"""Photographic quality from pixel statistics alone: what a light meter and a loupe would say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.models.scorer import View, crop, short_side

Plane = NDArray[np.float32]

_MIN_REGION_PX = 32  # below this a person box is measured with the whole picture
_FLAT_BLOCK_PX = 8
_FLAT_SIGMA = 2.0  # grey levels; an 8x8 block that varies less has no texture


class QualityScorer:
    """Sharpness (of the main person, or of the picture), exposure, contrast, noise, flatness, colours, temperature."""

    name = "builtin-quality"
    columns: tuple[str, ...] = (
        "sharpness",
        "exposure",
        "contrast",
        "noise",
        "flatness",
        "colour_count",
        "colour_temperature",
    )
    gated = False
    uses_boxes = True

    def __init__(self, revision: str = "1") -> None:
        self.revision = revision
        self.key = f"{self.name}/{revision}"

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        return [self._one(view) for view in views]

    def _one(self, view: View) -> dict[str, Any]:
        grey = luminance(view.pixels)
        box = view.main_box
        region = grey
        if box is not None and short_side(box) >= _MIN_REGION_PX:
            region = luminance(crop(view.pixels, box))
        return {
            "sharpness": sharpness(region),
            "exposure": float(grey.mean()) / 255.0,
            "contrast": float(grey.std()) / 127.5,
            "noise": noise_sigma(grey),
            "flatness": flatness(grey),
            "colour_count": colour_count(view.pixels),
            "colour_temperature": colour_temperature(view.pixels),
        }


def luminance(pixels: NDArray[np.uint8]) -> Plane:
    """Rec. 601 luma of an RGB picture, float32 [H, W], 0..255."""
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), dtype=np.float32)


def sharpness(grey: Plane) -> float:
    """1 - the perceptual blur of Crete et al. (2007): how much of the local variation one more blur destroys, 0..1.

    A sharp picture loses most of its neighbour differences to a 9-tap mean, a blurred one keeps them. A picture with
    no variation at all has sharpness 0.
    """
    import cv2

    worst = 0.0
    varied = False
    for axis, ksize in ((1, (9, 1)), (0, (1, 9))):
        before = np.abs(np.diff(grey, axis=axis))
        after = np.abs(np.diff(cv2.blur(grey, ksize), axis=axis))
        total = float(before.sum())
        if total > 0:
            varied = True
            lost = float(np.maximum(before - after, 0).sum())
            worst = max(worst, 1.0 - lost / total)
    return 1.0 - worst if varied else 0.0


def noise_sigma(grey: Plane) -> float:
    """Standard deviation of the noise in grey levels: Immerkaer's operator, by a median so that edges count little.

    Immerkaer (1996), Fast noise variance estimation: the difference of two Laplacians has norm 6; the median of its
    absolute response is 0.6745 sigma for Gaussian noise.
    """
    import cv2

    if min(grey.shape) < 3:
        return 0.0
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    response = cv2.filter2D(grey, cv2.CV_32F, kernel)[1:-1, 1:-1]
    return float(np.median(np.abs(response))) / 0.6745 / 6.0


def flatness(grey: Plane) -> float:
    """Share of 8x8 blocks whose standard deviation is under two grey levels, 0..1."""
    deviation = block_deviation(grey, _FLAT_BLOCK_PX)
    return float((deviation < _FLAT_SIGMA).mean()) if deviation.size else 1.0


def block_deviation(grey: Plane, block: int) -> Plane:
    """Standard deviation within each whole block x block tile, float32 [H // block, W // block]."""
    rows, columns = grey.shape[0] // block, grey.shape[1] // block
    tiles = grey[: rows * block, : columns * block].reshape(rows, block, columns, block)
    return np.asarray(tiles.std(axis=(1, 3)), dtype=np.float32)


def colour_count(pixels: NDArray[np.uint8]) -> float:
    """Number of the 4096 colours of 4 bits per channel that hold at least one pixel in 10,000."""
    quantised = (pixels >> 4).astype(np.uint16)
    codes = (quantised[..., 0] << 8) | (quantised[..., 1] << 4) | quantised[..., 2]
    counts = np.bincount(codes.ravel(), minlength=4096)
    return float((counts >= max(1.0, codes.size / 10_000)).sum())


def colour_temperature(pixels: NDArray[np.uint8]) -> float:
    """(red - blue) / (red + blue) of the channel means: -1 cold .. 1 warm, 0 for a black picture."""
    red, blue = float(pixels[..., 0].mean()), float(pixels[..., 2].mean())
    return (red - blue) / (red + blue) if red + blue > 0 else 0.0
