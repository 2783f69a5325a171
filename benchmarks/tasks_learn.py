"""Do tiny task models learn from synthetic people what holds for people they have never seen the like of?

Each task is fine-tuned twice, from scratch and (with --checkpoint) from a pretrained backbone, and measured on scenes
whose poses, patterns and backgrounds no training scene has, beside two answers that learn nothing: the mean of the
training labels at every pixel, and the labels of the training picture that looks most alike. With --makehuman the same
models are also measured on bodies of another make. Scenes are rendered once; what is done stays in --out, so that the
same command goes on where it was stopped. With --jobs 2 two trainings run at a time, each on one core.

Answers are those of the flip test, and the arithmetic is fp32 or bf16, whichever is faster on this machine. With
--minutes that is found for each task, and the steps of all recipes are multiplied by one factor, so that the whole
takes about so long.

A checkpoint of the nano backbone (benchmarks/learning.py makes one) becomes a tiny one exactly: its patches of 8 pixels
are spread over 16, so that it says of a picture what nano says of the picture at half the size.

    python benchmarks/tasks_learn.py --out /tmp/tasks_learn [--checkpoint nano.safetensors] [--makehuman FOLDER]
    python benchmarks/tasks_learn.py --out /tmp/tasks_learn --checkpoint nano.safetensors --minutes 30 --jobs 2
    python benchmarks/tasks_learn.py --out /tmp/pretrained --checkpoint nano.safetensors --arm checkpoint --minutes 30
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
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tasks_pace import pace

from sapiens2.data.makehuman import Bodies
from sapiens2.data.synthetic.store import BLOCK, SceneStore
from sapiens2.engine.arithmetic import faster
from sapiens2.evaluation.baselines import label_answer, mean_map, retrieved, thumbnails
from sapiens2.evaluation.headline import Headline, headline
from sapiens2.evaluation.measure import MAIN
from sapiens2.evaluation.run import answer, load_scenes
from sapiens2.model.backbone import build_backbone
from sapiens2.model.block import LayerScale
from sapiens2.model.patches import with_patches
from sapiens2.model.sizes import architecture
from sapiens2.model.weights import save_weights
from sapiens2.tasks import recipes
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.run import finetune, published
from sapiens2.tasks.sample import Sample, from_scene

GAIN = 0.30  # share of a baseline's error that must go
GOALS = {"pose": 0.60, "segmentation": 0.45, "normal": 25.0, "pointmap": 0.12, "albedo": 0.08}
ROUNDS = 1000
TESTS_S = 90.0
"""What rendering and reading the test scenes and comparing answers takes, of one core."""
BODIES = 96
"""MakeHuman bodies that are tested on."""
Array = np.ndarray


def settings(task: str, options: argparse.Namespace) -> FinetuneConfig:
    """The recipe `learn`, as far as the options do not change it."""
    config = recipes.learn(task)  # type: ignore[arg-type]
    steps = options.steps or max(config.engine.warmup_steps + 1, round(config.engine.steps * options.plan["factor"]))
    arithmetic = options.plan["arithmetic"].get(task, "fp32")
    changes = {"steps": steps, "precision": arithmetic, "seed": options.seed, "threads": 1}
    engine = config.engine.model_copy(update=changes)
    scenes = options.scenes or config.scenes
    return config.model_copy(update={"engine": engine, "scenes": scenes, "workers": 0})


def planned(options: argparse.Namespace, began: float) -> dict[str, Any]:
    """The arithmetic, and the factor on the recipes' steps; kept in --out, for a run that goes on to be the same."""
    file = Path(options.out) / "plan.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    tasks, plan = options.tasks.split(","), dict(options.plan)
    if options.minutes:
        chosen = [settings(task, options) for task in tasks]
        left = 60 * options.minutes - (time.perf_counter() - began) - TESTS_S
        plan |= pace(chosen, len(starts(options)), options.jobs, left)
    else:
        plan["arithmetic"] = dict.fromkeys(tasks, faster())
    file.write_text(json.dumps(plan))
    return plan


def starts(options: argparse.Namespace) -> dict[str, str]:
    """The weights that training starts from, by the name of the arm."""
    found = {"scratch": Path(options.out) / "scratch.safetensors"}
    if not found["scratch"].exists():
        torch.manual_seed(options.seed)
        backbone = build_backbone("tiny")
        for module in backbone.modules():
            # From 1e-4, the start of a long pretraining, attention would not come alive within these few steps.
            if isinstance(module, LayerScale):
                torch.nn.init.ones_(module.weight)
        save_weights(backbone, found["scratch"])
    if options.checkpoint:
        found["checkpoint"] = Path(options.out) / "checkpoint.safetensors"
        save_file(with_patches(load_file(options.checkpoint), architecture("tiny").patch), found["checkpoint"])
        if options.arm:
            found = {options.arm: found[options.arm]}
    return {arm: str(path) for arm, path in found.items()}


def trained(task: str, arm: str, backbone: str, options: argparse.Namespace) -> tuple[FinetuneConfig, str, float]:
    """The folder of a finished run, trained now where it is not there, and the processor seconds that it took."""
    config, folder = settings(task, options), Path(options.out) / f"{task}-{arm}"
    out = folder / "out"
    note, used = folder / "processor_seconds.json", time.process_time()
    if not (out / "metrics.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        before = json.loads(note.read_text()) if note.exists() else 0.0
        try:
            finetune(config, backbone=backbone, out=str(out), state=str(folder / "state"))
        finally:  # a run that is stopped goes on later
            note.write_text(json.dumps(before + time.process_time() - used))
    return config, str(out), json.loads(note.read_text())


def train_all(options: argparse.Namespace) -> None:
    """Every training that is not done, `--jobs` at a time in processes of their own, the longest first."""
    waiting = [(task, arm, path) for task in options.tasks.split(",") for arm, path in starts(options).items()]
    waiting.sort(key=lambda job: -settings(job[0], options).engine.steps)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(trained, *job, options) for job in waiting]:
            done.result()


def render_all(options: argparse.Namespace, chosen: FinetuneConfig, folder: Path) -> None:
    """The training scenes, `--jobs` parts at a time; they stay in the cache."""
    share = -(-chosen.scenes // options.jobs // BLOCK) * BLOCK
    starts_at = range(0, chosen.scenes, share)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        seeds = [chosen.scene_seed + first for first in starts_at]
        counts = [min(share, chosen.scenes - first) for first in starts_at]
        sizes, splits, folders = ([value] * len(seeds) for value in (chosen.image_size, "train", folder))
        list(pool.map(render_part, counts, sizes, splits, seeds, folders))


def render_part(count: int, size: tuple[int, int], split: str, seed: int, folder: Path) -> None:
    """Scenes from a seed on, into the cache."""
    store = SceneStore(count, *size, split, seed, folder=folder)
    for index in range(0, count, BLOCK):
        store.scene(index)


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


def measured(
    task: str, options: argparse.Namespace, fitted: list[Sample], tests: dict[str, list[Sample]]
) -> list[dict[str, Any]]:
    """A row for each arm of a task and each set of test scenes."""
    mean, known = mean_map(task, fitted), thumbnails(fitted)
    rows = []
    for arm, backbone in starts(options).items():
        config, folder, seconds = trained(task, arm, backbone, options)
        model = published(config, folder)
        for name, scenes in tests.items():
            nearest = retrieved(thumbnails(scenes), known)
            bases = {
                "mean map": headline(task, [mean] * len(scenes), scenes),
                "retrieval": headline(task, [label_answer(task, fitted[k]) for k in nearest], scenes),
            }
            row = {"task": task, "arm": arm, "on": name, "seconds": seconds, "steps": config.engine.steps}
            rows.append(row | compared(task, headline(task, answer(model, scenes, 16, flip=True), scenes), bases))
            print(line(rows[-1]), flush=True)
    return rows


def compared(task: str, ours: Headline, bases: dict[str, Headline]) -> dict[str, Any]:
    """A model's headline with its 95 % interval, beside answers that learn nothing, and the goals."""
    everything, more_is_better = np.arange(len(ours.sums)), MAIN[task][1]
    value = ours.value(everything)
    gains = {name: gain(ours, base, task) for name, base in bases.items()}
    return {
        "metric": MAIN[task][0],
        "value": value,
        "interval": interval(ours),
        **{name: base.value(everything) for name, base in bases.items()},
        "gains": gains,
        "goal": GOALS[task],
        "goal met": value >= GOALS[task] if more_is_better else value <= GOALS[task],
        "gains met": all(found[0] >= GAIN for found in gains.values()),
    }


def interval(ours: Headline) -> tuple[float, float]:
    """95 % interval of a metric over resampled test scenes."""
    rng, count = np.random.default_rng(0), len(ours.sums)
    drawn = [ours.value(rng.integers(0, count, count)) for _ in range(ROUNDS)]
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    gains = row["gains"].values()
    shares = "".join(f"{100 * g:7.0f} % ({100 * low:3.0f} to {100 * high:3.0f})" for g, low, high in gains)
    met = ["met" if row[name] else "missed" for name in ("goal met", "gains met")]
    low, high = row["interval"]
    value = f"{row['value']:9.3f} ({low:.3f} to {high:.3f})"
    bases = "".join(f"{row[name]:10.3f}" for name in ("mean map", "retrieval"))
    head = f"{row['task']:<13}{row['arm']:<11}{row['on']:<10}{row['metric']:<14}"
    return f"{head}{value}{bases}{shares}{row['goal']:7.2f}{met[0]:>7}{met[1]:>8}{row['seconds']:7.0f} s"


HEAD = (
    f"{'task':<13}{'from':<11}{'on':<10}{'metric':<14}{'model':>9} {'(95 %)':<16}{'mean map':>10}{'retrieval':>10}"
    f"{'less error than mean':>22}{'than retrieval':>22}{'goal':>7}{'':>7}{'gains':>8}{'training':>9} of processor"
)


def test_scenes(options: argparse.Namespace, size: tuple[int, int], folder: Path) -> dict[str, list[Sample]]:
    """Held-out scenes, and with --makehuman as many of other bodies, in the same poses and looks."""
    found = {"held out": load_scenes(options.test, size, "test", 0, folder)}
    if options.makehuman:
        bodies = Bodies(options.makehuman)
        count = min(options.test, BODIES)
        found["MakeHuman"] = [from_scene(bodies.render(seed, *size, "test")) for seed in range(count)]
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of everything that is made")
    parser.add_argument("--checkpoint", help="weights of a pretrained nano or tiny backbone, for the second arm")
    parser.add_argument("--arm", choices=("scratch", "checkpoint"), help="only this of --checkpoint's two")
    parser.add_argument("--makehuman", help="folder of MakeHuman's data, for test scenes of other bodies")
    parser.add_argument("--tasks", default=",".join(TASKS), help="which of the five")
    parser.add_argument("--steps", type=int, help="optimiser steps of each run")
    parser.add_argument("--minutes", type=float, help="lengthen or shorten all recipes to take so long altogether")
    parser.add_argument("--scenes", type=int, help="training scenes")
    parser.add_argument("--test", type=int, default=192, help="held-out scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, each on one core")
    options = parser.parse_args()
    if options.arm and not options.checkpoint:
        parser.error("--arm chooses of the two that --checkpoint makes; give that too")
    return options


def main() -> int:
    """Run the benchmark; 0 when every goal is met."""
    options = arguments()
    began, used = time.perf_counter(), time.process_time()
    os.environ["SAPIENS2_CACHE"] = os.environ.get("SAPIENS2_CACHE") or str(Path(options.out).absolute() / "cache")
    Path(options.out).mkdir(parents=True, exist_ok=True)
    folder = Path(os.environ["SAPIENS2_CACHE"]) / "scenes"
    options.plan = {"factor": 1.0, "arithmetic": {}}
    chosen = settings("pose", options)
    render_all(options, chosen, folder)
    options.plan = planned(options, began)
    if options.jobs > 1:
        train_all(options)
    fitted = load_scenes(chosen.scenes, chosen.image_size, "train", chosen.scene_seed, folder)
    tests = test_scenes(options, chosen.image_size, folder)
    counts = {name: len(scenes) for name, scenes in tests.items()}
    print(f"{len(fitted)} training scenes, tests {counts}, ready after {time.perf_counter() - began:.0f} s\n{HEAD}")
    rows = [row for task in options.tasks.split(",") for row in measured(task, options, fitted, tests)]
    ours = [row for row in rows if row["on"] == "held out"]
    reached = {row["task"] for row in ours if row["goal met"] and row["gains met"]}
    told = {"benchmark": "tasks_learn", "met": reached == set(options.tasks.split(",")), "scenes": len(fitted)}
    told |= {"tests": counts, "seed": options.seed, "seconds": round(time.perf_counter() - began, 1)}
    children = os.times()
    total = time.process_time() - used + children.children_user + children.children_system
    told |= {"processor seconds": round(total, 1), "jobs": options.jobs, "plan": options.plan}
    told |= {"training seconds": round(sum(row["seconds"] for row in ours), 1), "rows": _finite(rows)}
    print(json.dumps(told))
    return 0 if told["met"] else 1


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
