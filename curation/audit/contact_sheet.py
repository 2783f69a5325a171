"""Thumbnails for pages: small upright JPEGs, and the same made unrecognisable where nobody should have to look."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

MAX_SIDE = 320  # px
BLUR_NSFW = 0.5  # score from which nobody should have to look at a picture, in every page
BLUR_SIDE = 9  # px of the short side that a blurred picture is reduced to: colours stay, contents do not


def thumbnail(data: bytes, *, max_side: int = MAX_SIDE, quality: int = 80) -> bytes | None:
    """A JPEG of at most `max_side` px on its long side, upright; None for bytes that cannot be decoded.

    Goes through the canonical decode, so it shows what the stages saw. Carries no metadata.
    """
    from PIL import Image

    from curation.images import Reject, decode

    decoded = decode(data, min_side=max_side)
    if isinstance(decoded, Reject):
        return None
    picture = Image.fromarray(decoded.pixels)
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return encoded(picture, quality)


def blurred(jpeg: bytes) -> bytes:
    """The picture reduced to a few soft blotches of its colours, at its own size."""
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as picture:
        size, short = picture.size, min(picture.size)
        few = (max(1, round(size[0] * BLUR_SIDE / short)), max(1, round(size[1] * BLUR_SIDE / short)))
        soft = picture.convert("RGB").resize(few, Image.Resampling.BOX).resize(size, Image.Resampling.BICUBIC)
    return encoded(soft, 70)


def encoded(picture: Any, quality: int) -> bytes:
    """A Pillow image as JPEG bytes without metadata."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def sheet_item(
    jpeg: bytes, caption: str, sub: str = "", *, group: str = "", mark: bool = False, image_id: str = ""
) -> dict[str, Any]:
    """One picture of an `images` section; items of one `group` stand together, `mark` outlines it.

    image_id: which picture it is, so that a page that is made when more is known of it can blur it.
    """
    item: dict[str, Any] = {"jpeg": base64.b64encode(jpeg).decode(), "caption": caption, "sub": sub}
    if group:
        item["group"] = group
    if mark:
        item["mark"] = True
    if image_id:
        item["image_id"] = image_id
    return item


def sheet(title: str, items: Sequence[dict[str, Any]], note: str = "") -> dict[str, Any]:
    """An `images` section of a fragment."""
    return {"type": "images", "title": title, "items": list(items), "note": note}
