"""Recipes: each a function that returns a config, its header saying what to expect and what it costs."""

from __future__ import annotations

from sapiens2.engine.config import EngineConfig
from sapiens2.tasks.build import TaskName
from sapiens2.tasks.config import FinetuneConfig


def micro(task: TaskName = "pose") -> FinetuneConfig:
    """Two steps that prove the whole path, and learn nothing."""
    return FinetuneConfig(
        task=task,
        size="tiny",
        engine=EngineConfig(steps=2, lr=5e-4, min_lr=0.0, warmup_steps=1, checkpoint_every=1, log_every=1),
        image_size=(64, 48),
        batch=2,
        scenes=4,
    )


def demo(task: TaskName = "pose") -> FinetuneConfig:
    """About twenty seconds on one core: enough to see a loss fall and a rough answer."""
    return FinetuneConfig(
        task=task,
        size="tiny",
        engine=EngineConfig(
            steps=80,
            lr=2e-3,
            min_lr=0.0,
            warmup_steps=8,
            schedule="poly",
            betas=(0.9, 0.98),
            weight_decay=0.05,
            clip_norm=4.0,
            checkpoint_every=40,
            log_every=5,
        ),
        image_size=(128, 96),
        batch=8,
        scenes=256,
        layer_decay=1.0,
    )
