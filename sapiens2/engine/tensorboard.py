"""The rows of a run as TensorBoard's event files, in `<out>/tensorboard`: `tensorboard --logdir <out>`."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sapiens2.engine import storage

FOLDER = "tensorboard"
_log = logging.getLogger(__name__)


class Events:
    """Writes each row as scalars at its step. Files of an earlier attempt are replaced: `rows` is all it has to say.

    Under a remote `out` they are written to a temporary folder and uploaded whenever they are flushed.
    """

    def __init__(self, out: str, rows: Iterable[Mapping[str, Any]]) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._uri = storage.join(out, FOLDER)
        storage.delete_folder(self._uri)
        self._temporary = tempfile.TemporaryDirectory(prefix="sapiens2-events-") if storage.is_remote(out) else None
        self._folder = Path(self._temporary.name) if self._temporary else storage.local_path(self._uri)
        self._writer = EventFileWriter(str(self._folder))
        for row in rows:
            self.append(row)
        self.flush()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row of history; what is no number is left out."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=row["step"], summary=Summary(value=scalars)))

    def flush(self) -> None:
        """Bring to the disk, or the object store, what was added."""
        self._writer.flush()
        if self._temporary:
            for path in self._folder.iterdir():
                storage.upload(path, storage.join(self._uri, path.name))

    def close(self) -> None:
        """Flush and end the writer's thread."""
        self.flush()
        self._writer.close()
        if self._temporary:
            self._temporary.cleanup()


def events(out: str, rows: Iterable[Mapping[str, Any]], *, wanted: bool) -> Events | None:
    """A writer if it is wanted and TensorBoard is installed."""
    if not wanted:
        return None
    if importlib.util.find_spec("tensorboard") is None:
        _log.warning("no event files are written: TensorBoard is not installed (pip install tensorboard)")
        return None
    return Events(out, rows)
