"""Which part of a picture a network looks at, and the way of pixels there and back.

A region is x0, y0, x1, y1 in picture pixels, whole numbers at pixel centres. The centres of a crop's corner pixels fall
on the region's corners (UDP), so a crop of the whole picture at its own size is the picture.
"""

from __future__ import annotations

import math

import numpy as np

from sapiens2.tasks.blurring import blurred

Array = np.ndarray
Window = tuple[int, int, int, int]
"""Columns and rows x0, y0, x1, y1 of a picture, the last two excluded."""
PADDING = 1.25
SHRINK = 1.5  # pixels of the picture per pixel of the crop, along an axis, from which that axis is blurred first
BLUR = 0.4  # sigma of that blur, in pixels of the picture per unit of shrinking
MAX_SIDE = 32766  # of a picture that OpenCV can warp
REACH = 10  # longer sides of a picture that a box may reach beyond it: of a head that fills it, the feet are 7 away


def too_far(boxes: Array, shape: tuple[int, int]) -> Array:
    """Which boxes [N, 4 or more] reach beyond a picture of shape (height, width) further than `REACH`: bool [N]."""
    height, width = shape
    reach = REACH * max(height, width)
    return (boxes[:, :2] < -reach).any(1) | (boxes[:, 2] > width + reach) | (boxes[:, 3] > height + reach)


def off_picture(boxes: Array, shape: tuple[int, int]) -> Array:
    """Which boxes [N, 4 or more] lie beside a picture of shape (height, width): bool [N].

    A box that reaches past the outermost pixel centres holds one of them once it is padded; any other may hold none.
    """
    ends = np.maximum(np.array([shape[1], shape[0]]) - 1, 0.5)  # one pixel has but one centre to begin before
    return (boxes[:, 2:4] <= 0).any(1) | (boxes[:, :2] >= ends).any(1)


def said_too_far(shape: tuple[int, int]) -> str:
    """What is said of such a box."""
    return f"reaches beyond the picture of {shape[1]} x {shape[0]} pixels by more than {REACH} times its longer side"


def person_region(box: Array, aspect: float, padding: float = PADDING) -> Array:
    """The region around a person's box: padded, then grown to width / height = aspect (protocol of the release)."""
    x0, y0, x1, y1 = np.asarray(box, np.float64)[:4]
    w, h = max(x1 - x0, 1.0) * padding, max(y1 - y0, 1.0) * padding
    w, h = max(w, h * aspect), max(h, w / aspect)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def whole_region(shape: tuple[int, int], size: tuple[int, int], *, stretch: bool) -> Array:
    """The region that shows a picture of shape (height, width) whole: centred with margins, or stretched to `size`.

    Stretched, its sides are 1 or more: between the centres of one pixel is no width.
    """
    whole = np.array([0.0, 0.0, shape[1] - 1.0, shape[0] - 1.0])
    if stretch:
        grow = np.maximum(1 - whole[2:], 0) / 2
        return np.concatenate([-grow, whole[2:] + grow])
    return person_region(whole, (size[1] - 1) / (size[0] - 1), 1.0)


def window_of(region: Array, shape: tuple[int, int]) -> Window:
    """The pixels of a picture of shape (height, width) whose centres lie in a region; empty when none do."""
    x0, y0 = max(0, math.ceil(region[0])), max(0, math.ceil(region[1]))
    x1, y1 = min(shape[1], math.floor(region[2]) + 1), min(shape[0], math.floor(region[3]) + 1)
    return x0, y0, max(x0, x1), max(y0, y1)


def crop(image: Array, region: Array, size: tuple[int, int]) -> Array:
    """The region of an image, resampled to size (height, width), uint8; what lies outside the image is 0.

    Shrinking averages, each axis by what it loses, as `sapiens2.tasks.affine.resample` does for training. Only the
    pixels that matter are touched, so a small person in a large picture costs little.
    """
    import cv2

    height, width = size
    x0, y0, x1, y1 = region
    sx, sy = shrinks = ((x1 - x0) / (width - 1), (y1 - y0) / (height - 1))
    margin = 2 * np.array(shrinks) + 2  # beyond the reach of the blur
    grown = np.concatenate([region[:2] - margin, region[2:] + margin])
    left, top, right, bottom = window_of(grown, image.shape[:2])
    if left >= right or top >= bottom:
        return np.zeros((height, width, 3), np.uint8)
    part = image[top:bottom, left:right]
    if max(shrinks) > SHRINK:  # cv2 does not average when warping: lose here what shrinking would lose
        part = blurred(part, *(BLUR * s if s > SHRINK else 0.0 for s in shrinks))
    matrix = np.array([[sx, 0, x0 - left], [0, sy, y0 - top]])
    out: Array = cv2.warpAffine(part, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return out


def place(values: Array, region: Array, window: Window, size: tuple[int, int]) -> Array:
    """A crop's map [h, w] or [h, w, C <= 4] on the pixels of a window of the picture, linearly interpolated.

    size: of the crop. A map that is coarser than the crop has pixels that cover several of it, edges aligned.
    """
    import cv2

    x0, y0, x1, y1 = window
    matrix = np.zeros((2, 3))
    for axis, (start, end, first) in enumerate(((region[0], region[2], x0), (region[1], region[3], y0))):
        crop_side, side = size[1 - axis], values.shape[1 - axis]
        step = (crop_side - 1) / (end - start)  # crop pixels per picture pixel
        ratio = side / crop_side  # map pixels per crop pixel
        matrix[axis, axis] = step * ratio
        matrix[axis, 2] = ((first - start) * step + 0.5) * ratio - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    values = np.ascontiguousarray(values, np.float32)
    out: Array = cv2.warpAffine(values, matrix, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return out
