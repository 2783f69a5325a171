"""What workers share about hosts: turns, pauses and answers, across objects and processes, by a clock of our own."""

from __future__ import annotations

import asyncio
import multiprocessing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from curation.images.fetch_policy import retry_after_s
from curation.images.host_state import FAILURES_IN_A_ROW, REST_S, HostState


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_turns_are_shared_and_apart(tmp_path: Path, clock: Clock) -> None:
    one, other = HostState(tmp_path, clock), HostState(tmp_path, clock)
    assert one.turn("a.example", 2.0, 30.0) == (0.0, True)
    assert [each.turn("a.example", 2.0, 30.0) for each in (other, one)] == [(2.0, True)] * 2
    assert other.turn("b.example", 2.0, 30.0) == (0.0, True)
    clock.now += 1.5
    assert other.turn("a.example", 2.0, 30.0) == (0.5, True)
    clock.now += 0.5
    assert other.turn("a.example", 2.0, 30.0) == (0.0, True)
    clock.now += 100.0
    assert one.turn("a.example", 2.0, 30.0) == (0.0, True)  # unused time is not saved up
    assert one.turn("a.example", 2.0, 30.0) == (2.0, True)


def test_a_pause_is_waited_for_within_patience(tmp_path: Path, clock: Clock) -> None:
    state = HostState(tmp_path, clock)
    state.pause("a.example", 20.0)
    state.pause("a.example", 5.0)  # a shorter one does not cut it
    assert state.turn("a.example", 1.0, 30.0) == (20.0, True)
    assert state.turn("a.example", 1.0, 10.0) == (20.0, False)
    clock.now += 20.0
    assert [state.turn("a.example", 1.0, 10.0) for _ in range(2)] == [(0.0, True), (1.0, True)]


def test_a_dead_host_is_given_up_for_a_while(tmp_path: Path, clock: Clock) -> None:
    state = HostState(tmp_path, clock)
    for _ in range(FAILURES_IN_A_ROW - 1):
        state.connected("a.example", False)
    state.connected("a.example", True)
    for _ in range(FAILURES_IN_A_ROW - 1):
        state.connected("a.example", False)
    assert state.turn("a.example", 0.0, 30.0) == (0.0, True)
    state.connected("a.example", False)
    assert state.turn("a.example", 0.0, 30.0) == (REST_S, False)
    clock.now += REST_S
    assert state.turn("a.example", 0.0, 30.0) == (0.0, True)


def test_what_a_killed_writer_left_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    state = HostState(tmp_path, clock)
    state.pause("a.example", 20.0)
    (path,) = tmp_path.glob("*.host.json")
    path.write_text('{"resume": 10')
    assert state.turn("a.example", 1.0, 30.0) == (0.0, True)


def test_answers_live_as_long_as_they_are_given(tmp_path: Path, clock: Clock) -> None:
    state, loads = HostState(tmp_path, clock), []

    async def load() -> tuple[dict[str, Any], float]:
        loads.append(clock.now)
        return {"body": str(len(loads))}, 60.0

    def kept() -> str:
        return str(asyncio.run(state.kept("http://a.example/robots.txt", load))["body"])

    assert [kept(), kept()] == ["1", "1"]
    clock.now += 61.0
    assert [kept(), kept()] == ["2", "2"]


def _ask(folder: str, queue: Any) -> None:
    async def load() -> tuple[dict[str, Any], float]:
        queue.put("load")
        await asyncio.sleep(0.3)
        return {"body": "x"}, 60.0

    async def ten() -> None:
        state = HostState(Path(folder))
        await asyncio.gather(*(state.kept("http://a.example/robots.txt", load) for _ in range(10)))

    asyncio.run(ten())


def test_one_of_many_processes_asks(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    workers = [context.Process(target=_ask, args=(str(tmp_path), queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert queue.get() == "load" and queue.empty()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59.0),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
    ],
)
def test_retry_after_in_both_forms(text: str, seconds: float | None) -> None:
    assert retry_after_s({"Retry-After": text}, datetime(1999, 12, 31, 23, 59, 0, tzinfo=UTC)) == seconds


def test_without_an_interval_a_pause_by_another_worker_still_counts(tmp_path: Path, clock: Clock) -> None:
    one, other = HostState(tmp_path, clock), HostState(tmp_path, clock)
    assert [one.turn("a.example", 0.0, 30.0) for _ in range(3)] == [(0.0, True)] * 3
    other.pause("a.example", 20.0)
    assert one.turn("a.example", 0.0, 30.0) == (20.0, True)
    clock.now += 20.0
    assert [one.turn("a.example", 0.0, 30.0) for _ in range(3)] == [(0.0, True)] * 3
