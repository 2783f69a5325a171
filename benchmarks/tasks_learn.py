"""Do tiny task models learn from synthetic people what holds for people they have never seen the like of?

Each task is fine-tuned twice, from scratch and (with --checkpoint) from a pretrained tiny backbone, and measured on
scenes whose poses, patterns and backgrounds no training scene has, beside two answers that learn nothing: the mean of
the training labels at every pixel, and the labels of the training picture that looks most alike. Scenes are rendered
once; what is done stays in --out, so that the same command goes on where it was stopped.

    python benchmarks/tasks_learn.py --out /tmp/tasks_learn [--checkpoint tiny.safetensors]
    python benchmarks/tasks_learn.py --out /tmp/two --tasks normal,pose --steps 250 --scenes 512 --test 64   # 5 minutes

Prints a table, and as its last line one JSON object. Exit code 1 if a task misses a goal.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sapiens2.evaluation.baselines import label_answer, mean_map, retrieved, thumbnails
from sapiens2.evaluation.headline import Headline, headline
from sapiens2.evaluation.measure import MAIN
from sapiens2.evaluation.run import answer, load_scenes
from sapiens2.model.backbone import build_backbone
from sapiens2.model.weights import save_weights
from sapiens2.tasks import recipes
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.run import finetune, published
from sapiens2.tasks.sample import Sample

GAIN = 0.30  # share of a baseline's error that must go
GOALS = {"pose": 0.60, "segmentation": 0.45, "normal": 25.0, "pointmap": 0.12, "albedo": 0.08}
ROUNDS = 1000
Array = np.ndarray


def settings(task: str, options: argparse.Namespace) -> FinetuneConfig:
    """The recipe `learn`, as far as the options do not change it."""
    config = recipes.learn(task)  # type: ignore[arg-type]
    engine = config.engine.model_copy(update={"steps": options.steps or config.engine.steps, "seed": options.seed})
    scenes = options.scenes or config.scenes
    return config.model_copy(update={"engine": engine, "scenes": scenes, "workers": 0})


def starts(options: argparse.Namespace) -> dict[str, str]:
    """The weights that training starts from, by the name of the arm."""
    scratch = Path(options.out) / "scratch.safetensors"
    if not scratch.exists():
        torch.manual_seed(options.seed)
        save_weights(build_backbone("tiny"), scratch)
    return {"scratch": str(scratch)} | ({"checkpoint": options.checkpoint} if options.checkpoint else {})


def trained(task: str, arm: str, backbone: str, options: argparse.Namespace) -> tuple[FinetuneConfig, str, float]:
    """The folder of a finished run, trained now where it is not there, and the seconds that it took."""
    config, folder = settings(task, options), Path(options.out) / f"{task}-{arm}"
    out = folder / "out"
    if not (out / "metrics.json").exists():
        finetune(config, backbone=backbone, out=str(out), state=str(folder / "state"))
    metrics = json.loads((out / "metrics.json").read_text())
    return config, str(out), metrics["seconds"]


def gain(ours: Headline, base: Headline, task: str, rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Share of a baseline's error that is gone, with its 95 % interval over resampled test scenes."""

    def share(index: Array) -> float:
        a, b = ours.value(index), base.value(index)
        return 1 - (1 - a) / (1 - b) if MAIN[task][1] else 1 - a / b

    count = len(ours.sums)
    rng = np.random.default_rng(0)
    drawn = [share(rng.integers(0, count, count)) for _ in range(rounds)]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return share(np.arange(count)), float(low), float(high)


def measured(task: str, options: argparse.Namespace, fitted: list[Sample], tests: list[Sample]) -> list[dict[str, Any]]:
    """A row for each arm of a task."""
    everything = np.arange(len(tests))
    nearest = retrieved(thumbnails(tests), thumbnails(fitted))
    bases = {
        "mean map": headline(task, [mean_map(task, fitted)] * len(tests), tests),
        "retrieval": headline(task, [label_answer(task, fitted[k]) for k in nearest], tests),
    }
    rows = []
    for arm, backbone in starts(options).items():
        config, folder, seconds = trained(task, arm, backbone, options)
        ours = headline(task, answer(published(config, folder), tests, 16), tests)
        value, more_is_better = ours.value(everything), MAIN[task][1]
        row: dict[str, Any] = {"task": task, "arm": arm, "metric": MAIN[task][0], "value": value, "seconds": seconds}
        row |= {name: base.value(everything) for name, base in bases.items()}
        row["gains"] = {name: gain(ours, base, task) for name, base in bases.items()}
        row["goal"] = GOALS[task]
        row["goal met"] = value >= GOALS[task] if more_is_better else value <= GOALS[task]
        row["gains met"] = all(found[0] >= GAIN for found in row["gains"].values())
        rows.append(row)
        print(line(row), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    gains = row["gains"].values()
    shares = "".join(f"{100 * g:7.0f} % ({100 * low:3.0f} to {100 * high:3.0f})" for g, low, high in gains)
    met = ("met" if row[name] else "missed" for name in ("goal met", "gains met"))
    values = "".join(f"{row[name]:10.3f}" for name in ("value", "mean map", "retrieval"))
    head = f"{row['task']:<13}{row['arm']:<11}{row['metric']:<15}"
    return f"{head}{values}{shares}{row['goal']:7.2f}{next(met):>7}{next(met):>8}{row['seconds']:7.0f} s"


def main() -> int:
    """Run the benchmark; 0 when every goal is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of everything that is made")
    parser.add_argument("--checkpoint", help="weights of a pretrained tiny backbone, for the second arm")
    parser.add_argument("--tasks", default=",".join(TASKS), help="which of the five")
    parser.add_argument("--steps", type=int, help="optimiser steps of each run")
    parser.add_argument("--scenes", type=int, help="training scenes")
    parser.add_argument("--test", type=int, default=192, help="held-out scenes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.perf_counter()
    os.environ["SAPIENS2_CACHE"] = os.environ.get("SAPIENS2_CACHE") or str(Path(options.out).absolute() / "cache")
    Path(options.out).mkdir(parents=True, exist_ok=True)
    folder = Path(os.environ["SAPIENS2_CACHE"]) / "scenes"
    chosen = settings("pose", options)
    fitted = load_scenes(chosen.scenes, chosen.image_size, "train", chosen.scene_seed, folder)
    tests = load_scenes(options.test, chosen.image_size, "test", 0, folder)
    print(f"{len(fitted)} training and {len(tests)} held-out scenes ready after {time.perf_counter() - began:.0f} s")
    print(f"{'task':<13}{'from':<11}{'metric':<15}{'model':>10}{'mean map':>10}{'retrieval':>10}"
          f"{'less error than mean':>22}{'than retrieval':>22}{'goal':>7}{'':>7}{'gains':>8}")  # fmt: skip
    rows = [row for task in options.tasks.split(",") for row in measured(task, options, fitted, tests)]
    best = {task: [r for r in rows if r["task"] == task] for task in options.tasks.split(",")}
    met = all(any(r["goal met"] and r["gains met"] for r in found) for found in best.values())
    seconds = round(time.perf_counter() - began, 1)
    told = {"benchmark": "tasks_learn", "met": met, "seconds": seconds, "scenes": len(fitted), "test": len(tests)}
    print(json.dumps(told | {"steps": chosen.engine.steps, "seed": options.seed, "rows": _finite(rows)}))
    return 0 if met else 1


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
