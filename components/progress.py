"""What a step says while it works: a state file for whoever watches, a plain line for whoever reads the log."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

FOLDER = "SAPIENS2_PROGRESS"  # local folder, one JSON file per step; unset: lines only
MIN_INTERVAL_SECONDS = 0.2


class Progress:
    """Progress of one step. `unit` names what is counted (partitions, steps, ...)."""

    def __init__(self, step: str) -> None:
        self.step, self._began, self._last = step, time.monotonic(), 0.0
        folder = os.environ.get(FOLDER)
        self._file = Path(folder) / f"{step}.json" if folder else None

    def update(self, done: int, total: int, unit: str, note: str = "") -> None:
        """Say how far the step is; calls in quick succession are thinned out, the last one of a total is not."""
        now = time.monotonic()
        if done < total and now - self._last < MIN_INTERVAL_SECONDS:
            return
        self._last = now
        self.say("running", done=done, total=total, unit=unit, note=note)
        seconds = now - self._began
        print(f"[{self.step}] {done}/{total} {unit} {note} {seconds:.1f} s".replace("  ", " "), flush=True)

    def say(self, state: str, **facts: Any) -> None:
        """Record a state: running, reused, done, failed."""
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        record = {"step": self.step, "state": state, "seconds": time.monotonic() - self._began, **facts}
        temporary = self._file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(record))
        temporary.replace(self._file)
