"""Encoded pictures to six pretraining views on one core, beside a plain Pillow pipeline.

    python benchmarks/views.py [--images 12] [--rounds 5] [--workers 2]

JPEGs of 3.1 to 4.9 megapixels are made from installed photographs, so it runs anywhere. Both sides decode, cut the same
six crops (2 of 1024 x 768, 4 of 512 x 384; share and aspect drawn by `views.draw_crops`) and give uint8 arrays.
Ours: `Preparation`, what a training process or loader worker runs, with masks and photometric draws besides.
Peer: PIL.Image.open, and resize with bicubic filter (antialiased), mirror, to numpy: a RandomResizedCrop by hand.
Peer with draft: the same, Pillow asked to decode at a reduced size where our decoder is. Rounds alternate between the
sides; medians count, in processor time of one thread. `--workers` also measures whole batches through worker processes.
Prints a table; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from decode_hash import photographs
from PIL import Image

from sapiens2.data.shards import Row
from sapiens2.engine.feeder import Feeder
from sapiens2.engine.world import World
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.keyed import Stream, generator
from sapiens2.pretrain.preparation import Preparation, reduction
from sapiens2.pretrain.recipes import paper
from sapiens2.pretrain.source import PretrainSource
from sapiens2.pretrain.views import GLOBAL_VIEWS, draw_crops

SIZES = {"3.1 MP": (1536, 2048), "4.0 MP": (2304, 1728), "4.9 MP": (1920, 2560)}  # width, height
TARGET_PER_CORE, TARGET_RATIO = 11.0, 2.0
CONFIG = paper("1b").model_copy(update={"batch": 8})
Way = Callable[[list[Row]], list[np.ndarray]]


def rows(size: tuple[int, int], count: int) -> list[Row]:
    return [Row(f"{i:032x}", data, *size) for i, data in enumerate(photographs(size, count))]


def ours(pictures: list[Row]) -> list[np.ndarray]:
    made = Preparation(CONFIG)(list(enumerate(pictures)))
    assert not made.holes
    return [*made.batch["globals"].flatten(0, 1).numpy(), *made.batch["locals"].flatten(0, 1).numpy()]


def pillow(pictures: list[Row], *, draft: bool = False) -> list[np.ndarray]:
    """In the order of `ours`: all global views, then all local ones."""
    views: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    sizes = [CONFIG.image_size] * GLOBAL_VIEWS + [CONFIG.local_size] * CONFIG.local_views
    for index, row in enumerate(pictures):
        picture = Image.open(io.BytesIO(row.data))
        if draft:
            factor = reduction(row, CONFIG)
            picture.draft("RGB", (row.width // factor, row.height // factor))
        picture = picture.convert("RGB")
        crops = draw_crops(generator(CONFIG.engine.seed, Stream.VIEWS, index), picture.height, picture.width, CONFIG)
        for number, (crop, (height, width)) in enumerate(zip(crops, sizes)):
            box = (crop.x, crop.y, crop.x + crop.width, crop.y + crop.height)
            view = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
            if crop.mirrored:
                view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            views[number >= GLOBAL_VIEWS].append(np.asarray(view))
    return [*views[0], *views[1]]


def pillow_draft(pictures: list[Row]) -> list[np.ndarray]:
    return pillow(pictures, draft=True)


WAYS: dict[str, Way] = {"ours": ours, "Pillow": pillow, "Pillow draft": pillow_draft}


def rates(pictures: list[Row], rounds: int) -> dict[str, float]:
    """Images per second of processor time, the median round of each way; the ways take turns."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            began = time.process_time()
            way(pictures)
            seconds[name].append(time.process_time() - began)
    return {name: round(len(pictures) / statistics.median(s), 2) for name, s in seconds.items()}


def through_workers(pictures: list[Row], workers: int, steps: int) -> float:
    """Images per second of wall time through `workers` loader processes, after the first step."""
    table = [{"image_id": r.image_id, "bytes": r.data, "width": r.width, "height": r.height} for r in pictures]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "shard.parquet"
        pq.write_table(pa.Table.from_pylist(table), file)
        source = PretrainSource([str(file)], PretrainConfig(**CONFIG.model_dump()))
        world = World(0, 1, torch.device("cpu"))
        with Feeder(source, world, micro_batches=1, prefetch=1, first=0, last=steps + 1, workers=workers) as feeder:
            feeder.next()
            began = time.perf_counter()
            for _ in range(steps):
                feeder.next()
            return round(steps * CONFIG.batch / (time.perf_counter() - began), 2)


def apart(pictures: list[Row]) -> float:
    """Mean difference of our views and Pillow's, grey levels: both show the same crops."""
    pairs = zip(ours(pictures), pillow(pictures), strict=True)
    return float(np.mean([np.abs(a.astype(int) - b.astype(int)).mean() for a, b in pairs]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=12, help="pictures of each size")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--workers", type=int, default=0, help="also measure this many loader processes")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    differences = []
    for name, size in SIZES.items():
        pictures = rows(size, options.images)
        differences.append(apart(pictures[:4]))
        found[name] = rates(pictures, options.rounds)
    print("images per second of one core".ljust(32) + "".join(name.rjust(10) for name in SIZES))
    for way in WAYS:
        print(way.ljust(32) + "".join(f"{found[name][way]:10.1f}" for name in SIZES))
    ratios = {name: round(by["ours"] / by["Pillow"], 2) for name, by in found.items()}
    print("ours / Pillow".ljust(32) + "".join(f"{value:9.2f}x" for value in ratios.values()))
    print(f"mean difference of the views from Pillow's: {np.mean(differences):.2f} grey levels")
    result: dict[str, object] = {
        "benchmark": "views",
        "images_per_second_per_core": found,
        "ratio_to_pillow": ratios,
        "mean_difference_grey_levels": round(float(np.mean(differences)), 2),
        "meets": min(by["ours"] for by in found.values()) >= TARGET_PER_CORE and min(ratios.values()) >= TARGET_RATIO,
        "versions": {name: version(name) for name in ("pillow", "opencv-python-headless", "numpy")},
        "machine": platform.processor() or platform.machine(),
    }
    if options.workers:
        rate = through_workers(rows(SIZES["4.0 MP"], CONFIG.batch), options.workers, 6)
        print(f"through {options.workers} loader processes, 4.0 MP: {rate} images per second of wall time")
        result["through_workers"] = {"workers": options.workers, "images_per_second": rate}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
