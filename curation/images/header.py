"""The header gate: what a file is and how large, from its structure alone, at microseconds a file.

The format comes from magic bytes, never from an extension. A person of 384 px on the short side implies an image of
at least that, so a size gate here drops half of a web pool with no false drop, before anything is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from curation.images import formats
from curation.images.formats import Damaged, Layout
from curation.images.reasons import Reason, Reject

MAX_PIXELS = 1024**3 // 12  # 256 MiB of RGB; Pillow warns at the same size

_PARSERS: dict[str, Callable[[bytes], Layout]] = {
    "jpeg": formats.jpeg,
    "png": formats.png,
    "gif": formats.gif,
    "webp": formats.webp,
    "tiff": formats.tiff,
    "bmp": formats.bmp,
}
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"\0\0\0\x0cjP  ", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"\xff\x0a", "jpeg xl"),
    (b"\0\0\0\x0cJXL ", "jpeg xl"),
    (b"II+\0", "bigtiff"),
    (b"MM\0+", "bigtiff"),
    (b"8BPS", "photoshop"),
    (b"\0\0\1\0", "icon"),
    (b"qoif", "qoi"),
    (b"DDS ", "dds"),
)
_ISO_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"msf1": "heic"}


@dataclass(frozen=True)
class Header:
    """What the structure of a file says. Width and height are upright: as shown after EXIF orientation."""

    format: str
    width: int
    height: int
    orientation: int
    layout: Layout


def sniff(data: bytes) -> str | None:
    """The format by magic bytes; None when the bytes are no image format known here."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _ISO_BRANDS.get(data[8:12])
    if (
        data[:2] == b"BM"
        and len(data) >= 18
        and struct.unpack_from("<I", data, 14)[0] in (12, 40, 52, 56, 64, 108, 124)
    ):
        return "bmp"
    return "svg" if b"<svg" in data[:1024].lower() else None


def read_header(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Header | Reject:
    """Format, upright size and orientation, or why the file is not taken. Decodes nothing, raises nothing."""
    if not data:
        return Reject(Reason.EMPTY, "0 bytes")
    kind = sniff(data)
    if kind is None:
        return Reject(Reason.NOT_AN_IMAGE, f"starts with {data[:8]!r}")
    if kind not in _PARSERS:
        return Reject(Reason.UNSUPPORTED, kind)
    try:
        layout = _PARSERS[kind](data)
    except Damaged as damage:
        return Reject(damage.reason, f"{kind}: {damage.detail}")
    except struct.error as error:
        return Reject(Reason.TRUNCATED, f"{kind}: ends inside a header field ({error})")
    return _gate(kind, layout, max_pixels)


def _gate(kind: str, layout: Layout, max_pixels: int) -> Header | Reject:
    width, height = layout.width, layout.height
    if width < 1 or height < 1:
        return Reject(Reason.CORRUPT, f"{kind}: size {width} x {height}")
    if width * height > min(max_pixels, MAX_PIXELS):
        return Reject(Reason.DECOMPRESSION_BOMB, f"{kind}: header claims {width} x {height} pixels")
    if layout.frames > 1:
        return Reject(Reason.ANIMATED, f"{kind}: more than one frame")
    if layout.damage is not None:
        return layout.damage
    if layout.orientation >= 5:
        width, height = height, width
    return Header(kind, width, height, layout.orientation, layout)
