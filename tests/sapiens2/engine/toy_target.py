"""The toy objective as a target of `sapiens2.launch`, with faults on request."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
from torch import Tensor
from toy_run import ToyObjective, ToySource

from sapiens2.engine import storage
from sapiens2.engine.config import EngineConfig
from sapiens2.engine.control import PLAIN, Control
from sapiens2.engine.loop import train


class FaultySource(ToySource):
    """On the last rank: kills its process once, when a step is reached, or raises there each time."""

    def __init__(self, kill_at: int, fail_at: int, flag: Path, slow_s: float) -> None:
        super().__init__(slow_s=slow_s)
        self._kill_at, self._fail_at, self._flag = kill_at, fail_at, flag

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        if rank == world - 1 and step == self._kill_at and not self._flag.exists():
            self._flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == world - 1 and step == self._fail_at:
            self._flag.with_name("store").write_text(" ".join(_where_ranks_meet()))
            raise ValueError(f"picture 7 of rank {rank} cannot be read")
        return super().batch(step, rank, world)


def _where_ranks_meet() -> set[str]:
    """The addresses at which the store of torch.distributed listens."""
    port = int(os.environ["MASTER_PORT"])
    ranks = psutil.Process(os.getppid()).children(recursive=True)
    sockets = [each for rank in ranks for each in rank.net_connections("inet") if each.status == "LISTEN"]
    return {each.laddr.ip for each in sockets if each.laddr.port == port}


def run(
    config: EngineConfig,
    *,
    out: str,
    state: str,
    kill_at: int = -1,
    fail_at: int = -1,
    refuse: str | None = None,
    slow_s: float = 0.0,
    control: Control = PLAIN,
) -> dict[str, Any]:
    """Train the toy and write metrics.json."""
    if refuse is not None:
        raise ValueError(refuse)
    source = FaultySource(kill_at, fail_at, Path(state).with_name("killed"), slow_s)
    summary = train(ToyObjective(dropout=0.0), source, config, out=out, state=state, control=control)
    metrics = {"digest": summary.digest, "resumed_from": summary.resumed_from, "ranks": summary.ranks}
    if os.environ.get("RANK", "0") == "0":
        storage.write_bytes(storage.join(out, "metrics.json"), json.dumps(metrics).encode())
    return metrics
