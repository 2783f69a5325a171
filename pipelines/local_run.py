"""`sapiens2 run`: check everything that can be checked, then run the pipeline as a child and show where it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from components.artifacts import Artifact, Store
from components.plan import PlannedStep
from components.progress import FOLDER
from components.run_step import tag_outcome

POLL_SECONDS = 0.25
LAST_LINES = 25


class StepFailed(RuntimeError):
    """A step of the run failed. `user` when the message is for the user to mend."""

    def __init__(self, message: str, *, user: bool) -> None:
        super().__init__(message)
        self.user = user


@dataclass(frozen=True)
class RunResult:
    """How a run ended: progress records by step, wall seconds, the log."""

    records: dict[str, dict[str, Any]]
    seconds: float
    log: Path


def execute(
    spec: dict[str, Any],
    planned: Sequence[PlannedStep],
    store: Store,
    show: Callable[[dict[str, dict[str, Any]]], None],
) -> RunResult:
    """Run `spec` (see pipelines.driver) to its end, calling `show` with the progress records by step.

    Raises StepFailed with the step's own message; KeyboardInterrupt after the children have ended.
    """
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="sapiens2-run-"))
    spec_file, log = folder / "spec.json", _log_file(store, folder)
    spec_file.write_text(json.dumps(spec))
    environment = {**os.environ, FOLDER: str(folder / "progress"), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as sink:
        child = subprocess.Popen(
            [sys.executable, "-m", "pipelines.driver", str(spec_file)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        with _ended_with_us(child) as asked:
            while child.poll() is None:
                if asked:
                    raise KeyboardInterrupt
                show(read_progress(folder / "progress"))
                time.sleep(POLL_SECONDS)
    records = read_progress(folder / "progress")
    show(records)
    if child.returncode != 0:
        raise _failure(records, log, child.returncode)
    return RunResult(records, time.monotonic() - began, log)


@contextmanager
def _ended_with_us(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Whatever ends this process in an orderly way ends the child's group too.

    Yields the requests to end (SIGTERM), which are noted and not raised: what is raised within a finalizer is lost, and
    a second one must not end this process before the child.
    """
    asked: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        yield asked
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(timeout=15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        with suppress(ProcessLookupError):  # whatever of the group outlived its leader
            os.killpg(child.pid, signal.SIGKILL)
        signal.signal(signal.SIGTERM, previous)


def read_progress(folder: Path) -> dict[str, dict[str, Any]]:
    """Progress records by step, as the steps last wrote them."""
    records = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        records[record["step"]] = record
    return records


def _log_file(store: Store, folder: Path) -> Path:
    """Where the log goes: under a local root, else beside the run's temporary files."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path(store.root) / "runs" if store.storage.local else folder
    base.mkdir(parents=True, exist_ok=True)
    return base / f"{stamp}-{os.getpid()}.log"


def _failure(records: dict[str, dict[str, Any]], log: Path, code: int) -> StepFailed:
    failed = [record for record in records.values() if record["state"] == "failed"]
    if failed:
        record = failed[0]
        text = f"{record['step']}: {record['error']}"
        return StepFailed(text if record.get("user") else f"{text}\n{_tail(log)}", user=bool(record.get("user")))
    return StepFailed(f"the run ended with code {code} outside a step\n{_tail(log)}", user=False)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([*lines[-LAST_LINES:], f"(the whole log: {log})"])


def tag_run(store: Store, planned: Sequence[PlannedStep]) -> dict[str, Artifact]:
    """The artifacts of a finished plan by step, each tagged as the latest of its name."""
    made = {}
    for each in planned:
        made[each.step.name] = store.get(each.step.kind, each.version)
        tag_outcome(store, each.step, made[each.step.name])
    return made
