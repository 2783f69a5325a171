"""A small pool like those of the web, made on the spot from real photographs that installed packages bring along.

People reframed in other light, places and things without people, copies and near-copies, captions, drawings, and the
files that break naive pipelines: truncated, misnamed, rotated by EXIF, bombs, animations, text named .jpg. The same
seed and library versions give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import PIL
from PIL import Image, ImageEnhance, ImageOps

from pipelines import sample_drawing as drawing
from pipelines.sample_sources import FRAMINGS, WITHOUT_PEOPLE, Framing, find_pictures

SIZES = ("demo", "micro")
File = tuple[str, bytes]  # path inside the pool, content

_RECIPE = 1  # raised when the pool's content changes
_TARGET_SIDE_PX = 640  # short side of a reframed person picture: persons in it pass the 384 px gate
_WORDS = (
    ("WHEN THE MODEL", "FINALLY LEARNS"),
    ("ONE DOES NOT", "SKIP THE DATA"),
    ("BREAKING NEWS", "GPU FOUND"),
    ("SALE", "50% OFF TODAY"),
)
_MICRO_FRAMINGS = (1, 3, 7, 9, 15, 24, 33, 35)  # plain enough for the classical detectors of the builtin profile


def build_sample_pool(directory: Path, *, seed: int = 0, size: str = "demo") -> Path:
    """Fills `directory` with the sample pool and returns it; does nothing when it holds this very pool already.

    `demo` is about 120 files, `micro` a dozen. Raises ValueError when the folder holds anything else, when no
    package with photographs is installed, or for an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"unknown size of sample pool {size!r}; give one of {', '.join(SIZES)}")
    pictures = find_pictures()
    if not {framing.picture for framing in FRAMINGS} & pictures.keys():
        raise ValueError(
            "no sample photographs: install matplotlib, scikit-image or ultralytics, or give your own folder as --pool"
        )
    directory = Path(directory)
    marker = directory.parent / f".{directory.name}.sample-pool.json"
    key = _key(pictures, seed, size)
    if _is_built(directory, marker, key):
        return directory
    _clear(directory, marker)
    written: dict[str, int] = {}
    for name, content in _files(pictures, seed, size):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written[name] = len(content)
    marker.write_text(json.dumps({"key": key, "files": written}, indent=1))
    return directory


def _key(pictures: dict[str, Path], seed: int, size: str) -> str:
    parts = [_RECIPE, PIL.__version__, seed, size, *((name, path.stat().st_size) for name, path in pictures.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _is_built(directory: Path, marker: Path, key: str) -> bool:
    if not marker.is_file():
        return False
    record = json.loads(marker.read_text())
    return record["key"] == key and record["files"] == _sizes(directory)


def _sizes(directory: Path) -> dict[str, int]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}


def _clear(directory: Path, marker: Path) -> None:
    """Removes what an earlier build wrote; refuses a folder with anyone else's files."""
    ours = set(json.loads(marker.read_text())["files"]) if marker.is_file() else set()
    foreign = sorted(_sizes(directory).keys() - ours)
    if foreign:
        raise ValueError(
            f"{directory} holds files of its own ({foreign[0]}, ...); give a new folder for the sample pool"
        )
    for name in _sizes(directory):
        (directory / name).unlink()


def _files(pictures: dict[str, Path], seed: int, size: str) -> Iterator[File]:
    framings = [framing for framing in FRAMINGS if framing.picture in pictures]
    if size == "micro":
        yield from _micro(pictures, seed)
        return
    people = list(_people(pictures, framings, seed))
    yield from people
    yield from _things(pictures)
    yield from _copies(people, pictures)
    yield from _drawn(people, seed)
    yield from _formats(people)
    yield from _broken(people, seed)


def _micro(pictures: dict[str, Path], seed: int) -> Iterator[File]:
    chosen = [i for i in _MICRO_FRAMINGS if FRAMINGS[i].picture in pictures]
    people = [_person(pictures, FRAMINGS[i], i, seed, 0) for i in chosen]
    yield from people
    content = people[0][1]
    yield "reposts/exact.jpg", content
    yield "reposts/smaller.jpg", _jpeg(ImageOps.scale(_open(content), 0.8), 60)
    yield "broken/truncated.jpg", content[: len(content) // 2]
    yield "broken/text.jpg", b"This is not a picture.\n"
    yield "drawn/chart.png", _png(drawing.chart(random.Random(seed)))
    yield from list(_things(pictures))[:1]


# --- people ----------------------------------------------------------------------------------------------------------


def _people(pictures: dict[str, Path], framings: list[Framing], seed: int) -> Iterator[File]:
    """Every framing once as it is, and once more mirrored, tilted and in another light."""
    for take in (0, 1):
        for index, framing in enumerate(framings):
            yield _person(pictures, framing, index, seed, take)


def _person(pictures: dict[str, Path], framing: Framing, index: int, seed: int, take: int) -> File:
    rng = random.Random(f"{seed}/{index}/{take}")
    picture = _source(pictures[framing.picture])
    crop = _tilted(picture, framing.crop, rng) if take else picture.crop(framing.crop)
    crop = ImageOps.scale(crop, _TARGET_SIDE_PX / min(crop.size), Image.Resampling.LANCZOS)
    crop = ImageOps.mirror(crop) if take else crop
    look = _LOOKS[(index * 3 + take * 5) % len(_LOOKS)] if take or index % 3 == 2 else _as_it_is
    name = f"people/{framing.person}_{index:02d}{'b' if take else 'a'}.jpg"
    return name, _jpeg(look(crop, rng), rng.choice([82, 88, 92]))


def _tilted(picture: Image.Image, crop: tuple[int, int, int, int], rng: random.Random) -> Image.Image:
    """The crop shifted and tightened a little, and the picture turned a few degrees around its lower edge."""
    x0, y0, x1, y1 = crop
    angle = math.radians(rng.uniform(3, 8) * rng.choice((-1, 1)))
    inset = rng.uniform(0.06, 0.14)
    dx, dy = (x1 - x0) * inset, (y1 - y0) * inset
    left, top = x0 + rng.uniform(0.3, 1.2) * dx, y0 + rng.uniform(0.2, 0.9) * dy
    size = (round(x1 - x0 - 2 * dx), round(y1 - y0 - 2 * dy))
    cx, cy, cos, sin = (x0 + x1) / 2, y1, math.cos(angle), math.sin(angle)
    where = (cos, -sin, cx + cos * (left - cx) - sin * (top - cy), sin, cos, cy + sin * (left - cx) + cos * (top - cy))
    return picture.transform(size, Image.Transform.AFFINE, where, Image.Resampling.BICUBIC)


def _as_it_is(photo: Image.Image, rng: random.Random) -> Image.Image:
    return photo


def _warm(photo: Image.Image, rng: random.Random) -> Image.Image:
    return _channels(photo, 1.12, 1.0, 0.78)


def _cool(photo: Image.Image, rng: random.Random) -> Image.Image:
    return _channels(photo, 0.82, 0.97, 1.15)


def _dusk(photo: Image.Image, rng: random.Random) -> Image.Image:
    return _channels(photo.point(lambda v: int(255 * (v / 255) ** 1.5)), 0.95, 0.9, 1.05)


def _bright(photo: Image.Image, rng: random.Random) -> Image.Image:
    return photo.point(lambda v: int(255 * (v / 255) ** 0.65))


def _mono(photo: Image.Image, rng: random.Random) -> Image.Image:
    return ImageOps.autocontrast(ImageOps.grayscale(photo), cutoff=1).convert("RGB")


def _side_lit(photo: Image.Image, rng: random.Random) -> Image.Image:
    """Light from one side: a horizontal ramp multiplied in."""
    ramp = Image.linear_gradient("L").rotate(90 if rng.random() < 0.5 else -90).resize(photo.size)
    shade = ramp.point(lambda v: 90 + v * 165 // 255)
    black = Image.new("RGB", photo.size)
    return ImageEnhance.Brightness(Image.composite(photo, black, shade)).enhance(1.25)


_LOOKS: list[Callable[[Image.Image, random.Random], Image.Image]] = [_warm, _cool, _dusk, _bright, _mono, _side_lit]


def _channels(photo: Image.Image, *gains: float) -> Image.Image:
    bands = [
        band.point(lambda v, g=gain: min(int(v * g), 255)) for band, gain in zip(photo.split(), gains, strict=True)
    ]
    return Image.merge("RGB", bands)


# --- everything else -------------------------------------------------------------------------------------------------


def _things(pictures: dict[str, Path]) -> Iterator[File]:
    for name in WITHOUT_PEOPLE:
        if name in pictures:
            yield f"things/{name}{pictures[name].suffix}", pictures[name].read_bytes()


def _copies(people: list[File], pictures: dict[str, Path]) -> Iterator[File]:
    """What circulates: exact copies, re-encodings, resizes, borders, crops, flips, brightness."""
    photos = [content for _, content in people[: len(people) // 2]]
    for i, content in enumerate(photos[::6]):
        yield f"reposts/exact_{i}.jpg", content
    first, second, third, eighth = (_open(photos[i % len(photos)]) for i in (0, 1, 2, 7))
    yield "reposts/low_quality.jpg", _jpeg(first, 35)
    yield "reposts/half.png", _png(ImageOps.scale(second, 0.5))
    yield "reposts/reencoded.webp", _webp(eighth, 60)
    yield "reposts/border.jpg", _jpeg(ImageOps.expand(eighth, 40, "white"), 88)
    yield "reposts/cropped.jpg", _jpeg(ImageOps.crop(first, 24), 88)
    yield "reposts/flipped.jpg", _jpeg(ImageOps.mirror(second), 88)
    yield "reposts/brighter.jpg", _jpeg(ImageEnhance.Brightness(third).enhance(1.2), 88)
    scene = _source(pictures["china"]) if "china" in pictures else _open(photos[-1])
    yield "reposts/scene_small.jpg", _jpeg(ImageOps.scale(scene, 0.6), 70)


def _drawn(people: list[File], seed: int) -> Iterator[File]:
    """Illustrations, charts, screenshots, and photos with words over them."""
    rng = random.Random(f"{seed}/drawn")
    yield "drawn/cartoon.png", _png(drawing.cartoon(rng))
    yield "drawn/cartoon_large.jpg", _jpeg(drawing.cartoon(rng, 900), 90)
    yield "drawn/chart.png", _png(drawing.chart(rng))
    yield "drawn/chart.webp", _webp(drawing.chart(rng, (640, 480)), 80)
    yield "drawn/screenshot.png", _png(drawing.screenshot())
    for i, (top, bottom) in enumerate(_WORDS):
        photo = _open(people[(i * 11 + 3) % len(people)][1])
        yield f"drawn/caption_{i}.jpg", _jpeg(drawing.captioned(photo, top, bottom), 88)


def _formats(people: list[File]) -> Iterator[File]:
    """Whole pictures in forms that trip decoders: EXIF rotations, CMYK, palettes, 16 bits, wrong extensions."""
    takes = [content for _, content in people[len(people) // 2 :]]

    def photo(index: int) -> Image.Image:
        return ImageOps.crop(_open(takes[index % len(takes)]), 30)

    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    for i, (orientation, turn) in enumerate(turns.items()):
        exif = Image.Exif()
        exif[274] = orientation
        yield f"formats/exif_{orientation}.jpg", _jpeg(photo(i * 5).transpose(turn), 88, exif=exif)
    yield "formats/cmyk.jpg", _jpeg(photo(-1).convert("CMYK"), 88)
    yield "formats/palette.png", _png(photo(-2).quantize(256, method=Image.Quantize.FASTOCTREE))
    yield "formats/sixteen_bit.png", _png(_sixteen_bit(photo(-3)))
    yield "formats/progressive.jpg", _jpeg(photo(-4), 85, progressive=True)
    yield "formats/png_named.jpg", _png(photo(-5))
    yield "formats/webp_named.png", _webp(photo(-6), 85)


def _broken(people: list[File], seed: int) -> Iterator[File]:
    """Files that must end as rejects, each for its own reason."""
    content = people[3][1]
    photo = _open(content)
    png = _png(photo)
    yield "broken/truncated_40.jpg", content[: len(content) * 2 // 5]
    yield "broken/truncated_95.jpg", content[: len(content) * 19 // 20]
    yield "broken/truncated.png", png[: len(png) // 2]
    yield "broken/noise_inside.jpg", _noisy(content, seed)
    yield "broken/bomb.png", drawing.png_bomb()
    yield "broken/animated.gif", drawing.animation([photo, ImageOps.mirror(photo), ImageOps.invert(photo)])
    yield "broken/text.jpg", b"<html><body>404 Not Found</body></html>\n"
    yield "broken/empty.jpg", b""
    yield "broken/header_zeroed.jpg", bytes(64) + content[64:]
    yield "broken/thumbnail.jpg", _jpeg(ImageOps.fit(photo, (96, 96)), 80)
    yield "broken/banner.jpg", _jpeg(ImageOps.fit(photo, (1600, 240)), 80)


def _noisy(content: bytes, seed: int) -> bytes:
    """Random bytes over the middle of the compressed data."""
    middle = len(content) // 2
    return content[:middle] + random.Random(f"{seed}/noise").randbytes(400) + content[middle + 400 :]


def _sixteen_bit(photo: Image.Image) -> Image.Image:
    grey = ImageOps.grayscale(photo)
    return grey.convert("I").point(lambda v: v * 257).convert("I;16")


# --- pictures and bytes ----------------------------------------------------------------------------------------------


@cache
def _source(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _open(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def _jpeg(picture: Image.Image, quality: int, **options: object) -> bytes:
    return _encode(picture, "JPEG", quality=quality, **options)


def _png(picture: Image.Image) -> bytes:
    return _encode(picture, "PNG", compress_level=3)


def _webp(picture: Image.Image, quality: int) -> bytes:
    return _encode(picture, "WEBP", quality=quality, method=2)


def _encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
