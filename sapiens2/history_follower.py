"""The curves of a run that is trained elsewhere, passed on as they grow."""

from __future__ import annotations

import json
import sys
from typing import Any

from sapiens2.engine import storage as files
from sapiens2.engine.control import Control


class Follower:
    """Reads new rows of a local history.jsonl and passes them on, for as long as the run goes."""

    def __init__(self, out: str, control: Control) -> None:
        self._path = None if files.is_remote(out) else files.local_path(out) / "history.jsonl"
        self._control = control
        self._seen = 0

    def look(self) -> None:
        """Pass on what is new; a file that shrank was begun anew by a restarted worker."""
        if self._path is None or not self._path.exists():
            return
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        complete = [line for line in lines if line.endswith("\n")]
        for line in complete[self._seen :]:
            self._tell(json.loads(line))
        self._seen = len(complete)

    def _tell(self, row: dict[str, Any]) -> None:
        if self._control.on_row is not None:
            self._control.on_row(row)
        elif self._control.shows:
            from sapiens2.engine.progress import describe

            print(f"step {row['step']}  {describe(row)}", file=sys.stderr, flush=True)
