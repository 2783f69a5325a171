"""A small objective with everything a real one has: student, EMA teacher, centre; and a keyed source of batches.

As a program it trains in a process of its own, so that tests can kill it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sapiens2.engine import checkpoint
from sapiens2.engine.config import EngineConfig
from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.engine.loop import TrainSummary, train


class ToyObjective(nn.Module):
    """Regression to a teacher's view of the same vectors, centred; drop-out draws from the global generator."""

    def __init__(self, width: int = 24, seed: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.student, self.teacher = _layers(width, nn.Dropout(dropout)), _layers(width, nn.Identity())
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(3))
        self._seen: list[Tensor] = []

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        x = batch["x"]
        predicted = self.student(x)
        with torch.no_grad():
            target = self.teacher(x)
            self._seen.append(target.mean(0))
        fit = (predicted - batch["y"]).square().mean()
        agree = (predicted - (target - self.centre)).square().mean()
        return {"loss": fit + 0.1 * agree, "fit": fit, "agree": agree}

    def after_step(self, step: int) -> None:
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 0.1)
        seen = torch.stack(self._seen).mean(0)
        if dist.is_initialized():
            dist.all_reduce(seen)
            seen = seen / dist.get_world_size()
        self.centre.lerp_(seen, 0.1)
        self._seen = []

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        parameters = list(self.student.parameters())
        return [
            {"params": [p for p in parameters if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim == 1], "lr": lr * 0.5, "weight_decay": 0.0},
        ]

    def export_state(self) -> dict[str, Tensor]:
        return dict(self.teacher.state_dict())


def _layers(width: int, between: nn.Module) -> nn.Sequential:
    """A first, a hidden and a last matrix."""
    ends = nn.Linear(4, width), nn.Linear(width, 3)
    return nn.Sequential(ends[0], nn.GELU(), nn.Linear(width, width), nn.GELU(), between, ends[1])


class ToySource:
    """Vectors and a fixed function of them, drawn by global sample index; chosen steps are poisoned with NaN."""

    def __init__(self, batch_size: int = 8, poisoned: tuple[int, ...] = (), slow_s: float = 0.0) -> None:
        self.batch_size, self.poisoned, self.slow_s = batch_size, set(poisoned), slow_s

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        if self.batch_size % world:
            raise ValueError(f"a batch of {self.batch_size} does not divide into {world} parts")
        time.sleep(self.slow_s)
        share = self.batch_size // world
        first = step * self.batch_size + rank * share
        x = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(first + i)) for i in range(share)])
        y = torch.stack([x.sum(1), x[:, 0] * x[:, 1], x[:, 2].abs()], dim=1)
        if step in self.poisoned:
            x = x * float("nan")
        return {"x": x, "y": y}


def toy_config(**changes: Any) -> EngineConfig:
    """Twenty steps on one CPU thread, saved every five."""
    settings: dict[str, Any] = {
        "steps": 20,
        "lr": 1e-2,
        "min_lr": 1e-4,
        "warmup_steps": 3,
        "checkpoint_every": 5,
        "log_every": 2,
        "threads": 1,
        "device": "cpu",
        "tensorboard": False,
    }
    return EngineConfig(**(settings | changes))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("state")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--kill-before-marker", type=int, default=0)
    parser.add_argument("--poisoned", type=int, default=-1, help="a step whose batch is NaN")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--resume-at", type=int, default=0, help="also stop there, continue, and compare")
    arguments = parser.parse_args()
    if arguments.kill_before_marker:
        _die_before_marker_of(arguments.kill_before_marker)

    def run(out: str, state: str, stop: Callable[[], bool] | None = None) -> TrainSummary:
        objective, source = (
            ToyObjective(dropout=arguments.dropout),
            ToySource(poisoned=(arguments.poisoned,), slow_s=arguments.slow),
        )
        return train(
            objective,
            source,
            toy_config(keep_checkpoints=9, optimizer=arguments.optimizer),
            out=out,
            state=state,
            control=Control(stop=stop),
        )

    undisturbed = None
    if arguments.resume_at:
        undisturbed = run(arguments.out + "-undisturbed", arguments.state + "-undisturbed").digest
        with suppress(Interrupted):
            done = iter(range(1, 1000))
            run(arguments.out, arguments.state, lambda: next(done) >= arguments.resume_at)
    summary = run(arguments.out, arguments.state)
    losses = [row["loss"] for row in summary.history]
    told = {"digest": summary.digest, "resumed_from": summary.resumed_from, "losses": losses}
    print(json.dumps(told | {"undisturbed": undisturbed}), flush=True)


def _die_before_marker_of(step: int) -> None:
    write = checkpoint.storage.write_bytes

    def write_or_die(uri: str, data: bytes) -> None:
        if uri.endswith(f"step_{step}/{checkpoint.MARKER}"):
            os.kill(os.getpid(), signal.SIGKILL)
        write(uri, data)

    checkpoint.storage.write_bytes = write_or_die


if __name__ == "__main__":
    main()
