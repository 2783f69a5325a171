"""How a run talks to whoever started it: when to stop, what to show, whom to tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Control:
    """Hooks of a run; none of them changes its result."""

    stop: Callable[[], bool] | None = None  # asked between steps; True saves the state and raises Interrupted
    on_row: Callable[[dict[str, Any]], None] | None = None  # called on rank 0 with each row of history
    shows: bool = True  # whether rank 0 writes progress to stderr


PLAIN = Control()
