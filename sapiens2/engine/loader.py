"""Batches prepared by processes of their own, in the order asked for: torch's DataLoader over (step, rank, world).

The source reads in the calling process, so each row group is read once and no worker speaks to a store; what travels to
a worker is the job (encoded pictures), what comes back are tensors in shared memory. Which worker made a batch changes
nothing in it.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import tee
from multiprocessing import forkserver
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sapiens2.engine.objective import BatchSource, Key, SharedSource

AHEAD = 2  # jobs that wait at each worker
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LoaderError(RuntimeError):
    """What went wrong in a worker process, with the traceback from there."""


class _Failure(NamedTuple):
    error: Exception
    trace: str


def by_processes(source: BatchSource, keys: Iterable[Key], workers: int) -> Iterator[dict[str, Tensor]]:
    """The batches of `keys`, in order, made by `workers` processes that end with the iteration.

    A source that is no SharedSource is sent to the workers as a whole. Errors of the source or of a worker are raised
    here as they were, when their batch is due; ChildProcessError when a worker dies. Not for the main thread, where
    torch would raise the death of a worker out of a signal handler, wherever the step stands.
    """
    shared = source if isinstance(source, SharedSource) else _Whole(source)
    sent, due = tee(keys)
    iterator = iter(_loader(shared, sent, workers))
    try:
        for key in due:
            yield shared.completed(_next(iterator, key), *key)
    finally:
        del iterator  # it ends the workers


def _loader(source: SharedSource, keys: Iterator[Key], workers: int) -> DataLoader[Any]:
    with _one_thread_each():  # whoever starts the processes' parent hands it this environment
        context = torch.multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, type(source.worker()).__module__])  # imported once for all
        forkserver.ensure_running()
    return DataLoader(
        _Work(source.worker()),
        batch_size=None,
        sampler=_jobs(source, keys),
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_unchanged,
        worker_init_fn=_settle,
        multiprocessing_context=context,
        generator=torch.Generator(),  # else it draws a number from the generator that the training uses
    )


def _jobs(source: SharedSource, keys: Iterator[Key]) -> Iterator[Any]:
    """The jobs; an error of the source goes along the queue like one, and is raised when its batch is due."""
    for key in keys:
        try:
            job = source.job(*key)
        except Exception as error:
            job = _Failure(_portable(error), traceback.format_exc())
        yield job


def _next(iterator: Iterator[Any], key: Key) -> Any:
    try:
        made = next(iterator)
    except (RuntimeError, OSError, EOFError) as error:  # by torch, or by a connection that broke off
        raise ChildProcessError(
            f"a process that prepares batches was lost before step {key.step} ({type(error).__name__}: {error}): it "
            "was killed or ran out of memory; lower engine.loader_workers, or give more memory or a larger /dev/shm"
        ) from error
    if isinstance(made, _Failure):
        raise made.error from LoaderError(made.trace)
    return made


class _Work(Dataset[Any]):
    """The dataset of the DataLoader: its indices are the jobs."""

    def __init__(self, worker: Callable[[Any], Any]) -> None:
        self._worker = worker

    def __getitem__(self, job: Any) -> Any:
        if isinstance(job, _Failure):
            return job
        try:
            return self._worker(job)
        except Exception as error:  # raised in the process that waits for it
            return _Failure(_portable(error), traceback.format_exc())


class _Whole:
    """A source that cannot split its work, as a SharedSource: the workers have it whole."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        return self._source.batch(step, rank, world)

    def job(self, step: int, rank: int, world: int) -> Key:
        return Key(step, rank, world)

    def worker(self) -> Callable[[Key], dict[str, Tensor]]:
        return self._answer

    def _answer(self, key: Key) -> dict[str, Tensor]:
        return self._source.batch(*key)

    def completed(self, made: dict[str, Tensor], step: int, rank: int, world: int) -> dict[str, Tensor]:
        return made


def _portable(error: Exception) -> Exception:
    """The error if it survives the way to another process, else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return LoaderError(f"{type(error).__name__}: {error}")
    return error


def _unchanged(made: Any) -> Any:
    return made


def _settle(worker: int) -> None:
    """In a worker: one thread, as its siblings have the other cores; Ctrl-C is for the process that saves the state."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in THREAD_LIMITS}
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
