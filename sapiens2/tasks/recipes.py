"""Recipes: each a function that returns a config, its header saying what to expect and what it costs."""

from __future__ import annotations

from sapiens2.engine.config import EngineConfig
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.head_specs import TaskName


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
    labels 0.47), mIoU 0.09 (0.04), normals 33 degrees (36.5), scaled point error 0.07 (0.16), albedo error 0.10 (0.20).
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
