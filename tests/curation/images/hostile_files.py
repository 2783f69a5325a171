"""More than two hundred files that an image pipeline meets or fears, each with the ends that are right for it.

Every file is made here from code and a seed. What is whole, though odd, must be kept; what is not must be rejected for
one of the reasons named; where flipped bytes decide, either end is right and only a crash is wrong.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from picture_makers import animated, encode, quadrants, smooth, with_orientation
from PIL import Image

KEPT = "kept"
BROKEN = frozenset({"truncated", "corrupt", "not_an_image", "empty"})
BOMB = frozenset({"decompression_bomb"})
ANY = frozenset(
    {KEPT, "truncated", "corrupt", "not_an_image", "empty", "unsupported", "decompression_bomb", "animated"}
)


@dataclass(frozen=True)
class Hostile:
    """A file, how it is called in a pool, and the ends that are right: `kept` or reject reasons."""

    family: str
    name: str
    data: bytes
    ends: frozenset[str]


def hostile_files() -> list[Hostile]:
    """All files, in a fixed order; names are unique."""
    makers: dict[str, Callable[[], Iterator[tuple[str, bytes, frozenset[str]]]]] = {
        "truncated": _truncated,
        "not pictures": _not_pictures,
        "bombs": _bombs,
        "modes": _modes,
        "animated": _animated,
        "orientation": _orientations,
        "polyglots and wrong names": _polyglots,
        "contradictions": _contradictions,
        "flipped bytes": _flipped,
    }
    return [Hostile(family, name, data, ends) for family, make in makers.items() for name, data, ends in make()]


def _kept() -> frozenset[str]:
    return frozenset({KEPT})


def _truncated() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    kinds = {
        "baseline.jpg": encode(smooth(1), "JPEG", quality=92),
        "progressive.jpg": encode(smooth(2), "JPEG", quality=92, progressive=True),
        "plain.png": encode(smooth(3), "PNG"),
        "lossy.webp": encode(smooth(4), "WEBP"),
        "lossless.webp": encode(smooth(5), "WEBP", lossless=True),
        "plain.gif": encode(smooth(6), "GIF"),
        "plain.bmp": encode(smooth(7), "BMP"),
    }
    for name, data in kinds.items():
        for percent in range(0, 100, 5):
            yield f"{percent:02d}-percent-{name}", data[: len(data) * percent // 100], BROKEN


def _not_pictures() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    wrong = {
        "one-byte.jpg": b"\xff",
        "zeros.jpg": bytes(10_000),
        "noise.png": noise,
        "error-page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "json.png": b'{"error": "not found"}',
        "elf.gif": b"\x7fELF" + noise,
        "pdf.jpg": b"%PDF-1.7\n" + noise,
        "archive.png": _zip(),
        "gzip.jpg": zlib.compress(noise),
        "video.jpg": b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + noise,
    }
    for name, data in wrong.items():
        yield name, data, BROKEN
    magic = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "gif": b"GIF89a", "webp": b"RIFF\x24\0\0\0WEBP"}
    for kind, start in {**magic, "bmp": b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0"}.items():
        yield f"only-magic-{kind}", start, BROKEN
        yield f"magic-and-zeros-{kind}", start + bytes(4000), BROKEN
    unread = frozenset({"unsupported"})
    yield "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', unread
    entities = b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><svg>&b;</svg>'
    yield "entities.svg", entities, unread
    for name, start in {"a.psd": b"8BPS", "a.ico": b"\0\0\1\0", "a.avif": b"\0\0\0\x1cftypavif"}.items():
        yield name, start + noise, unread


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "text")
    return buffer.getvalue()


def _bombs() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    jpeg = bytearray(encode(smooth(1), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65500, 65500)
    yield "claims-4-gigapixels.jpg", bytes(jpeg), BOMB
    for side in (20_000, 65_000, 2**31 - 1):
        yield f"claims-{side}.png", png_of(side, side, zlib.compress(b"\0")), BOMB
    rows = png_of(30_000, 30_000, _zeros(30_000 * 3751), depth=1)
    yield "truly-900-megapixels.png", rows, BOMB
    yield "gif-65535.gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + encode(smooth(6), "GIF")[10:], BOMB
    bmp = bytearray(encode(smooth(7), "BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    yield "claims-10-gigapixels.bmp", bytes(bmp), BOMB
    size = (16_383).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size + encode(smooth(4), "WEBP")[12:]
    yield "canvas-16384.webp", b"RIFF" + struct.pack("<I", len(body)) + body, BOMB
    yield "claims-10-gigapixels.tif", _tiff(100_000, 100_000), BOMB
    whole = encode(smooth(3), "PNG")
    for kind, text in {b"zTXt": b"Comment\0\0" + _zeros(64 << 20), b"iCCP": b"profile\0\0" + _zeros(64 << 20)}.items():
        yield f"64-MB-in-{kind.decode()}.png", whole[:33] + _chunk(kind, text) + whole[33:], BOMB
    scan = encode(smooth(2), "JPEG", progressive=True)
    at = scan.rindex(b"\xff\xda")
    yield "a-thousand-scans.jpg", scan[:-2] + scan[at:-2] * 1000 + b"\xff\xd9", BOMB
    yield "largest-that-is-taken.png", png_of(9400, 9400, _zeros(9400 * 1176), depth=1), _kept()
    alpha = png_of(9400, 9400, _zeros(9400 * 37_601), colour=6)
    yield "largest-that-is-taken-with-alpha.png", alpha, _kept()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, packed: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG with this header and these compressed rows, whatever they are."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _zeros(size: int) -> bytes:
    packer = zlib.compressobj(1)
    step = 1 << 20
    parts = [packer.compress(bytes(min(step, size - at))) for at in range(0, size, step)]
    return b"".join(parts) + packer.flush()


def _tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, height)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def _modes() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    rgb = smooth(8)
    grey16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(rgb.convert("L"))
    whole = {
        "cmyk.jpg": encode(rgb.convert("CMYK"), "JPEG"),
        "grey.jpg": encode(rgb.convert("L"), "JPEG"),
        "444.jpg": encode(rgb, "JPEG", subsampling=0),
        "quality-1.jpg": encode(rgb, "JPEG", quality=1),
        "restarts.jpg": encode(rgb, "JPEG", restart_marker_rows=1),
        "16-bit-grey.png": encode(grey16, "PNG"),
        "1-bit.png": encode(rgb.convert("1"), "PNG"),
        "palette.png": encode(rgb.quantize(16), "PNG"),
        "palette-alpha.png": encode(rgb.quantize(16), "PNG", transparency=3),
        "grey-alpha.png": encode(alpha.convert("LA"), "PNG"),
        "alpha.png": encode(alpha, "PNG"),
        "alpha.webp": encode(alpha, "WEBP"),
        "transparent.gif": encode(rgb.quantize(16), "GIF", transparency=2),
        "interlaced.gif": encode(rgb, "GIF", interlace=1),
        "lzw.tif": encode(rgb, "TIFF", compression="tiff_lzw"),
        "jpeg-in.tif": encode(rgb, "TIFF", compression="jpeg"),
        "16-bit.tif": encode(grey16, "TIFF"),
        "cmyk.tif": encode(rgb.convert("CMYK"), "TIFF"),
        "lab.tif": encode(Image.new("LAB", (320, 240), (120, 90, 200)), "TIFF"),
        "palette.bmp": encode(rgb.quantize(16), "BMP"),
        "1-bit.bmp": encode(rgb.convert("1"), "BMP"),
        "pages.tif": encode(rgb, "TIFF", save_all=True, append_images=[smooth(9)]),
    }
    for name, data in whole.items():
        yield name, data, frozenset({KEPT, "unsupported", "animated"}) if name[:3] in ("lab", "pag") else _kept()
    yield "float.tif", encode(rgb.convert("F"), "TIFF"), frozenset({"unsupported"})
    yield "black.jpg", encode(Image.new("RGB", (300, 300)), "JPEG"), _kept()


def _animated() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    for kind in ("GIF", "WEBP", "PNG"):
        yield f"three-frames.{kind.lower()}", animated(kind), frozenset({"animated"})


# How a picture is stored so that its orientation brings it back (EXIF 2.32, 4.6.4 A).
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _orientations() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        for value in range(1, 9):
            picture = quadrants(160 + value, 120)  # no two files alike
            if value in _BACK:
                picture = picture.transpose(_BACK[value])
            yield f"orientation-{value}.{kind.lower()}", with_orientation(picture, kind, value), _kept()
    for value in (0, 9, 255, 65535):
        yield f"orientation-{value}.jpeg", with_orientation(quadrants(150 + value % 7, 121), "JPEG", value), _kept()


def _polyglots() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    jpeg, png, gif = encode(smooth(11), "JPEG"), encode(smooth(12), "PNG"), encode(smooth(13), "GIF")
    yield "really-a-jpeg.png", jpeg, _kept()
    yield "really-a-png.jpg", png, _kept()
    yield "no-extension", encode(smooth(14), "WEBP"), _kept()
    yield "picture.txt", encode(smooth(15), "JPEG"), _kept()
    yield "jpeg-then-zip.jpg", encode(smooth(16), "JPEG") + _zip(), _kept()
    yield "gif-then-archive.gif", gif + _zip(), _kept()
    yield "png-then-html.png", encode(smooth(17), "PNG") + b"<script>alert(1)</script>", _kept()
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 25) + b"<?php system($_GET[0]); ?>"[:25]
    yield "script-in-comment.jpg", jpeg[:2] + comment + jpeg[2:], _kept()
    yield "pdf-around-jpeg.pdf", b"%PDF-1.4\n1 0 obj\nstream\n" + jpeg, BROKEN
    yield "two-in-one.jpg", encode(smooth(18), "JPEG") + encode(smooth(19), "JPEG"), _kept()
    yield "html-then-jpeg.jpg", b"<html>" + jpeg, BROKEN
    yield "newline-first.png", b"\r\n" + png, BROKEN
    names = [
        "-rf.jpg",
        "spaces and 'quotes\".jpg",
        "ünïcödé ✓ 画像.jpg",
        "new\nline.jpg",
        "x" * 200 + ".jpg",
        ".hidden.jpg",
    ]
    for seed, name in enumerate(names, 20):
        yield name, encode(smooth(seed), "JPEG"), _kept()


def _contradictions() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    jpeg, png, webp = encode(smooth(31), "JPEG"), encode(smooth(32), "PNG"), encode(smooth(33), "WEBP")
    at = jpeg.index(b"\xff\xc0") + 5
    for name, size in {"no-height.jpg": (0, 320), "no-width.jpg": (240, 0), "taller.jpg": (300, 320)}.items():
        yield name, jpeg[:at] + struct.pack(">HH", *size) + jpeg[at + 4 :], BROKEN
    tables = encode(smooth(36), "JPEG", optimize=True)  # unusual ones: decoders assume the usual where there are none
    yield "no-tables.jpg", tables.replace(b"\xff\xc4", b"\xff\xfe"), BROKEN
    yield "no-scan.jpg", jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9", BROKEN
    yield "endless-segment.jpg", jpeg[:2] + b"\xff\xe0\xff\xff" + jpeg[20:60], BROKEN
    yield "zero-segments.jpg", jpeg[:2] + b"\xff\xe0\0\0" * 5000 + jpeg[2:], ANY
    yield "fill-bytes.jpg", jpeg[:2] + b"\xff" * 50_000 + jpeg[2:], ANY
    yield "no-data.png", png[:33] + _chunk(b"IEND", b""), BROKEN
    yield "bad-header-crc.png", png[:29] + b"\0\0\0\0" + png[33:], BROKEN
    yield "zero-width.png", png_of(0, 100, zlib.compress(b"\0")), BROKEN
    yield "bad-deflate.png", png_of(200, 200, b"\x78\x9c\xff\xff\xff\xff"), BROKEN
    yield "too-few-rows.png", png_of(200, 200, zlib.compress(bytes(201 * 100))), BROKEN
    yield "unknown-colour.png", png_of(200, 200, zlib.compress(bytes(201 * 200)), colour=7), BROKEN | {"unsupported"}
    yield "huge-chunk.png", png[:33] + b"\x7f\xff\xff\xfftEXt" + png[33:], BROKEN
    yield "long-riff.webp", webp[:4] + struct.pack("<I", len(webp) * 9) + webp[8:], BROKEN
    yield "no-frames.gif", encode(smooth(34), "GIF")[:13] + bytes(768) + b";", BROKEN
    yield "own-directory.tif", b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 256, 4, 1, 8), BROKEN
    yield "nowhere.tif", b"II*\0" + struct.pack("<I", 2**31), BROKEN
    bmp = bytearray(encode(smooth(35), "BMP"))
    yield "depth-99.bmp", bytes(bmp[:28]) + struct.pack("<H", 99) + bytes(bmp[30:]), BROKEN | {"unsupported"}
    exif_loop = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif_loop) + 2) + exif_loop
    yield "exif-points-at-itself.jpg", jpeg[:2] + segment + jpeg[2:], _kept()
    junk = b"Exif\0\0" + np.random.default_rng(4).integers(0, 256, 600, dtype=np.uint8).tobytes()
    yield "exif-of-noise.jpg", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(junk) + 2) + junk + jpeg[2:], _kept()


def _flipped() -> Iterator[tuple[str, bytes, frozenset[str]]]:
    rng = np.random.default_rng(9)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = encode(smooth(40), kind)
        for number in range(8):
            data = bytearray(whole)
            reach = 64 if number % 2 else len(data)  # every other one in the header
            for at in rng.integers(4, reach, 6):
                data[at] = int(rng.integers(0, 256))
            yield f"flipped-{number}.{kind.lower()}", bytes(data), ANY
