"""Recipes: each a function that returns a config."""

from __future__ import annotations

from sapiens2.evaluation.config import EvaluateConfig, SelectionConfig
from sapiens2.tasks.head_specs import TaskName


def micro(task: TaskName = "pose") -> EvaluateConfig:
    """Four scenes: proves the path."""
    return EvaluateConfig(task=task, n_test=4, rounds=10, pictures=2)


def demo(task: TaskName = "pose") -> EvaluateConfig:
    """A few seconds on one core."""
    return EvaluateConfig(task=task, n_test=48, rounds=100, pictures=6)


def micro_probe() -> SelectionConfig:
    """A block of scenes of each set and three steps a task: proves the path."""
    return SelectionConfig(
        n_train=16, n_val=8, n_test=8, image_size=(64, 48), steps=3, batch=8, width=16, rounds=5, pictures=2
    )


def demo_probe() -> SelectionConfig:
    """Five CPU seconds a checkpoint; the fitted scenes are those that fine-tuning trains on anyway."""
    return SelectionConfig(n_train=128, n_val=48, n_test=48, image_size=(128, 96), steps=40, rounds=100)
