"""What no package ships and a web pool is full of: pictures drawn by code, captions, and files that are damaged."""

from __future__ import annotations

import io
import random
import struct
import zlib

from PIL import Image, ImageDraw, ImageFont


def cartoon(rng: random.Random, side: int = 640) -> Image.Image:
    """A flat-coloured figure with a face: an illustration with a person in it."""
    sky, grass, skin = "#9bd3f5", "#7ac36a", rng.choice(["#f2c9a1", "#c98f62", "#8d5a3b"])
    picture = Image.new("RGB", (side, side), sky)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, side * 0.72, side, side), fill=grass)
    draw.ellipse((side * 0.75, side * 0.06, side * 0.93, side * 0.24), fill="#ffd94a")
    x, y, r = side * rng.uniform(0.4, 0.55), side * 0.35, side * 0.16
    draw.rounded_rectangle((x - r, y + r * 0.8, x + r, y + r * 3.2), r * 0.5, fill=rng.choice(["#c8384a", "#3b5bdb"]))
    draw.ellipse((x - r, y - r, x + r, y + r), fill=skin, outline="black", width=4)
    for sign in (-1, 1):
        draw.ellipse((x + sign * r * 0.4 - 8, y - r * 0.2 - 8, x + sign * r * 0.4 + 8, y - r * 0.2 + 8), fill="black")
    draw.arc((x - r * 0.5, y - r * 0.1, x + r * 0.5, y + r * 0.6), 20, 160, fill="black", width=5)
    return picture


def chart(rng: random.Random, size: tuple[int, int] = (800, 560)) -> Image.Image:
    """A bar chart with axes and labels."""
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    width, height = size
    draw.line((80, 40, 80, height - 60, width - 30, height - 60), fill="black", width=3)
    for i in range(8):
        top = rng.uniform(80, height - 120)
        left = 100 + i * (width - 160) // 8
        draw.rectangle((left, top, left + 50, height - 62), fill=["#4c72b0", "#dd8452", "#55a868"][i % 3])
        draw.text((left + 8, height - 52), f"Q{i + 1}", fill="black", font=ImageFont.load_default(20))
    draw.text((width // 3, 8), "Results per quarter", fill="black", font=ImageFont.load_default(26))
    return picture


def screenshot(size: tuple[int, int] = (900, 600)) -> Image.Image:
    """A window with a title bar, a side bar and lines of text."""
    picture = Image.new("RGB", size, "#f3f3f3")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, size[0], 44), fill="#2f3136")
    draw.rectangle((0, 44, 200, size[1]), fill="#e3e5e8")
    font = ImageFont.load_default(18)
    for i in range(18):
        text = "the quick brown fox jumps over the lazy dog"[: 20 + i * 7 % 24]
        draw.text((230, 70 + i * 28), text, fill="#222", font=font)
        draw.text((18, 70 + i * 28), f"Item {i}", fill="#555", font=font)
    return picture


def captioned(photo: Image.Image, top: str, bottom: str) -> Image.Image:
    """A photo with large outlined words over it, as memes have them."""
    picture = photo.convert("RGB")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(picture.width // 9, 24))
    for text, y, anchor in ((top, 12, "ma"), (bottom, picture.height - 12, "md")):
        draw.text((picture.width / 2, y), text, "white", font, anchor=anchor, stroke_width=5, stroke_fill="black")
    return picture


def png_bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A valid PNG header that claims 2.5 gigapixels, over a few bytes of data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 4096)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def animation(frames: list[Image.Image]) -> bytes:
    """An animated GIF."""
    small = [frame.resize((320, 320)).quantize(128, method=Image.Quantize.FASTOCTREE) for frame in frames]
    buffer = io.BytesIO()
    small[0].save(buffer, "GIF", save_all=True, append_images=small[1:], duration=120, loop=0)
    return buffer.getvalue()
