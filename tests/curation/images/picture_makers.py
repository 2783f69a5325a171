"""Small pictures with known content, encoded by Pillow, for the tests of ingest."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CORNERS = [
    (220, 30, 30),
    (30, 200, 40),
    (40, 60, 220),
    (230, 220, 40),
]  # top left, top right, bottom left, bottom right


def quadrants(width: int = 96, height: int = 64) -> Image.Image:
    """Four coloured quarters, so that any turn or flip shows."""
    picture = Image.new("RGB", (width, height))
    w, h = width // 2, height // 2
    for colour, box in zip(CORNERS, [(0, 0, w, h), (w, 0, width, h), (0, h, w, height), (w, h, width, height)]):
        picture.paste(colour, box)
    return picture


def smooth(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A picture with low and middle frequencies, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(picture: Image.Image, kind: str, value: int) -> bytes:
    """The picture stored as it is, with EXIF orientation `value`."""
    if kind == "TIFF":
        return encode(picture, kind, tiffinfo={274: value})
    exif = Image.Exif()
    exif[274] = value
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    return encode(picture, kind, exif=exif, **options)


def corners(pixels: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """The colour in the middle of each quarter, in the order of CORNERS."""
    h, w = pixels.shape[:2]
    at = [(h // 4, w // 4), (h // 4, 3 * w // 4), (3 * h // 4, w // 4), (3 * h // 4, 3 * w // 4)]
    return [tuple(int(v) for v in pixels[y, x]) for y, x in at]


def animated(kind: str) -> bytes:
    frames = [smooth(seed, 64, 64) for seed in range(3)]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
