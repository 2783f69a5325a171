"""Header, decode and hash of JPEGs on one core, beside Pillow + imagehash.

    python benchmarks/decode_hash.py [--images 24] [--repeats 3]

JPEGs of 0.3 to 4.9 megapixels are made from installed photographs (see pipelines.sample_sources), so it runs anywhere.
Ours: header gate, canonical grey decode (which proves the file whole), 32x32 picture, hash, mirror hash and quality.
Peer: PIL.Image.open + imagehash.phash, one picture at a time, as its documentation has it; and the same with Pillow's
own reduced decode (`draft`). Prints a table; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version

import imagehash
import numpy as np
from PIL import Image, ImageOps

from curation.images import Header, Reject, decode, phash, read_header
from curation.images.decode import decode_grey
from pipelines.sample_sources import find_pictures

SIZES = {"0.3 MP": (640, 480), "1.5 MP": (1440, 1080), "2.8 MP": (1920, 1440), "4.9 MP": (2560, 1920)}
PHOTOGRAPHS = ("astronaut", "bus", "chelsea", "china", "coffee", "flower", "hopper", "motorcycle", "rocket", "zidane")


def photographs(size: tuple[int, int], count: int) -> list[bytes]:
    """`count` JPEGs of exactly `size`: crops of the photographs, with grain so that they compress like photos."""
    found = [Image.open(path).convert("RGB") for name, path in find_pictures().items() if name in PHOTOGRAPHS]
    rng = np.random.default_rng(0)
    files = []
    for i in range(count):
        picture = ImageOps.fit(found[i % len(found)], size, centering=(0.2 + 0.1 * (i % 7), 0.4))
        grain = rng.normal(0, 5, (size[1], size[0], 1))
        pixels = np.clip(np.asarray(picture, np.float32) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
        files.append(buffer.getvalue())
    return files


def header_of(data: bytes) -> Header:
    header = read_header(data)
    assert not isinstance(header, Reject)
    return header


def ours(files: list[bytes]) -> list[int]:
    greys = []
    for data in files:
        grey = decode_grey(data, header_of(data), min_side=phash.MIN_SIDE_PX)
        assert not isinstance(grey, Reject)
        greys.append(phash.thumbnail(grey))
    return [int(code) for code in phash.hashes(np.stack(greys))[0]]


def peer(files: list[bytes]) -> list[int]:
    return [int(str(imagehash.phash(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))), 16) for data in files]


def peer_draft(files: list[bytes]) -> list[int]:
    codes = []
    for data in files:
        picture = Image.open(io.BytesIO(data))
        picture.draft("L", (phash.MIN_SIDE_PX, phash.MIN_SIDE_PX))
        codes.append(int(str(imagehash.phash(picture)), 16))
    return codes


def header_only(files: list[bytes]) -> list[int]:
    return [header_of(data).width for data in files]


def pillow_header(files: list[bytes]) -> list[int]:
    return [Image.open(io.BytesIO(data)).width for data in files]


def decode_640(files: list[bytes]) -> list[int]:
    images = [decode(data, min_side=640) for data in files]
    return [0 if isinstance(image, Reject) else image.width for image in images]


def pillow_rgb(files: list[bytes]) -> list[int]:
    return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).shape[1] for data in files]


WAYS: dict[str, Callable[[list[bytes]], list[int]]] = {
    "ours: decode + hash": ours,
    "Pillow + imagehash": peer,
    "Pillow draft + imagehash": peer_draft,
    "ours: decode >= 640 px": decode_640,
    "Pillow full RGB": pillow_rgb,
    "ours: header": header_only,
    "Pillow: open": pillow_header,
}


def rate(way: Callable[[list[bytes]], list[int]], files: list[bytes], repeats: int) -> float:
    """Images per second of processor time: the best of `repeats`, so that a busy machine counts less."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        way(files)
        best = min(best, time.process_time() - start)
    return len(files) / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=24, help="pictures of each size")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many passes counts")
    options = parser.parse_args()
    rates: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    apart = []
    for name, size in SIZES.items():
        files = photographs(size, options.images)
        apart += [(a ^ b).bit_count() for a, b in zip(ours(files), peer(files), strict=True)]
        for label, way in WAYS.items():
            rates[label][name] = round(rate(way, files, options.repeats), 1)
    print("images per second of one core".ljust(30) + "".join(name.rjust(12) for name in SIZES))
    for label, by_size in rates.items():
        print(label.ljust(30) + "".join(f"{value:12,.1f}" for value in by_size.values()))
    speedup = {s: round(rates["ours: decode + hash"][s] / rates["Pillow + imagehash"][s], 2) for s in SIZES}
    print("ours / Pillow + imagehash".ljust(30) + "".join(f"{value:11.2f}x" for value in speedup.values()))
    print(f"bits between our hash and imagehash of the full picture: mean {np.mean(apart):.2f}, max {max(apart)}")
    result = {
        "benchmark": "decode_hash",
        "images_per_second": rates,
        "speedup_over_pillow_imagehash": speedup,
        "bits_from_imagehash": {"mean": round(float(np.mean(apart)), 3), "max": max(apart)},
        "versions": {name: version(name) for name in ("pillow", "simplejpeg", "imagehash", "numpy")},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
