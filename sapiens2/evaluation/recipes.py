"""Recipes: each a function that returns a config."""

from __future__ import annotations

from sapiens2.evaluation.config import EvaluateConfig
from sapiens2.tasks.head_specs import TaskName


def micro(task: TaskName = "pose") -> EvaluateConfig:
    """Four scenes: proves the path."""
    return EvaluateConfig(task=task, n_test=4, rounds=10, pictures=2)


def demo(task: TaskName = "pose") -> EvaluateConfig:
    """A few seconds on one core."""
    return EvaluateConfig(task=task, n_test=48, rounds=100, pictures=6)
