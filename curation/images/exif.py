"""EXIF and TIFF directories, read with bounds checks: orientation and the few tags that tell where a picture is from.

EXIF is a TIFF file inside another file, so one reader serves both. Nothing here raises on damaged input: a field that
cannot be read is absent. Tag numbers are those of the EXIF 2.32 and TIFF 6.0 specifications.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, BITS, MAKE, MODEL, ORIENTATION, SOFTWARE, ARTIST = 256, 257, 258, 271, 272, 274, 305, 315
EXIF_POINTER, EXPOSURE_TIME, F_NUMBER, ISO, FOCAL_LENGTH, USER_COMMENT = 34665, 33434, 33437, 34855, 37386, 37510
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8}
_MAX_ENTRIES = 512
_MAX_TEXT = 4096


def read_directory(tiff: bytes, *, follow_exif: bool = False) -> dict[int, Any]:
    """Tags of the first directory of a TIFF block: integers, (numerator, denominator) pairs, or text.

    With `follow_exif` the tags of the EXIF sub-directory are merged in. An unreadable block gives an empty dictionary.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return {}
    tags = _entries(tiff, order, struct.unpack_from(order + "I", tiff, 4)[0])
    pointer = tags.get(EXIF_POINTER)
    if follow_exif and isinstance(pointer, int):
        tags = {**_entries(tiff, order, pointer), **tags}
    return tags


def orientation(tags: dict[int, Any]) -> int:
    """The EXIF orientation 1..8; 1 when it is absent or out of range."""
    value = tags.get(ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(pixels: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    """Pixels [H,W,...] as they are to be looked at, C-contiguous. `value` is an EXIF orientation 1..8."""
    if value >= 5:
        pixels = pixels.swapaxes(0, 1)
    if value in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if value in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _entries(tiff: bytes, order: str, offset: int) -> dict[int, Any]:
    if offset + 2 > len(tiff):
        return {}
    count = min(struct.unpack_from(order + "H", tiff, offset)[0], _MAX_ENTRIES)
    tags: dict[int, Any] = {}
    for start in range(offset + 2, min(offset + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, n = struct.unpack_from(order + "HHI", tiff, start)
        value = _value(tiff, order, start + 8, kind, n)
        if value is not None:
            tags.setdefault(tag, value)
    return tags


def _value(tiff: bytes, order: str, at: int, kind: int, n: int) -> Any:
    size = _SIZES.get(kind, 0) * n
    if size == 0:
        return None
    if size > 4:
        at = struct.unpack_from(order + "I", tiff, at)[0]
    if kind in (2, 7) or (kind == 1 and n > 4):
        text = tiff[at : at + min(size, _MAX_TEXT)]
        return (text.split(b"\0")[0] if kind == 2 else text.strip(b"\0")).decode("utf-8", "replace")
    if at + _SIZES[kind] > len(tiff):
        return None
    if kind in (5, 10):
        return struct.unpack_from(order + ("II" if kind == 5 else "ii"), tiff, at)
    return struct.unpack_from(order + {1: "B", 3: "H", 4: "I", 9: "i"}[kind], tiff, at)[0]
