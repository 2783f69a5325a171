"""Fine-tunes for a few steps as one of several ranks and prints the losses: started by the test of ranks."""

from __future__ import annotations

import json
import sys

import torch

from sapiens2.engine.loop import train
from sapiens2.tasks import recipes
from sapiens2.tasks.assemble import assemble
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.objective import TaskObjective
from sapiens2.tasks.source import TaskSource


def run(task: str, folder: str, micro_batches: int = 1, lora_rank: int = 0) -> list[float]:
    """Losses of four steps."""
    values = recipes.micro(task).model_dump()  # type: ignore[arg-type]
    values["engine"] |= {"steps": 4, "threads": 1, "log_every": 1, "micro_batches": micro_batches, "lr": 1e-3}
    values["engine"] |= {"checkpoint_every": 100, "device": "cpu"}
    config = FinetuneConfig(**values | {"batch": 4, "scenes": 8, "ema": 0.9, "lora_rank": lora_rank})
    torch.manual_seed(0)
    objective = TaskObjective(config, assemble(config))
    done = train(objective, TaskSource(config), config.engine, out=f"{folder}/out", state=f"{folder}/state")
    return [row["loss"] for row in done.history]


if __name__ == "__main__":
    losses = run(sys.argv[1], sys.argv[2], lora_rank=int(sys.argv[3]))
    print(json.dumps({"losses": losses}))
