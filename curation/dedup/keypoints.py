"""Local features of a small grey picture: the evidence that survives crops, borders, captions and flips.

SIFT (Lowe 2004) on a picture of at most 256 px, after uniform borders are cut off. Mirroring a picture mirrors each
patch, and a mirrored SIFT descriptor is a permutation of the original one (rows of cells reversed, orientations
negated), so one extraction serves both the picture and its mirror image (MI-SIFT, Ma et al. 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LONG_SIDE_PX = 256
MAX_KEYPOINTS = 300
_BORDER_LIMIT = 0.25  # at most this share of a side is taken for a border
_BORDER_TOLERANCE = 10  # grey levels: JPEG noise in a uniform bar
_BORDER_OUTLIERS = 0.02  # share of a line's pixels that may differ from the bar

_CELLS = np.arange(128).reshape(4, 4, 8)
MIRROR = _CELLS[::-1][:, :, (-np.arange(8)) % 8].ravel()  # index of each bin in the mirrored patch


@dataclass(frozen=True)
class Keypoints:
    """`xy` float32 [n, 2], pixels of the given picture; `descriptors` float32 [n, 128], whole numbers 0..255."""

    xy: NDArray[np.float32]
    descriptors: NDArray[np.float32]


def grey(pixels: NDArray[np.uint8], long_side_px: int) -> NDArray[np.uint8]:
    """Luminance [h, w] of a picture, [H, W, 3] RGB or [H, W], shrunk to a long side of at most `long_side_px`."""
    import cv2

    luminance = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    return _shrink(np.asarray(luminance, dtype=np.uint8), long_side_px)


def _shrink(picture: NDArray[np.uint8], long_side_px: int) -> NDArray[np.uint8]:
    import cv2

    height, width = picture.shape
    scale = long_side_px / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def trim_borders(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The grey picture without the uniform bars at its sides (letterboxes, frames); uniform ones come back whole."""
    top, bottom, left, right = borders(picture)
    height, width = picture.shape
    return picture[top : height - bottom, left : width - right]


def borders(picture: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Width in px of the uniform bars at the top, bottom, left and right of a grey picture."""
    return _border(picture), _border(picture[::-1]), _border(picture.T), _border(picture.T[::-1])


def _border(lines: NDArray[np.uint8]) -> int:
    """Number of leading lines that all look like the first one, up to the limit."""
    limit = int(len(lines) * _BORDER_LIMIT)
    head = lines[:limit].astype(np.int16)
    if limit == 0:
        return 0
    outliers = np.abs(head - np.median(head[0])) > _BORDER_TOLERANCE
    uniform = outliers.mean(axis=1) <= _BORDER_OUTLIERS
    return 0 if uniform.all() else int(np.argmin(uniform))


def keypoints(picture: NDArray[np.uint8], limit: int = MAX_KEYPOINTS) -> Keypoints:
    """The `limit` strongest SIFT keypoints of a grey picture; pictures above 256 px are looked at in 256 px."""
    import cv2

    small = np.ascontiguousarray(_shrink(picture, LONG_SIDE_PX))
    if min(small.shape) < 8:
        return Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    # Half of OpenCV's default contrast threshold: blurred and faded copies must keep their keypoints.
    sift = cv2.SIFT.create(nfeatures=limit, contrastThreshold=0.02)
    points, descriptors = sift.detectAndCompute(small, None)
    if descriptors is None:
        return Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    scale = picture.shape[1] / small.shape[1]
    xy = np.array([point.pt for point in points], dtype=np.float32) * np.float32(scale)
    return Keypoints(xy, np.asarray(descriptors, dtype=np.float32))
