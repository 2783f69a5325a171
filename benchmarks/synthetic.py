"""How many labelled people a core renders in a second, beside reading them back and beside bodies of another make.

A picture comes with its 308 keypoints, classes, normals, points and albedo. One process on one thread; its own
processor time counts, which other programs disturb least. Each row is the median of rounds, in which the rows take
turns; who reads back opens the store anew each time.

    python benchmarks/synthetic.py [--image-size 256 192] [--scenes 48] [--rounds 7] [--makehuman FOLDER]

Prints a table, and as its last line one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from sapiens2.data.makehuman import Bodies
from sapiens2.data.synthetic import Scene, render
from sapiens2.data.synthetic.store import SceneStore

GOAL = 20.0
"""Pictures a second and core at 256 x 192."""


def rows(options: argparse.Namespace, folder: Path) -> dict[str, Callable[[], object]]:
    """What makes all pictures once, by name."""
    height, width = options.image_size
    count = options.scenes

    def stored() -> list[Scene]:
        store = SceneStore(count, height, width, "train", 0, folder=folder)
        return [store.scene(number) for number in range(count)]

    stored()
    found: dict[str, Callable[[], object]] = {
        "rendered": lambda: [render(number, height, width) for number in range(count)],
        "read back": stored,
    }
    if options.makehuman:
        bodies = Bodies(options.makehuman)
        found["MakeHuman bodies"] = lambda: [bodies.render(number, height, width, "test") for number in range(count)]
    return found


def main() -> None:
    """Times, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, nargs=2, default=(256, 192), help="height and width, pixels")
    parser.add_argument("--scenes", type=int, default=48, help="pictures of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--makehuman", help="folder of MakeHuman's data, for a row of its bodies")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="synthetic-") as folder:
        makers = rows(options, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(options.rounds):
            for name, make in makers.items():
                began = time.process_time()
                make()
                seconds[name].append((time.process_time() - began) / options.scenes)
    print(f"{'':>17} {'ms each':>9} {'a second':>9}   slowest and fastest round")
    told = {}
    for name, each in seconds.items():
        middle = statistics.median(each)
        told[name] = {"ms": round(1000 * middle, 2), "per_second": round(1 / middle, 2)}
        print(f"{name:>17} {1000 * middle:9.1f} {1 / middle:9.1f}   {1 / max(each):.1f} to {1 / min(each):.1f}")
    told |= {"image_size": list(options.image_size), "goal": GOAL, "met": told["rendered"]["per_second"] >= GOAL}
    print(json.dumps({"benchmark": "synthetic", **told}))


if __name__ == "__main__":
    main()
