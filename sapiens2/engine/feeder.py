"""Batches ahead of the step: prepared in a thread, moved to the device, split into micro-batches."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from sapiens2.engine.objective import BatchSource
from sapiens2.engine.parallel import World

Batch = dict[str, Tensor]


class Feeder:
    """Iterates over the micro-batches of each step from `first` to `last` (exclusive).

    Micro-batch i of rank r is what rank r * n + i of world * n would get: the global batch is the same however it is
    cut. Errors of the source surface at the step that needs the batch.
    """

    def __init__(
        self, source: BatchSource, world: World, *, micro_batches: int, prefetch: int, first: int, last: int
    ) -> None:
        self._source, self._world, self._parts = source, world, micro_batches
        self._steps = iter(range(first, last))
        self._ahead: deque[Future[list[Batch]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feeder") if prefetch else None
        self._prefetch = prefetch
        self.waited_s = 0.0

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def next(self) -> list[Batch]:
        """The micro-batches of the next step, on the device."""
        began = time.perf_counter()
        if self._thread is None:
            parts = self._make(next(self._steps))
        else:
            self._fill()
            parts = self._ahead.popleft().result()
            self._fill()
        self.waited_s += time.perf_counter() - began
        return [{name: t.to(self._world.device, non_blocking=True) for name, t in part.items()} for part in parts]

    def _fill(self) -> None:
        assert self._thread is not None
        while len(self._ahead) < self._prefetch and (step := next(self._steps, None)) is not None:
            self._ahead.append(self._thread.submit(self._make, step))

    def _make(self, step: int) -> list[Batch]:
        rank, size = self._world.rank * self._parts, self._world.size * self._parts
        parts = [self._source.batch(step, rank + part, size) for part in range(self._parts)]
        if self._world.device.type == "cuda":
            return [{name: t.pin_memory() for name, t in part.items()} for part in parts]
        return parts
