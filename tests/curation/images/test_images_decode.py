"""The canonical decode against Pillow's own transforms, and against files made to break it."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_makers import CORNERS, animated, corners, encode, quadrants, smooth, with_orientation
from PIL import Image as pillow
from PIL import ImageOps

from curation.images import Image, Reason, Reject, decode, read_header
from curation.images.decode import decode_grey
from curation.images.header import MAX_PIXELS

KINDS = ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]


def taken(data: bytes, min_side: int | None = None) -> Image:
    image = decode(data, min_side=min_side)
    assert isinstance(image, Image), image
    return image


def refused(data: bytes) -> Reject:
    image = decode(data)
    assert isinstance(image, Reject)
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_comes_out_upright(kind: str, value: int) -> None:
    data = with_orientation(quadrants(), kind, value)
    with pillow.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    image = taken(data)
    assert image.pixels.shape == expected.shape
    assert (image.width, image.height) == (expected.shape[1], expected.shape[0])
    np.testing.assert_allclose(corners(image.pixels), corners(expected), atol=6)
    assert image.pixels.flags.c_contiguous


def test_orientations_differ_from_each_other() -> None:
    """Guards the test above: were orientation ignored on both sides, all eight would look the same."""
    seen = {
        (
            *taken(with_orientation(quadrants(), "PNG", v)).pixels.shape,
            *map(tuple, corners(taken(with_orientation(quadrants(), "PNG", v)).pixels)),
        )
        for v in range(1, 9)
    }
    assert len(seen) == 8


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_invalid_orientation_is_none(value: int) -> None:
    image = taken(with_orientation(quadrants(), "JPEG", value))
    assert (image.width, image.height) == (96, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_all_formats_give_the_picture(kind: str) -> None:
    image = taken(encode(quadrants(), kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {})))
    assert image.scale == 1 and image.pixels.shape == (64, 96, 3)
    np.testing.assert_allclose(corners(image.pixels), CORNERS, atol=8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("min_side", "factor"), [(None, 1), (400, 1), (190, 2), (189, 2), (95, 4), (48, 8), (5, 8)])
def test_reductions_are_powers_of_two_and_keep_the_minimum(kind: str, min_side: int | None, factor: int) -> None:
    picture = smooth(3, 501, 379)
    image = taken(encode(picture, kind, **({"quality": 95} if kind != "PNG" else {})), min_side)
    assert image.scale == 1 / factor
    assert image.pixels.shape[:2] == (-(-379 // factor), -(-501 // factor))
    if min_side is not None and factor > 1:
        assert min(image.pixels.shape[:2]) >= min_side
    reference = np.asarray(picture.reduce(factor), np.int16)
    assert np.abs(reference - image.pixels).mean() < 4


def test_a_rotated_jpeg_is_reduced_by_its_upright_short_side() -> None:
    image = taken(with_orientation(smooth(1, 480, 240), "JPEG", 6), 120)
    assert (image.width, image.height, image.scale, image.pixels.shape) == (240, 480, 0.5, (240, 120, 3))


def test_grey_is_the_luminance_of_the_rgb() -> None:
    for kind in ("JPEG", "PNG"):
        data = encode(smooth(5), kind)
        header = read_header(data)
        assert not isinstance(header, Reject)
        grey = decode_grey(data, header)
        assert not isinstance(grey, Reject)
        reference = np.asarray(pillow.open(io.BytesIO(data)).convert("L"), np.int16)
        assert np.abs(grey - reference).max() <= 2


def test_cmyk_is_not_inverted() -> None:
    image = taken(encode(quadrants().convert("CMYK"), "JPEG", quality=95))
    np.testing.assert_allclose(corners(image.pixels), CORNERS, atol=12)


def test_sixteen_bits_keep_the_high_byte() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    for kind in ("PNG", "TIFF"):
        image = taken(encode(pillow.fromarray(ramp), kind))
        np.testing.assert_array_equal(image.pixels[:, :, 0], ramp >> 8)


def test_transparency_lies_over_white() -> None:
    clear = pillow.new("RGBA", (64, 64), (0, 0, 0, 0))
    clear.paste((10, 20, 30, 255), (0, 0, 32, 64))
    palette = pillow.new("P", (64, 64), 0)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.paste(1, (0, 0, 32, 64))
    for data in (encode(clear, "PNG"), encode(clear, "WEBP", lossless=True), encode(palette, "PNG", transparency=0)):
        pixels = taken(data).pixels
        assert tuple(pixels[5, 5]) == (10, 20, 30)
        assert tuple(pixels[5, 60]) == (255, 255, 255)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("TIFF", {}), ("BMP", {})],
)
def test_truncation_at_any_length_is_a_reject(kind: str, options: dict[str, bool]) -> None:
    data = encode(smooth(2), kind, **options)
    for percent in range(5, 100, 5):
        reject = refused(data[: len(data) * percent // 100])
        assert reject.reason in (Reason.TRUNCATED, Reason.CORRUPT), (percent, reject)


def test_noise_in_the_scan_is_corrupt() -> None:
    data = bytearray(encode(smooth(4, 640, 480), "JPEG", quality=90))
    rng = np.random.default_rng(0)
    middle = len(data) // 2
    data[middle : middle + 300] = rng.integers(0, 256, 300, dtype=np.uint8).tobytes()
    assert refused(bytes(data)).reason in (Reason.CORRUPT, Reason.TRUNCATED)


def test_harmless_sloppiness_is_taken() -> None:
    data = encode(smooth(6), "JPEG")
    padded = data.replace(b"\xff\xda", b"\x00\x00\x00\xff\xda", 1)
    assert taken(padded).pixels.shape == (240, 320, 3)
    assert taken(data + b"PK\x03\x04 a zip glued on").pixels.shape == (240, 320, 3)
    gif = encode(smooth(6), "GIF")
    assert taken(gif.removesuffix(b"\x3b")).pixels.shape == (240, 320, 3)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small file of each format whose header claims any size."""
    data = bytearray(encode(quadrants(), kind))
    if kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "WEBP":
        at = data.index(b"VP8 ") + 8
        data[at + 6 : at + 10] = struct.pack("<HH", width, height)
    else:
        return png_claiming(width, height)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_bombs_are_told_by_their_header(kind: str) -> None:
    side = 16383 if kind == "WEBP" else 60_000
    reject = refused(claiming(kind, side, side))
    assert reject.reason == Reason.DECOMPRESSION_BOMB and str(side) in reject.detail
    assert refused(claiming(kind, side, side)[:-3]).reason == Reason.DECOMPRESSION_BOMB  # also when cut short


def test_the_pixel_cap_is_exact() -> None:
    assert isinstance(read_header(png_claiming(1, MAX_PIXELS + 1)), Reject)
    assert not isinstance(read_header(png_claiming(1, MAX_PIXELS)), Reject)
    assert isinstance(read_header(png_claiming(11, 10), max_pixels=100), Reject)


def test_text_chunk_bombs_do_not_inflate() -> None:
    bomb = zlib.compress(bytes(80 << 20), 9)
    body = b"Comment\0\0" + bomb
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    data = encode(quadrants(), "PNG")
    assert refused(data[:33] + chunk + data[33:]).reason == Reason.DECOMPRESSION_BOMB


def test_a_thousand_scans_are_a_bomb() -> None:
    data = encode(smooth(1), "JPEG", progressive=True)
    scan = data.index(b"\xff\xda")
    assert refused(data[:scan] + data[scan:-2] * 300 + data[-2:]).reason == Reason.DECOMPRESSION_BOMB


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_rejected(kind: str) -> None:
    assert refused(animated(kind)).reason == Reason.ANIMATED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"hello, this is text", Reason.NOT_AN_IMAGE),
        (b"%PDF-1.7\n...", Reason.NOT_AN_IMAGE),
        (b"PK\x03\x04" + bytes(60), Reason.NOT_AN_IMAGE),
        (b"BMW is a car, not a bitmap, whatever it begins with", Reason.NOT_AN_IMAGE),
        (bytes(5000), Reason.NOT_AN_IMAGE),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', Reason.UNSUPPORTED),
        (b"\0\0\0\x20ftypavif" + bytes(40), Reason.UNSUPPORTED),
        (b"8BPS" + bytes(40), Reason.UNSUPPORTED),
        (b"\xff\xd8\xff", Reason.TRUNCATED),
        (b"\x89PNG\r\n\x1a\n", Reason.TRUNCATED),
        (b"RIFF\x10\0\0\0WEBP", Reason.TRUNCATED),
        (b"II*\0", Reason.TRUNCATED),
    ],
)
def test_what_is_no_picture_says_so(data: bytes, reason: Reason) -> None:
    assert refused(data).reason == reason


def test_floating_point_pixels_are_unsupported() -> None:
    data = encode(pillow.fromarray(np.ones((32, 32), np.float32)), "TIFF")
    assert refused(data).reason == Reason.UNSUPPORTED


WHOLE = {kind: encode(smooth(9, 80, 60), kind) for kind in KINDS} | {
    "exif": with_orientation(smooth(9, 80, 60), "JPEG", 6),
    "animated": animated("GIF"),
}


EDITS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=12)  # (position, new byte)
MAGIC = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x40\0\0\0WEBP", b"II*\0\x08\0\0\0", b"BM", b""]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=12),
    st.integers(0, 6000),
)
def test_no_bytes_make_it_raise(kind: str, edits: list[tuple[int, int]], length: int) -> None:
    data = bytearray(WHOLE[kind])
    for at, value in edits:
        data[at % len(data)] = value
    image = decode(bytes(data[: max(length, len(data) - length)]), min_side=32)
    if isinstance(image, Image):
        assert image.pixels.dtype == np.uint8 and image.pixels.ndim == 3
    else:
        assert image.reason in set(Reason) and image.detail


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x40\0\0\0WEBP", b"II*\0\x08\0\0\0", b"BM", b""]
    ),
    st.binary(max_size=300),
)
def test_random_bytes_after_a_magic_number(magic: bytes, rest: bytes) -> None:
    assert isinstance(decode(magic + rest), Reject | Image)


def over_white(picture: pillow.Image) -> pillow.Image:
    rgba = picture.convert("RGBA")
    return pillow.alpha_composite(pillow.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_tall_pictures_are_as_if_decoded_at_once(factor: int) -> None:
    """Decoding goes by strips of rows; here the same is done on the whole."""
    tall = smooth(3, 60, 2075)
    clear, palette = tall.convert("RGBA"), tall.quantize(16)
    clear.putalpha(tall.convert("L"))
    holed = encode(palette, "PNG", transparency=3)
    wide = pillow.fromarray(np.asarray(tall.convert("L")).astype(np.uint16) * 257)
    for data, whole in (
        (encode(tall, "PNG"), tall),
        (encode(clear, "PNG"), over_white(clear)),
        (holed, over_white(pillow.open(io.BytesIO(holed)))),
        (encode(wide, "PNG"), tall.convert("L").convert("RGB")),
    ):
        expected = whole.reduce(factor) if factor > 1 else whole
        image = taken(data, min_side=-(-60 // factor))
        assert image.scale == 1 / factor
        np.testing.assert_array_equal(image.pixels, np.asarray(expected))
