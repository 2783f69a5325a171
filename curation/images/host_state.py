"""What every worker of a run must know of a host: when the next request may go, and what its policy files say.

Files in one folder under locks, so that processes on one machine share them; a killed process leaves no lock behind.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_POLL_S = 0.05
FAILURES_IN_A_ROW = 8  # connections to one host; then it is left alone for a while
REST_S = 300.0


class HostState:
    """Pacing and policy files of hosts, in `folder`. `clock` gives seconds since 1970."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._seen: dict[str, tuple[tuple[int, int], bool]] = {}  # the host's file as it was, whether without pause
        self._failing: set[str] = set()  # hosts whose latest connection from this process failed
        folder.mkdir(parents=True, exist_ok=True)

    def turn(self, host: str, interval_s: float, patience_s: float) -> tuple[float, bool]:
        """(seconds to wait before asking again, True): 0 is the caller's turn to send its request to the host, now.

        Turns are `interval_s` apart. (pause, False) while the host wants a longer pause than `patience_s`.
        """
        now = self._clock()
        seen = self._signature(host)
        if interval_s == 0 and self._seen.get(host) == (seen, True):
            return 0.0, True  # nothing was written since there was no pause: no lock is needed
        with self._entry(host) as entry:
            pause = entry.get("resume", 0.0) - now
            if pause > patience_s:
                return pause, False
            wait_s = max(entry.get("sent", 0.0) + interval_s - now, pause, 0.0)
            if wait_s == 0 and interval_s > 0:
                entry["sent"] = now
        self._seen[host] = (seen, wait_s == 0)
        return wait_s, True

    def pause(self, host: str, seconds: float) -> None:
        """Nobody sends to the host for so long."""
        with self._entry(host) as entry:
            entry["resume"] = max(entry.get("resume", 0.0), self._clock() + seconds)

    def connected(self, host: str, success: bool) -> None:
        """Counts connections that fail in a row; after FAILURES_IN_A_ROW the host rests for REST_S."""
        if success and host not in self._failing:  # nearly always: no file is touched
            return
        (self._failing.discard if success else self._failing.add)(host)
        with self._entry(host) as entry:
            entry["failures"] = 0 if success else entry.get("failures", 0) + 1
            if entry["failures"] >= FAILURES_IN_A_ROW:
                entry["failures"], entry["resume"] = 0, self._clock() + REST_S

    async def kept(self, address: str, load: Callable[[], Awaitable[tuple[dict[str, Any], float]]]) -> dict[str, Any]:
        """The answer kept for an address while it is fresh, else what `load` gives, with its time to live in seconds.

        One caller among all processes loads; the others wait for it.
        """
        path = self._folder / f"{_name(address)}.answer.json"
        with path.with_suffix(".lock").open("a") as lock:
            while True:
                answer = self._fresh(path)
                if answer is not None:
                    return answer
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_POLL_S)
            answer = self._fresh(path)  # it may have come between the look and the lock
            if answer is None:
                answer, ttl_s = await load()
                text = json.dumps({"address": address, "until": self._clock() + ttl_s, "answer": answer})
                part = path.with_suffix(f".{os.getpid()}.part")
                part.write_text(text)
                part.replace(path)
            return answer

    def _fresh(self, path: Path) -> dict[str, Any] | None:
        try:
            stored = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return dict(stored["answer"]) if stored["until"] > self._clock() else None

    def _path(self, host: str) -> Path:
        return self._folder / f"{_name(host)}.host.json"

    def _signature(self, host: str) -> tuple[int, int]:
        try:
            found = self._path(host).stat()
        except FileNotFoundError:
            return (0, 0)
        return found.st_mtime_ns, found.st_size

    @contextmanager
    def _entry(self, host: str) -> Iterator[dict[str, Any]]:
        with self._path(host).open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            entry = _parsed(file)
            before = dict(entry)
            yield entry
            if entry != before:
                file.seek(0)
                file.truncate()
                file.write(json.dumps(entry))
                file.flush()


def _parsed(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        return dict(json.loads(file.read() or "{}"))
    except ValueError:
        return {}  # a process died while it wrote; what it knew is soon learnt again


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
