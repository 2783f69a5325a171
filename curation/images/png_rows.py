"""Whether the compressed rows of a PNG are all there: Pillow shows what came and leaves the rest at zero, unsaid."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from curation.images.reasons import Reason, Reject

_INFLATE_STEP = 1 << 20
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def ends_in_zeros(picture: Any) -> bool:
    """Whether one of the last two rows holds nothing: what a decoder leaves where a PNG's data stops short."""
    rows = min(2, picture.height)
    last = np.asarray(picture.crop((0, picture.height - rows, picture.width, picture.height)))
    return bool((~last.reshape(rows, -1).any(axis=1)).any())


def missing(data: bytes) -> Reject | None:
    """A Reject when the rows of a PNG are fewer than its header says. Inflates a piece at a time, no more than is due.

    Raises zlib.error for data that does not inflate.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _CHANNELS.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    due = sum(h * (1 + -(-w * bits // 8)) for w, h in sizes if w > 0 and h > 0)
    inflate, at = zlib.decompressobj(), 8
    while due > 0 and at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        rest = data[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        while rest and due > 0:
            due -= len(inflate.decompress(rest, _INFLATE_STEP))
            rest = inflate.unconsumed_tail
        at += size + 12
    return Reject(Reason.TRUNCATED, f"png: {due} bytes of its rows are missing") if due > 0 else None
