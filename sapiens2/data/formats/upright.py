"""Whether annotations were made on the pixels that are trained on: upright ones, EXIF orientation applied.

The size that a file of annotations states for each picture is the one thing that tells: of a quarter turn and of
another resolution, not of a half turn or a mirrored picture.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sapiens2.data.labelled.layout import LabelError
from sapiens2.data.labelled.read import read_image

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap the sides [EXIF 2.32]
# Formats whose orientation OpenCV applies, and Pillow leaves out of a header's size; it puts TIFF's into it.
TURNED_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
_DAMAGED = (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, ImportError)


@dataclass(frozen=True)
class Size:
    """Pixels of an upright picture, and the EXIF orientation that has made it upright, 1 for none."""

    width: int
    height: int
    orientation: int = 1

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"

    @property
    def swapped(self) -> bool:
        """Whether the sides are stored the other way round."""
        return self.orientation >= 5

    @property
    def unseen(self) -> bool:
        """Whether the orientation changes the picture and not its size."""
        return self.orientation > 1 and (not self.swapped or self.width == self.height)


def upright_size(path: Path) -> Size:
    """The size of a picture as `read_image` gives it, from its header where Pillow can read that.

    Raises LabelError for a file that is not there or cannot be decoded.
    """
    from PIL import Image

    if not path.is_file():
        raise LabelError(
            str(path), "is not there", "give the folder of the pictures, which the annotations' file names start from"
        )
    try:
        with Image.open(path) as picture:
            tags = Image.Exif()
            tags.load(picture.info.get("exif", b""))  # not getexif, which heeds XMP too: OpenCV does not
            tag = tags.get(ORIENTATION) if picture.format in TURNED_FORMATS else None
            if picture.format == "TIFF":  # its size has the turn already
                tag = picture.tag_v2.get(ORIENTATION)  # type: ignore[attr-defined]
                return Size(*picture.size, tag if isinstance(tag, int) and 1 <= tag <= 8 else 1)
            orientation = tag if isinstance(tag, int) and 1 <= tag <= 8 else 1
            width, height = picture.size
            return Size(height, width, orientation) if orientation >= 5 else Size(width, height, orientation)
    except (*_DAMAGED, Image.DecompressionBombError):
        return _decoded_size(path)


def _decoded_size(path: Path, orientation: int = 1) -> Size:
    height, width = read_image(str(path)).shape[:2]
    return Size(width, height, orientation)


def turned_unseen(pictures: Iterable[Path]) -> list[str]:
    """Names of the pictures that their EXIF orientation turns or mirrors without another size, in order.

    Nothing tells whether their labels were made on upright pixels: a person has to look.
    """
    return [path.name for path in pictures if upright_size(path).unseen]


def fill_size(image: dict[str, Any], path: Path) -> None:
    """Give an entry of `images` the sides that it lacks, from its picture."""
    if image.get("width") is None or image.get("height") is None:
        size = upright_size(path)
        for side, pixels in (("width", size.width), ("height", size.height)):
            image[side] = pixels if image.get(side) is None else image[side]


def refuse_other_sizes(where: str, images: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Raises LabelError naming the first picture whose upright size is not what its entry of `images` states."""
    other = [(image, size) for image in images if (size := _other_size(image, folder)) is not None]
    if not other:
        return
    image, size = other[0]
    more = f", and {len(other) - 1} more pictures differ" if other[1:] else ""
    stated = f"{image['width']:g} x {image['height']:g}"
    if size.swapped:
        problem = f"is {size} upright, as its EXIF orientation turns it"
        mend = (
            "remove that tag if the labels were made on the pixels as they are stored, else mend the stated size; "
            "points mean upright pixels"
        )
    else:
        problem, mend = f"is {size}", "give the very pictures that were labelled, not resized or turned ones"
    raise LabelError(
        f"{where} image {image['id']}", f"states {stated}, the picture {image['file_name']} {problem}{more}", mend
    )


def _other_size(image: Mapping[str, Any], folder: Path) -> Size | None:
    """The size of a picture if it is not the stated one."""
    path, stated = folder / image["file_name"], (round(image["width"]), round(image["height"]))
    size = upright_size(path)
    if stated != (size.width, size.height):
        size = _decoded_size(path, size.orientation)  # a header may be odd: what is trained on decides
    return None if stated == (size.width, size.height) else size
