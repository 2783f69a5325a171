"""Recipes: each a function that returns a config, its header saying what to expect and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sapiens2.engine.config import EngineConfig, recipe_of
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.head_specs import TASKS, Source, TaskName


def micro(task: TaskName = "pose") -> FinetuneConfig:
    """Two steps that prove the whole path, and learn nothing."""
    return FinetuneConfig(
        task=task,
        size="tiny",
        engine=EngineConfig(steps=2, lr=5e-4, min_lr=0.0, warmup_steps=1, checkpoint_every=2, log_every=1),
        image_size=(64, 48),
        batch=2,
        scenes=4,
    )


# Peak rates found on one core: the logits' gain makes segmentation's steps larger.
_DEMO_RATE: dict[str, float] = {"pose": 5e-3, "segmentation": 2e-3, "normal": 7e-3, "pointmap": 5e-3, "albedo": 5e-3}


def demo(task: TaskName = "pose") -> FinetuneConfig:
    """About twenty seconds on one core, after four for the scenes, which all tasks share.

    Measured with 150 steps, on held-out scenes and from random weights: PCK@0.1 of the body 0.5 (mean of the training
    labels 0.47), mIoU 0.09 (0.04), normals 33 degrees (36.5), scaled point error 0.07 (0.16).
    Albedo was not measured since its head changed.
    """
    return FinetuneConfig(
        task=task,
        size="tiny",
        engine=EngineConfig(
            steps=120,
            lr=_DEMO_RATE[task],
            min_lr=0.0,
            warmup_steps=8,
            schedule="poly",
            betas=(0.9, 0.98),
            weight_decay=0.05,
            clip_norm=4.0,
            checkpoint_every=60,
            log_every=5,
        ),
        image_size=(128, 96),
        batch=4,
        scenes=256,
        class_weights="root",
        layer_decay=0.8,
    )


@dataclass(frozen=True)
class Row:
    """One size in the table of published settings (specification 4); five numbers are in the order of TASKS."""

    layer_decay: float
    lr: tuple[float, float, float, float, float]
    clip: tuple[float, float, float, float, float]
    steps: tuple[int, int, int, int, int]
    batch_per_gpu: tuple[int, int, int, int, int]


_LR = (5e-4,) * 5
_LR_5B = (1e-4, 5e-4, 1e-4, 1e-4, 5e-4)
# pose, segmentation, normal, pointmap, albedo
PUBLISHED: dict[str, Row] = {
    "0.4b": Row(0.80, _LR, (2, 2, 2, 2, 2), (10_000, 20_000, 20_000, 20_000, 20_000), (6, 12, 20, 8, 20)),
    "0.8b": Row(0.85, _LR, (4, 4, 4, 2, 4), (10_000, 30_000, 10_000, 20_000, 20_000), (12, 5, 12, 6, 12)),
    "1b": Row(0.90, _LR, (4, 4, 4, 4, 4), (20_000, 20_000, 40_000, 40_000, 40_000), (7, 8, 7, 3, 7)),
    "5b": Row(
        0.94, (1e-4, 5e-4, 1e-4, 1e-4, 5e-4), (4,) * 5, (20_000, 50_000, 40_000, 40_000, 40_000), (2, 2, 3, 1, 3)
    ),
}
# Ours: no such model is published.
PUBLISHED["0.1b"] = Row(0.75, _LR, (2, 2, 2, 2, 2), (10_000, 20_000, 20_000, 20_000, 20_000), (16, 24, 32, 24, 32))
GPUS = 8
"""GPUs of one node: what turns the published batch per GPU into a batch."""
PAPER_POSE_CLIP = 1.0


def published(task: TaskName, size: str, source: Source = "release") -> FinetuneConfig:
    """The published settings of a task and size, on one node of eight GPUs; raises ValueError for another size.

    release: the released configurations: 500 steps of warm-up, a straight line to zero, weight decay 0.1, pointmap in
    fp32 and the rest in bf16. paper: cosine decay, its losses, head and scale, and pose clipped at 1. Steps and batches
    are for about a million labelled pictures: on fewer, lower `engine.steps` first. Not run here: the smallest of them
    takes a node for a day.
    """
    if size not in PUBLISHED:
        raise ValueError(f"no recipe is published for size {size!r}: use one of {', '.join(sorted(PUBLISHED))}")
    row, k = PUBLISHED[size], TASKS.index(task)
    paper = source == "paper"
    fp32 = task == "pointmap" or (task, size) == ("segmentation", "0.8b")
    return FinetuneConfig(
        task=task,
        size=size,  # type: ignore[arg-type]
        engine=EngineConfig(
            steps=row.steps[k],
            lr=row.lr[k],
            min_lr=0.0,
            warmup_steps=500,
            schedule="cosine" if paper else "poly",
            betas=(0.9, 0.999),
            weight_decay=0.1,
            clip_norm=PAPER_POSE_CLIP if paper and task == "pose" else row.clip[k],
            precision="fp32" if fp32 else "bf16",
            checkpoint_every=1000,
        ),
        batch=GPUS * row.batch_per_gpu[k],
        layer_decay=row.layer_decay,
        augmentation="release",
        losses=source,
        head=source,
        scale=source,
    )


def named_fields(task: str, name: str) -> dict[str, Any]:
    """Recipe fields of `SIZE`, `SIZE:release` or `SIZE:paper` under dotted names, as settings take them.

    Raises ValueError for an unknown task, size or source.
    """
    size, _, source = name.partition(":")
    if task not in TASKS:
        raise ValueError(f"there is no task called {task!r}; use one of {', '.join(TASKS)}")
    if source not in ("", "release", "paper"):
        raise ValueError(f"recipe {name!r} is of no known source: write {size}:release or {size}:paper")
    fields = recipe_of(published(task, size, "paper" if source == "paper" else "release"))
    engine = fields.pop("engine")
    return fields | {f"engine.{key}": value for key, value in engine.items()}


_LEARN_STEPS: dict[str, int] = {"pose": 700, "segmentation": 4000, "normal": 2000, "pointmap": 300, "albedo": 900}
_LEARN_RATE: dict[str, float] = {"segmentation": 1e-2}


def learn(task: TaskName = "pose") -> FinetuneConfig:
    """What benchmarks/tasks_learn.py trains: a tiny model, 128 x 96 pixels, on 4096 scenes.

    Steps follow need: all five together, from scratch, take about half an hour of two cores. What is unlike the demo
    was found at equal time (results/tasks_learn.md): small batches, a backbone that is trained at every fourth step,
    Muon for the two tasks that need most steps, for segmentation the same rate in every block.
    """
    base = demo(task)
    changes: dict[str, Any] = {"steps": _LEARN_STEPS[task], "warmup_steps": 30, "checkpoint_every": 600}
    changes |= {"log_every": 100, "lr": _LEARN_RATE.get(task, base.engine.lr)}
    if task in ("segmentation", "normal"):
        changes["optimizer"] = "muon"
    fields = {"engine": base.engine.model_copy(update=changes), "batch": 4, "scenes": 4096, "backbone_every": 4}
    if task == "segmentation":
        fields["layer_decay"] = 1.0  # from random weights the lower blocks have as much to learn
    return base.model_copy(update=fields)
