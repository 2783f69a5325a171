"""Untrained task models in folders, as fine-tuning leaves trained ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from sapiens2.model.weights import save_weights
from sapiens2.tasks.build import build_task
from sapiens2.tasks.head_specs import TaskName


def untrained(root: Path, tasks: Sequence[TaskName]) -> dict[str, str]:
    """Folders of tiny models by task, for pictures of 64 x 48."""
    for task in tasks:
        torch.manual_seed(1)
        save_weights(build_task(task, "tiny"), root / task / "model.safetensors")
        about = {"task": task, "size": "tiny", "image_size": [64, 48]}
        (root / task / "config.json").write_text(json.dumps(about))
    return {task: str(root / task) for task in tasks}
