"""What a run tells about itself: means over the steps between two rows, kept on the device until they are read."""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from torch import Tensor

from sapiens2.engine import storage
from sapiens2.engine.tensorboard import events
from sapiens2.engine.world import World, mean_over_ranks

Row = dict[str, Any]


class Window:
    """Sums of losses and gradient norms since the last row. Steps with a non-finite gradient are left out."""

    def __init__(self, device: torch.device) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}  # not every number comes with every step
        self._norm_max = torch.zeros((), device=device)
        self.steps = 0
        self._began = time.perf_counter()

    def add(self, losses: dict[str, Tensor], norm: Tensor, finite: Tensor) -> None:
        """Take one step in; nothing is read from the device."""
        for name, value in {**losses, "grad_norm": norm}.items():
            kept = torch.where(finite, value, torch.zeros_like(value))
            self._sums[name] = self._sums[name] + kept if name in self._sums else kept
            self._counts[name] = self._counts[name] + finite if name in self._counts else finite.float()
        self._norm_max = torch.maximum(self._norm_max, torch.where(finite, norm, torch.zeros_like(norm)))
        self.steps += 1

    def row(self, world: World) -> Row:
        """Means over the window and over the ranks as floats, None where no step counted; collective."""
        names = sorted(self._sums)
        packed = torch.stack([*(of[name] for of in (self._sums, self._counts) for name in names), self._norm_max])
        *told, norm_max = mean_over_ranks(packed, world).tolist()
        pairs = zip(names, told[: len(names)], told[len(names) :], strict=True)
        row: Row = {name: total / counted if counted else None for name, total, counted in pairs}
        row["grad_norm_max"] = norm_max if row["grad_norm"] is not None else None
        row["seconds_per_step"] = (time.perf_counter() - self._began) / max(1, self.steps)
        return row


class History:
    """The rows of history.jsonl. A local file grows by appending; a remote one is written anew when it is flushed.

    With `tensorboard`, event files beside it say the same.
    """

    def __init__(self, out: str, rows: list[Row], *, writes: bool, tensorboard: bool = False) -> None:
        self._uri = storage.join(out, "history.jsonl")
        self._writes = writes
        self.rows = list(rows)
        self._events = events(out, rows, wanted=writes and tensorboard)
        self.flush()

    def append(self, row: Row) -> None:
        """Add one row."""
        self.rows.append(row)
        if self._events is not None:
            self._events.append(row)
        if self._writes and not storage.is_remote(self._uri):
            with storage.local_path(self._uri).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def flush(self) -> None:
        """Write the whole file."""
        if self._writes:
            storage.write_bytes(self._uri, "".join(json.dumps(row) + "\n" for row in self.rows).encode())
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Write the last of it."""
        if self._events is not None:
            self._events.close()
            self._events = None
