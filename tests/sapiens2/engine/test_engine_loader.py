"""Batches prepared by processes: the same ones, in order, with their errors, and gone afterwards."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator

import cv2
import pytest
import torch
from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from toy_run import ToySource

from sapiens2.engine.feeder import Feeder
from sapiens2.engine.world import World

Batch = dict[str, Tensor]
WORLD = World(1, 2, torch.device("cpu"))


class OddSource(ToySource):
    """Says in which process a batch was made, and with how many threads; fails or dies when told to."""

    def __init__(self, fail_at: int = -1, die_at: int = -1) -> None:
        super().__init__()
        self.fail_at, self.die_at = fail_at, die_at

    def batch(self, step: int, rank: int, world: int) -> Batch:
        if step == self.fail_at:
            raise KeyError(f"step {step} has no picture")
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        place = {"pid": os.getpid(), "torch": torch.get_num_threads(), "cv2": cv2.getNumThreads()}
        return super().batch(step, rank, world) | {name: torch.tensor(value) for name, value in place.items()}


def feeder(source: ToySource, workers: int, *, first: int = 3, last: int = 8, parts: int = 2) -> Feeder:
    return Feeder(source, WORLD, micro_batches=parts, prefetch=1, first=first, last=last, workers=workers)


def batches(feeder: Feeder, steps: int) -> Iterator[Batch]:
    with feeder:
        for _ in range(steps):
            yield from feeder.next()


def test_processes_give_the_batches_of_the_thread_in_order() -> None:
    expected = [ToySource().batch(step, rank, 4) for step in range(3, 8) for rank in (1, 3)]
    state = torch.get_rng_state()
    for workers in (0, 1, 2):
        made = list(batches(feeder(ToySource(), workers), 5))
        assert [torch.equal(a["x"], b["x"]) and torch.equal(a["y"], b["y"]) for a, b in zip(made, expected)] == [
            True
        ] * 10
    assert torch.equal(torch.get_rng_state(), state)  # the training's own draws are not touched


def test_each_process_has_one_thread_and_ends_with_the_run() -> None:
    made = list(batches(feeder(OddSource(), 2), 5))
    pids = {int(batch["pid"]) for batch in made}
    assert len(pids) == 2 and os.getpid() not in pids
    assert {int(batch[name]) for batch in made for name in ("torch", "cv2")} == {1}
    assert not pids & {child.pid for child in multiprocessing.active_children()}


def test_an_error_in_a_process_is_raised_as_it_was_when_its_step_is_due() -> None:
    with feeder(OddSource(fail_at=5), 2) as running:
        running.next(), running.next()
        with pytest.raises(KeyError, match="step 5 has no picture") as caught:
            running.next()
    assert "in batch" in str(caught.value.__cause__)  # the traceback of the other process


def test_a_killed_process_is_an_error_that_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the step it was at, or one before: what a killed process had made but not yet sent is lost with it."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))  # looks every 5 s, else
    lost = pytest.raises(ChildProcessError, match=r"prepares batches was lost before step [34] .*loader_workers")
    with feeder(OddSource(die_at=4), 1) as running, lost:
        running.next(), running.next()


def test_leaving_early_ends_the_processes() -> None:
    with feeder(OddSource(), 1, last=100) as running:
        pid = int(running.next()[0]["pid"])
    assert pid not in {child.pid for child in multiprocessing.active_children()}
