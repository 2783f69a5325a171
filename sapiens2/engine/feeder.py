"""Batches ahead of the step: prepared in a thread or in processes, moved to the device, split into micro-batches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from sapiens2.engine.loader import by_processes
from sapiens2.engine.objective import BatchSource, Key
from sapiens2.engine.world import World

Batch = dict[str, Tensor]


class Feeder:
    """Iterates over the micro-batches of each step from `first` to `last` (exclusive).

    Micro-batch i of rank r is what rank i * world + r of world * n would get: the global batch is the same however it
    is cut, and what all ranks hold at the same time is one piece of it. Errors of the source surface at the step that
    needs the batch. With `workers` processes the thread only hands out the work and moves what comes back; there is
    always a thread then.
    """

    def __init__(
        self,
        source: BatchSource,
        world: World,
        *,
        micro_batches: int,
        prefetch: int,
        first: int,
        last: int,
        workers: int = 0,
    ) -> None:
        self._parts, self._left = micro_batches, last - first
        size = world.size * micro_batches
        ranks = range(world.rank, size, world.size)
        keys = (Key(step, rank, size) for step in range(first, last) for rank in ranks)
        inline: Iterator[Batch] = (source.batch(*key) for key in keys)
        self._batches = by_processes(source, keys, workers) if workers else inline
        self._prefetch = max(prefetch, 1) if workers else prefetch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feeder") if self._prefetch else None
        self._ahead: deque[Future[_Sent]] = deque()
        self._carrier = Carrier(world.device)
        self.waited_s = 0.0

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()
        self._batches.close()  # type: ignore[attr-defined]

    def next(self) -> list[Batch]:
        """The micro-batches of the next step, on the device."""
        began = time.perf_counter()
        if self._thread is None:
            self._left -= 1
            sent = self._make()
        else:
            self._fill()
            sent = self._ahead.popleft().result()
            self._fill()
        self.waited_s += time.perf_counter() - began
        return self._carrier.received(sent)

    def _fill(self) -> None:
        assert self._thread is not None
        while len(self._ahead) < self._prefetch and self._left > 0:
            self._left -= 1
            self._ahead.append(self._thread.submit(self._make))

    def _make(self) -> _Sent:
        return self._carrier.sent([next(self._batches) for _ in range(self._parts)])


class _Sent(NamedTuple):
    parts: list[Batch]
    arrived: torch.cuda.Event | None  # None where nothing travels


class Carrier:
    """Takes batches to the device. On a GPU from pinned memory, on a stream of its own: the copy of the next batch runs
    beside the present step, and the step that needs it waits on the device, not here."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def sent(self, parts: list[Batch]) -> _Sent:
        """Begins the way to the device; may be called in another thread than `received`."""
        if self._stream is None:
            return _Sent([self._moved(part) for part in parts], None)
        with torch.cuda.stream(self._stream):  # it also sets the thread's device, on which pinning depends
            moved = [self._moved({name: t.pin_memory() for name, t in part.items()}) for part in parts]
            return _Sent(moved, self._stream.record_event())

    def received(self, sent: _Sent) -> list[Batch]:
        """The batches, usable by whatever is queued on the device from now on."""
        if sent.arrived is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(sent.arrived)
            for part in sent.parts:
                for tensor in part.values():
                    tensor.record_stream(stream)  # so that its memory is not reused before the step has read it
        return sent.parts

    def _moved(self, part: Batch) -> Batch:
        return {name: t.to(self._device, non_blocking=True) for name, t in part.items()}
