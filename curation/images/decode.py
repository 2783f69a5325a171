"""The one canonical decode: bytes to upright RGB or grey pixels, or a reason why not.

JPEG goes through libjpeg-turbo with IDCT reductions 1/2, 1/4 and 1/8 only (others are slower than full size: they have
no SIMD kernel); everything else through Pillow, reduced by the same factors with a box filter, so that a consumer sees
the same sizes whatever the format. Transparency is composited over white, 16-bit keeps its high byte, CMYK is converted
without a profile. EXIF orientation is always applied.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image as pillow
from PIL import UnidentifiedImageError

from curation.images import png_rows
from curation.images.exif import upright
from curation.images.header import Header, read_header
from curation.images.reasons import Reason, Reject

_REDUCTIONS = (8, 4, 2)
_PILLOW_NAMES = {"jpeg": ("JPEG", "MPO"), "png": ("PNG",), "gif": ("GIF",), "webp": ("WEBP",), "tiff": ("TIFF",)}
_DAMAGE = (OSError, ValueError, SyntaxError, IndexError, TypeError, KeyError, struct.error, zlib.error, EOFError)
_STRIP_ROWS = 256  # a multiple of every reduction
_HARMLESS_GAP = 16  # bytes between header segments or before the end marker: sloppy writers, not lost picture


@dataclass(frozen=True)
class Image:
    """Upright pixels uint8 [H,W,3]; `width`, `height` of the upright original; `scale` = 1, 1/2, 1/4 or 1/8.

    A position in the original is the position in `pixels` divided by `scale`; an edge that does not divide rounds up.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    scale: float


def decode(data: bytes, *, min_side: int | None = None) -> Image | Reject:
    """Decodes once, to the smallest power-of-two reduction whose short side is at least `min_side` pixels.

    None is full size. Never raises for bad bytes: what cannot be shown in full is a Reject with its reason.
    """
    header = read_header(data)
    return header if isinstance(header, Reject) else decode_pixels(data, header, min_side=min_side)


def decode_pixels(data: bytes, header: Header, *, min_side: int | None = None) -> Image | Reject:
    """`decode` for a caller that has the header already."""
    factor = reduction(header, min_side)
    pixels = _pixels(data, header, factor, "RGB")
    if isinstance(pixels, Reject):
        return pixels
    return Image(upright(pixels, _still_to_turn(header)), header.width, header.height, 1 / factor)


def decode_grey(data: bytes, header: Header, *, min_side: int | None = None) -> NDArray[np.uint8] | Reject:
    """Upright luminance [H,W] (ITU-R 601), reduced like `decode`; a JPEG's chroma is never transformed."""
    pixels = _pixels(data, header, reduction(header, min_side), "L")
    return pixels if isinstance(pixels, Reject) else upright(pixels, _still_to_turn(header))


def reduction(header: Header, min_side: int | None) -> int:
    """The largest of 8, 4, 2 that leaves at least `min_side` pixels on the short side; else 1."""
    short = min(header.width, header.height)
    fits = (f for f in _REDUCTIONS if min_side is not None and -(-short // f) >= min_side)
    return next(fits, 1)


def _still_to_turn(header: Header) -> int:
    return 1 if header.format == "tiff" else header.orientation  # Pillow turns TIFF, and only TIFF, while loading


def _pixels(data: bytes, header: Header, factor: int, mode: str) -> NDArray[np.uint8] | Reject:
    if header.format == "jpeg" and header.layout.components in (1, 3):
        try:
            return _turbo(data, header, factor, mode)
        except ValueError as error:
            damage = _jpeg_damage(str(error))
            if damage is not None:
                return damage
    return _pillow(data, header, factor, mode)


def _turbo(data: bytes, header: Header, factor: int, mode: str) -> NDArray[np.uint8]:
    layout = header.layout
    pixels = simplejpeg.decode_jpeg(
        data,
        "GRAY" if mode == "L" else "RGB",
        min_height=-(-layout.height // factor),
        min_width=-(-layout.width // factor),
    )
    return pixels[:, :, 0] if mode == "L" else pixels


def _jpeg_damage(message: str) -> Reject | None:
    """A Reject when libjpeg's warning means lost picture; None when it may be whole: a second decoder decides."""
    if "Premature end" in message:
        return Reject(Reason.TRUNCATED, f"jpeg: {message}")
    words = message.split()
    if "extraneous bytes before marker" in message:
        gap, marker = int(words[3]), int(words[-1], 16)
        if 0xD0 <= marker <= 0xD7 or (marker == 0xD9 and gap > _HARMLESS_GAP):
            return Reject(Reason.CORRUPT, f"jpeg: {message}")
    elif message.startswith("Corrupt JPEG data"):
        return Reject(Reason.CORRUPT, f"jpeg: {message}")
    return None


def _pillow(data: bytes, header: Header, factor: int, mode: str) -> NDArray[np.uint8] | Reject:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF and the like; what matters is raised
            with pillow.open(io.BytesIO(data), formats=_PILLOW_NAMES.get(header.format, ("BMP",))) as picture:
                if sorted(picture.size) != sorted((header.layout.width, header.layout.height)):
                    return _other_size(picture, header)
                pixels = _plain(picture, factor, mode, header)
                return png_rows.missing(data) or pixels if _may_be_short(picture, header) else pixels
    except MemoryError:
        return Reject(Reason.DECOMPRESSION_BOMB, f"{header.format}: memory ran out while decoding")
    except pillow.DecompressionBombError as error:
        return Reject(Reason.DECOMPRESSION_BOMB, f"{header.format}: {error}")
    except UnidentifiedImageError:
        return Reject(Reason.CORRUPT, f"{header.format}: no decoder accepts its structure")
    except _DAMAGE as error:
        return _decoder_said(header.format, error)


def _may_be_short(picture: Any, header: Header) -> bool:
    return header.format == "png" and png_rows.ends_in_zeros(picture)


def _decoder_said(kind: str, error: Exception) -> Reject:
    text = f"{kind}: {error}"
    if "runcated" in text or "end of file" in text:
        return Reject(Reason.TRUNCATED, text)
    if "too large" in text:
        return Reject(Reason.DECOMPRESSION_BOMB, text)
    return Reject(Reason.UNSUPPORTED if "nsupported" in text else Reason.CORRUPT, text)


def _other_size(picture: Any, header: Header) -> Reject:
    layout = header.layout
    return Reject(Reason.CORRUPT, f"{header.format}: decoder sees {picture.size}, header {layout.width, layout.height}")


def _plain(picture: Any, factor: int, mode: str, header: Header) -> NDArray[np.uint8] | Reject:
    """Any Pillow mode to uint8 in `mode`, reduced by `factor` with a box filter.

    In strips of rows, which `factor` divides: a picture of the largest size would need its memory several times over.
    """
    if picture.mode == "F":
        return Reject(Reason.UNSUPPORTED, f"{header.format}: floating-point pixels")
    picture.load()  # a TIFF has its upright size only now
    width, height = -(-picture.width // factor), -(-picture.height // factor)
    pixels = np.empty((height, width, 3) if mode == "RGB" else (height, width), np.uint8)
    for top in range(0, picture.height, _STRIP_ROWS):
        strip = picture.crop((0, top, picture.width, min(top + _STRIP_ROWS, picture.height)))
        rows = _converted(strip, mode)
        pixels[top // factor : (top + _STRIP_ROWS) // factor] = rows.reduce(factor) if factor > 1 else rows
    return pixels


def _converted(picture: Any, mode: str) -> Any:
    """A Pillow picture in `mode`: the high byte of 16 bits, transparency over white."""
    if picture.mode.startswith("I"):
        high = np.asarray(picture).astype(np.int64) >> 8
        picture = pillow.fromarray(np.clip(high, 0, 255).astype(np.uint8))
    elif picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = pillow.alpha_composite(pillow.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    picture = picture.convert("RGB") if picture.mode not in ("RGB", "L") else picture
    return picture.convert(mode) if picture.mode != mode else picture
