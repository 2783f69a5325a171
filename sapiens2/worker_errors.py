"""What a training worker ended with, carried as a small file so that every rank and every restart sees it."""

from __future__ import annotations

import json
import traceback

from sapiens2.engine import storage as files
from sapiens2.engine.interrupt import Interrupted


class WorkerFailed(RuntimeError):
    """A training worker ended with an error that has no better name here; the message is the worker's."""


def record(run: str, error: Exception) -> None:
    """Leave word of an error under the run's folder."""
    names = [kind.__name__ for kind in type(error).__mro__]
    note = {"kinds": names, "message": str(error), "step": getattr(error, "step", None)}
    note["notes"] = list(getattr(error, "__notes__", ()))
    note["traceback"] = "".join(traceback.format_exception(error))
    files.write_bytes(files.join(run, "error.json"), json.dumps(note).encode())


def raise_recorded(run: str) -> None:
    """Raise what a worker left word of, as it was; WorkerFailed where it has no better name here."""
    from sapiens2.engine.loop import Diverged

    uri = files.join(run, "error.json")
    if not files.exists(uri):
        return
    note = json.loads(files.read_bytes(uri))
    if "Interrupted" in note["kinds"]:
        raise Interrupted.told(note["message"], note["step"])
    known = (Diverged, FileNotFoundError, PermissionError, KeyError, TypeError, ValueError, MemoryError)
    kind = next((k for name in note["kinds"] for k in known if k.__name__ == name), WorkerFailed)
    error = kind(note["message"])
    for text in note["notes"]:
        error.add_note(text)
    raise error from WorkerFailed(note["traceback"])


def is_final(error: Exception, workers: int) -> bool:
    """Whether trying again is useless. Among several ranks a RuntimeError is mostly the death of another one."""
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | Interrupted):
        return True
    if isinstance(error, OSError | ConnectionError):
        return False
    return workers == 1 or type(error).__name__ == "Diverged" or not isinstance(error, RuntimeError)
