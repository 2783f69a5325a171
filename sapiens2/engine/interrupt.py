"""Being asked to stop: SIGTERM, Ctrl-C, or a caller's own question."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop, saved its state and can be continued by the same command."""

    def __init__(self, step: int, steps: int, state: str) -> None:
        super().__init__(
            f"stopped after step {step} of {steps}; the state is saved in {state}: "
            "run the same command again to continue"
        )
        self.step = step

    @classmethod
    def told(cls, message: str, step: int) -> Interrupted:
        """The same interruption, reported by another process."""
        error = cls.__new__(cls)
        Exception.__init__(error, message)
        error.step = step
        return error


class StopRequest:
    """Context manager: SIGTERM and the first Ctrl-C become a flag that the loop reads between two steps.

    A second signal has its usual effect. Signals can be caught in the main thread only; elsewhere `asked` alone counts.
    """

    def __init__(self, asked: Callable[[], bool] | None = None) -> None:
        self._asked = asked
        self._signalled = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exc: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self._signalled or (self._asked is not None and self._asked())
