"""Fine-tunes for a few steps as one of several ranks and prints the losses: started by the test of ranks.

Its argument is JSON: runs that follow one another, each a file for the ranks' port, a task, a folder, a LoRA
rank and a foreign backbone or nothing.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # how ranks agree on a port

from train_in_turn import agreed_port

from sapiens2.engine.loop import train
from sapiens2.tasks import recipes
from sapiens2.tasks.assemble import assemble
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.objective import TaskObjective
from sapiens2.tasks.source import TaskSource


def run(task: str, folder: str, micro_batches: int = 1, lora_rank: int = 0, backbone: str = "") -> list[float]:
    """Losses of four steps."""
    values = recipes.micro(task).model_dump()  # type: ignore[arg-type]
    values["engine"] |= {"steps": 4, "threads": 1, "log_every": 1, "micro_batches": micro_batches, "lr": 1e-3}
    values["engine"] |= {"checkpoint_every": 100, "device": "cpu"}
    config = FinetuneConfig(
        **values | {"batch": 4, "scenes": 8, "ema": 0.9, "lora_rank": lora_rank, "backbone": backbone}
    )
    torch.manual_seed(0)
    objective = TaskObjective(config, assemble(config))
    done = train(objective, TaskSource(config), config.engine, out=f"{folder}/out", state=f"{folder}/state")
    return [row["loss"] for row in done.history]


if __name__ == "__main__":
    losses = []
    for note, task, folder, lora_rank, backbone in json.loads(sys.argv[1]):
        os.environ["MASTER_PORT"] = agreed_port(Path(note))
        losses.append(run(task, folder, lora_rank=lora_rank, backbone=backbone))
    print(json.dumps(losses))
