"""What the first bytes of each image format say: size, frames, orientation, where the metadata lies.

One parser per format, each reading only structure, never pixels, so a header costs microseconds and a bomb nothing.
Every parser raises `Damaged` for a structure that ends early or makes no sense. Sources: ITU T.81 (JPEG), the PNG
specification (third edition), GIF89a, the WebP container specification, TIFF 6.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from curation.images import exif
from curation.images.reasons import Reason, Reject

_MAX_SCANS = 200  # a progressive JPEG of thousands of scans costs minutes at any size; real ones have about ten
_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}


class Damaged(Exception):
    """The structure of a file does not hold; carries the reject reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass
class Layout:
    """What a parser found: stored size in pixels (before orientation), frames, EXIF and other metadata blocks."""

    width: int
    height: int
    frames: int = 1
    orientation: int = 1
    components: int = 3
    exif: bytes = b""
    blocks: list[tuple[str, bytes]] = field(default_factory=list)  # (kind, payload): xmp, text chunks, c2pa
    damage: Reject | None = None  # found after the size was known; a bomb is called a bomb first


def jpeg(data: bytes) -> Layout:
    """Walks the marker segments up to the first scan."""
    layout: Layout | None = None
    exif_block, blocks, progressive = b"", [], False
    for marker, payload in _jpeg_segments(data):
        if marker in _SOF:
            layout, progressive = _jpeg_frame(marker, payload), marker in (0xC2, 0xCA)
        elif marker == 0xE1 and payload.startswith(b"Exif\0\0") and not exif_block:
            exif_block = payload[6:]
        elif marker == 0xE1 and payload.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            blocks.append(("xmp", payload[29:]))
        elif marker == 0xEB and b"c2pa" in payload[:256]:
            blocks.append(("c2pa", b""))
    if layout is None:
        raise Damaged(Reason.CORRUPT, "no frame header before the first scan")
    if progressive and data.count(b"\xff\xda") > _MAX_SCANS:
        raise Damaged(Reason.DECOMPRESSION_BOMB, f"more than {_MAX_SCANS} scans")
    layout.exif, layout.blocks = exif_block, blocks
    layout.orientation = exif.orientation(exif.read_directory(exif_block))
    return layout


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            raise Damaged(Reason.TRUNCATED, "ends inside the header")
        marker = data[at + 1]
        if marker in (0x00, 0xFF) or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            raise Damaged(Reason.CORRUPT, "ends without a scan")
        size = struct.unpack_from(">H", data, at + 2)[0]
        if marker == 0xDA:
            return
        if at + 2 + size > len(data):
            raise Damaged(Reason.TRUNCATED, "ends inside the header")
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + max(size, 2)


def _jpeg_frame(marker: int, payload: bytes) -> Layout:
    if len(payload) < 6:
        raise Damaged(Reason.CORRUPT, "frame header too short")
    precision, height, width, components = struct.unpack_from(">BHHB", payload)
    if precision != 8 or marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):
        raise Damaged(Reason.UNSUPPORTED, f"{precision}-bit JPEG with frame type {marker:#x}")
    return Layout(width, height, components=components)


def png(data: bytes) -> Layout:
    """Walks all chunks: EXIF may follow the pixels, and a file without its end chunk is truncated."""
    layout: Layout | None = None
    at, ended = 8, False
    while at + 12 <= len(data) and not ended:
        size, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if layout is None and (kind != b"IHDR" or size < 13):
            raise Damaged(Reason.CORRUPT, "does not start with a header chunk")
        if layout is None:
            layout = Layout(*struct.unpack_from(">II", data, body))
        _png_chunk(layout, kind, data[body : body + size] if kind not in (b"IDAT", b"IHDR") else b"")
        ended, at = kind == b"IEND", body + size + 4
    if layout is None:
        raise Damaged(Reason.TRUNCATED, "ends inside the header")
    if not ended:
        layout.damage = Reject(Reason.TRUNCATED, "png: ends before the end chunk")
    layout.orientation = exif.orientation(exif.read_directory(layout.exif))
    return layout


def _png_chunk(layout: Layout, kind: bytes, payload: bytes) -> None:
    if kind == b"acTL" and len(payload) >= 8:
        layout.frames = struct.unpack_from(">I", payload)[0]
    elif kind == b"eXIf":
        layout.exif = payload.removeprefix(b"Exif\0\0")
    elif kind in (b"tEXt", b"iTXt", b"zTXt"):
        layout.blocks.append((kind.decode(), payload))
    elif kind == b"caBX":
        layout.blocks.append(("c2pa", b""))


def gif(data: bytes) -> Layout:
    """Walks the blocks; the canvas grows to the frames' extent, as decoders make it. Stops at the second frame."""
    if len(data) < 13:
        raise Damaged(Reason.TRUNCATED, "ends inside the header")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    layout = Layout(width, height, frames=0)
    at = 13 + _colour_table(flags)
    while at < len(data) and layout.frames < 2 and data[at] != 0x3B:
        if data[at] == 0x2C and at + 10 <= len(data):
            x, y, w, h, flags = struct.unpack_from("<HHHHB", data, at + 1)
            layout.width, layout.height = max(layout.width, x + w), max(layout.height, y + h)
            layout.frames += 1
            at = _skip_sub_blocks(data, at + 11 + _colour_table(flags))
        elif data[at] == 0x21:
            at = _skip_sub_blocks(data, at + 2)
        else:
            layout.damage = Reject(Reason.CORRUPT, f"gif: unknown block {data[at]:#x}")
            return layout
    if layout.frames == 0 or (layout.frames == 1 and at > len(data)):  # a missing trailer alone loses nothing
        layout.damage = Reject(Reason.TRUNCATED, "gif: ends before its first frame does")
    return layout


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def webp(data: bytes) -> Layout:
    """Walks the RIFF chunks; a frame count over one is an animation."""
    layout = Layout(0, 0, frames=0)
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        layout.damage = Reject(Reason.TRUNCATED, "webp: shorter than its RIFF header says")
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        _webp_chunk(layout, kind, data[at + 8 : at + 8 + size])
        at += 8 + size + (size & 1)
    if layout.width == 0 or layout.frames == 0:
        raise Damaged(Reason.TRUNCATED if layout.damage else Reason.CORRUPT, "has no picture chunk")
    layout.orientation = exif.orientation(exif.read_directory(layout.exif))
    return layout


def _webp_chunk(layout: Layout, kind: bytes, body: bytes) -> None:
    if kind == b"VP8X" and len(body) >= 10:
        layout.width = int.from_bytes(body[4:7], "little") + 1
        layout.height = int.from_bytes(body[7:10], "little") + 1
    elif kind == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack_from("<HH", body, 6)
        _grow(layout, width & 0x3FFF, height & 0x3FFF)
    elif kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        _grow(layout, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    elif kind == b"ANMF":
        layout.frames += 1
    elif kind == b"EXIF":
        layout.exif = body.removeprefix(b"Exif\0\0")
    elif kind == b"XMP ":
        layout.blocks.append(("xmp", body))
    elif kind == b"C2PA":
        layout.blocks.append(("c2pa", b""))


def _grow(layout: Layout, width: int, height: int) -> None:
    layout.frames += 1
    layout.width, layout.height = max(layout.width, width), max(layout.height, height)


def tiff(data: bytes) -> Layout:
    """The first directory, which by convention is the main picture."""
    tags = exif.read_directory(data)
    width, height = tags.get(exif.WIDTH), tags.get(exif.HEIGHT)
    if not isinstance(width, int) or not isinstance(height, int):
        raise Damaged(Reason.TRUNCATED, "has no readable directory")
    return Layout(width, height, orientation=exif.orientation(tags), exif=data)


def bmp(data: bytes) -> Layout:
    """The DIB header, old (12 bytes) or new."""
    if len(data) < 30:
        raise Damaged(Reason.TRUNCATED, "ends inside the header")
    old = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
    return Layout(abs(width), abs(height))
