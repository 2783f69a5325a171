"""Copies of pictures as the web makes them, and pictures that resemble each other without being copies.

For benchmarks/curation_copies.py. Every picture passes through an encoder, as it would on its way to a pool.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from sapiens2.data.synthetic.backdrop import draw_backdrop, draw_light
from sapiens2.data.synthetic.camera import aim, draw_view
from sapiens2.data.synthetic.fabric import draw_fabric
from sapiens2.data.synthetic.figure import build_figure
from sapiens2.data.synthetic.paint import Painted, paint_surface
from sapiens2.data.synthetic.person import draw_person
from sapiens2.data.synthetic.poses import draw_pose
from sapiens2.data.synthetic.shot import photograph
from sapiens2.data.synthetic.surface import assemble

Rng = np.random.Generator
Picture = Image.Image
Attack = Callable[[Picture, Rng], Picture]
SCENE_PX = (320, 240)  # height, width
_WORDS = ("BREAKING NEWS", "SALE 50% OFF", "follow @someone for more", "STOCK PREVIEW", "when it is monday again")


def encoded(picture: Picture, quality: int = 90) -> bytes:
    """As a JPEG file."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _recompressed(picture: Picture, quality: int) -> Picture:
    return Image.open(io.BytesIO(encoded(picture, quality))).convert("RGB")


def _jpeg(picture: Picture, rng: Rng) -> Picture:
    return _recompressed(picture, int(rng.integers(15, 75)))


def _scale(picture: Picture, rng: Rng) -> Picture:
    return ImageOps.scale(picture, float(rng.uniform(0.25, 0.8)), Image.Resampling.LANCZOS)


def _crop(picture: Picture, rng: Rng, low: float, high: float) -> Picture:
    """A part with this share of both sides, anywhere."""
    width, height = (max(16, round(side * rng.uniform(low, high))) for side in picture.size)
    x, y = int(rng.integers(0, picture.width - width + 1)), int(rng.integers(0, picture.height - height + 1))
    return picture.crop((x, y, x + width, y + height))


def _light_crop(picture: Picture, rng: Rng) -> Picture:
    return _crop(picture, rng, 0.8, 0.97)


def _hard_crop(picture: Picture, rng: Rng) -> Picture:
    return _crop(picture, rng, 0.5, 0.75)


def _flip(picture: Picture, _: Rng) -> Picture:
    return ImageOps.mirror(picture)


def _colour(picture: Picture, rng: Rng) -> Picture:
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = kind(picture).enhance(float(rng.uniform(0.6, 1.5)))
    return picture


def _grey(picture: Picture, _: Rng) -> Picture:
    return ImageOps.grayscale(picture).convert("RGB")


def _blur(picture: Picture, rng: Rng) -> Picture:
    return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.002, 0.006)) * max(picture.size)))


def _write(picture: Picture, rng: Rng, box: tuple[int, int, int, int], ink: tuple[int, ...]) -> None:
    """Words that fill the width of a box, from its upper left corner."""
    words = _WORDS[int(rng.integers(len(_WORDS)))]
    size = max(8, min(box[3] - box[1], round(1.6 * (box[2] - box[0]) / len(words))))
    ImageDraw.Draw(picture, "RGBA").text(box[:2], words, font=ImageFont.load_default(size), fill=ink)


def _caption(picture: Picture, rng: Rng) -> Picture:
    """A bar with words above or below the picture."""
    bar = round(picture.height * rng.uniform(0.1, 0.25))
    whole = Image.new("RGB", (picture.width, picture.height + bar), (255, 255, 255))
    below = bool(rng.integers(2))
    whole.paste(picture, (0, 0 if below else bar))
    top = picture.height if below else 0
    _write(whole, rng, (4, top + 2, whole.width - 4, top + bar), (0, 0, 0, 255))
    return whole


def _watermark(picture: Picture, rng: Rng) -> Picture:
    """Words over the picture, half transparent."""
    copy, top = picture.copy(), round(picture.height * rng.uniform(0.1, 0.8))
    ink = (255, 255, 255, 160) if rng.integers(2) else (20, 20, 20, 160)
    _write(copy, rng, (round(0.05 * copy.width), top, round(0.95 * copy.width), copy.height), ink)
    return copy


def _border(picture: Picture, rng: Rng) -> Picture:
    width = round(max(picture.size) * rng.uniform(0.03, 0.12))
    return ImageOps.expand(picture, width, tuple(int(v) for v in rng.integers(0, 256, 3)))


def _screenshot(picture: Picture, rng: Rng) -> Picture:
    """As a phone shows it: a page of its own, a bar above, words and buttons below."""
    width = picture.width + 2 * round(0.04 * picture.width)
    top, bottom = round(0.12 * picture.height), round(rng.uniform(0.15, 0.35) * picture.height)
    paper = (255, 255, 255) if rng.integers(2) else (18, 18, 18)
    page = Image.new("RGB", (width, top + picture.height + bottom), paper)
    page.paste(picture, ((width - picture.width) // 2, top))
    ink = (90, 90, 90, 255)
    _write(page, rng, (8, top // 4, width // 2, top), ink)
    _write(page, rng, (8, top + picture.height + 6, width - 8, page.height), ink)
    draw = ImageDraw.Draw(page)
    for k in range(3):
        x, y, r = 20 + k * width // 8, page.height - bottom // 4, max(4, bottom // 10)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=ink[:3], width=2)
    return page


def _combined(picture: Picture, rng: Rng) -> Picture:
    return _jpeg(_colour(_flip(_light_crop(picture, rng), rng), rng), rng)


def _repost(picture: Picture, rng: Rng) -> Picture:
    return _jpeg(_screenshot(_caption(_scale(picture, rng), rng), rng), rng)


ATTACKS: dict[str, Attack] = {
    "jpeg": _jpeg,
    "scale": _scale,
    "light crop": _light_crop,
    "hard crop": _hard_crop,
    "flip": _flip,
    "colour": _colour,
    "grey": _grey,
    "blur": _blur,
    "caption": _caption,
    "watermark": _watermark,
    "border": _border,
    "screenshot": _screenshot,
    "crop, flip, colour": _combined,
    "repost": _repost,
}


def attacked(picture: Picture, name: str, key: str) -> bytes:
    """The copy that an attack makes of a picture; the same for the same key."""
    rng = np.random.default_rng(zlib.crc32(f"{name}/{key}".encode()))
    return encoded(ATTACKS[name](picture, rng), int(rng.integers(70, 95)))


def posed(scene: int, pose: int) -> Picture:
    """A synthetic person of a scene in one of many poses: the same clothes, place, light and camera."""

    def fixed(what: int) -> Rng:
        return np.random.default_rng([scene, what])

    first = draw_pose(fixed(0), "train")
    rng = np.random.default_rng([scene, 9, pose])
    chosen = first if pose == 0 else draw_pose(rng, "train")
    while chosen.seated != first.seated:
        chosen = draw_pose(rng, "train")
    person, prop = draw_person(fixed(1), "train", first.seated), draw_fabric(fixed(2), "train", 0.8)
    start, figure = build_figure(person, first), build_figure(person, chosen)
    body = np.concatenate([sheet.points.reshape(-1, 3) for sheet in start.sheets])
    camera = aim(draw_view(fixed(3)), body, start.crown, *SCENE_PX)

    def painter(part: np.ndarray, side: np.ndarray, coords: np.ndarray) -> Painted:
        return paint_surface(person, prop, part, side, coords)

    backdrop, light = draw_backdrop(fixed(4), "train"), draw_light(fixed(5))
    shot = photograph(rng, assemble(figure.sheets), painter, figure, camera, backdrop, light, SCENE_PX, chosen.family)
    return Image.fromarray(shot.image)
