"""A per-image stage over all partitions of its input, on Ray Data: each one committed by the worker that made it.

The dataset that travels is the list of partition ids; a worker reads its rows from the store, works, and writes its
partition and marker there. So a killed run has only the partitions in flight to do again.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from components.attempt import Attempt, PartitionRecord
from components.failure import note, notes
from components.progress import Progress
from components.ray_session import quiet_ray_data, ray_session


class PartitionWork(Protocol):
    """What a worker does to one partition: built once per worker process from a picklable factory."""

    def __call__(self, pid: str, payload: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tables to write, and the metrics of the partition. `payload` is what map_partitions was given for it."""


@dataclass(frozen=True)
class Worker:
    """A Ray Data callable: does a partition and commits it."""

    attempt: Attempt
    factory: Callable[[], PartitionWork]
    stage: str = "parts"

    def build(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """The function that an actor calls, holding the loaded models."""
        work = self.factory()

        def process(batch: dict[str, Any]) -> dict[str, Any]:
            for pid, payload in zip(batch["pid"], batch["payload"], strict=True):
                try:
                    tables, metrics = work(str(pid), pickle.loads(payload))
                except Exception as error:
                    note(error, f"in partition {pid}; the partitions that are done stay")
                    raise
                self.attempt.write_partition(str(pid), tables, metrics, self.stage)
            return {"pid": batch["pid"]}

        return process


class _Actor:
    """The class that Ray Data instantiates in each of its actors."""

    def __init__(self, worker: Worker) -> None:
        import cv2

        cv2.setNumThreads(1)
        self.process = worker.build()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            return {**self.process(batch), "error": [""]}
        except Exception as error:  # as data: what Ray makes of an error keeps neither its type nor its words
            return {"pid": batch["pid"], "error": [pickle.dumps(_portable(error)).hex()]}


def map_partitions(
    worker: Worker, payloads: Mapping[str, Any], progress: Progress, *, workers: int
) -> dict[str, PartitionRecord]:
    """Do every partition that is not done yet; returns the records of all, by id.

    `payloads` has what a worker needs to know of each partition beyond its id, or None. `workers` = 0 works in this
    process, without Ray (small inputs, tests).
    """
    pids = list(payloads)
    done = {pid: r for pid, r in worker.attempt.done(worker.stage).items() if pid in payloads}
    pending = [{"pid": pid, "payload": pickle.dumps(payloads[pid])} for pid in pids if pid not in done]
    progress.update(len(done), len(pids), "partitions", "(resumed)" if done and pending else "")
    if pending and workers == 0:
        process = worker.build()
        with _one_thread():
            for count, row in enumerate(pending, len(done) + 1):
                process({name: [value] for name, value in row.items()})
                progress.update(count, len(pids), "partitions")
    elif pending:
        _on_ray(worker, pending, len(done), progress, min(workers, len(pending)))
    records = worker.attempt.done(worker.stage)
    return {pid: records[pid] for pid in sorted(pids)}


def _on_ray(worker: Worker, pending: list[dict[str, Any]], already: int, progress: Progress, workers: int) -> None:
    with ray_session():
        import ray

        quiet_ray_data()
        dataset = ray.data.from_items(pending, override_num_blocks=len(pending))
        mapped = dataset.map_batches(
            _Actor,
            fn_constructor_args=(worker,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=workers, max_size=workers),
            num_cpus=1,
        )
        count = already
        try:
            for batch in mapped.iter_batches(batch_size=1, prefetch_batches=0):
                _raise_told(str(batch["error"][0]))
                count += len(batch["pid"])
                progress.update(count, already + len(pending), "partitions")
        except ray.exceptions.RayError as error:
            raise _cause(error) from error


class WorkerError(RuntimeError):
    """What went wrong in a worker, with the traceback from there, or of an error that cannot travel itself."""


def _portable(error: Exception) -> tuple[Exception, str]:
    """An error that survives the way to the driver, its notes with it, and its traceback."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        words = WorkerError(f"{type(error).__name__}: {error}")
        note(words, *notes(error))
        return words, traceback.format_exc()
    return error, traceback.format_exc()


def _raise_told(told: str) -> None:
    """Raise the error that a worker told of, if it did, as it was there."""
    if told:
        error, trace = pickle.loads(bytes.fromhex(told))
        raise error from WorkerError(trace)


def _cause(error: BaseException) -> BaseException:
    """The worker's own exception behind Ray's wrappers: a ValueError stays a ValueError with its text."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "cause", None) or error.__cause__
        if inner is None or not isinstance(inner, BaseException):
            break
        error = inner
    for kind in (FileNotFoundError, ValueError):
        if isinstance(error, kind):
            return kind(str(error).strip().splitlines()[-1].removeprefix(f"{kind.__name__}: "))
    return error


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV as in an actor: its cascades list what they find in the order in which threads end."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def sum_metrics(records: Mapping[str, PartitionRecord]) -> dict[str, Any]:
    """The metrics of all partitions added up: numbers by sum, dictionaries key by key; other values are left out."""
    total: dict[str, Any] = {}
    for record in records.values():
        _add(total, record.metrics)
    return total


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            _add(total.setdefault(key, {}), value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            total[key] = total.get(key, 0) + value
