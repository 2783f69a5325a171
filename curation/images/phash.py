"""64-bit perceptual hashes, in batches: the DCT hash of `imagehash.phash`, its mirror image, and how far to trust it.

The 32x32 luminance is transformed by a DCT-II along both axes; the 8x8 lowest frequencies above their median are ones.
Bit for bit what imagehash computes from the same 32x32 picture (its documentation cites hackerfactor.com, "Looks Like
It"), most significant bit first.

Hashes are only comparable when the 32x32 pictures were made the same way, so that way has a name: CANONICAL_PATH.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pillow

CANONICAL_PATH = "phash64/y601-pow2-min128-lanczos32/1"
MIN_SIDE_PX = 128  # short side of the reduced decode that the 32x32 picture is made from
SIDE, LOW = 32, 8
_QUANTUM = 2.0**-10  # far below a grey level, far above float noise: a flat picture has exact zeros
_ONE_GREY_LEVEL = 64.0  # standard deviation of a coefficient when every pixel moves by one grey level at random


def _basis() -> NDArray[np.float64]:
    """The first 8 rows of the unnormalised DCT-II of length 32, [8,32]: 2 cos(pi k (2n + 1) / 64)."""
    k, n = np.mgrid[0:LOW, 0:SIDE]
    return 2.0 * np.cos(np.pi * k * (2 * n + 1) / (2 * SIDE))


_BASIS = _basis()
_FLIP = np.where(np.arange(LOW) % 2, -1.0, 1.0)  # cos is odd in x for odd horizontal frequencies
_WEIGHTS = np.left_shift(np.uint64(1), np.arange(63, -1, -1, dtype=np.uint64))


def thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The 32x32 picture [32,32] of an upright luminance image [H,W]."""
    return np.asarray(pillow.fromarray(grey).resize((SIDE, SIDE), pillow.Resampling.LANCZOS))


def coefficients(grey32: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The 8x8 lowest frequencies [N,8,8] of pictures [N,32,32]: vertical frequency first."""
    return np.round(_BASIS @ grey32.astype(np.float64) @ _BASIS.T / _QUANTUM) * _QUANTUM


def hashes(grey32: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.float32]]:
    """Hash, hash of the horizontally flipped picture, and quality in 0..1, each [N], of pictures [N,32,32].

    Quality is the share of the 64 bits whose coefficient lies further from the median than one grey level of noise
    moves it: near 1 for photographs, near 0 for flat pictures, whose hashes collide by chance.
    """
    low = coefficients(grey32)
    margin = np.abs(low - _median(low))
    quality = (margin > _ONE_GREY_LEVEL).mean(axis=(1, 2), dtype=np.float64)
    return _bits(low), _bits(low * _FLIP), quality.astype(np.float32)


def _median(low: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each 8x8 block, [N,1,1]; unlike numpy's, also of no blocks at all."""
    ordered = np.sort(low.reshape(len(low), LOW * LOW), axis=1)
    return ordered[:, 31:33].mean(axis=1)[:, None, None]


def _bits(low: NDArray[np.float64]) -> NDArray[np.uint64]:
    ones = (low > _median(low)).reshape(len(low), 64)
    return (ones * _WEIGHTS).sum(axis=1, dtype=np.uint64)
