"""What a person sees while a model trains: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from sapiens2.engine.history import Row


class Reporter:
    """Shows steps and losses if `shows`, and passes each row on to `listener`."""

    def __init__(
        self,
        title: str,
        steps: int,
        done: int,
        *,
        shows: bool,
        listener: Callable[[Row], None] | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._title, self._steps, self._stream = title, steps, stream or sys.stderr
        self._live: Progress | None = None
        self._shows, self._listener = shows, listener
        if shows and self._stream.isatty():
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=16),
                MofNCompleteColumn(table_column=Column(no_wrap=True)),
                TimeRemainingColumn(table_column=Column(no_wrap=True)),
                TextColumn("{task.fields[losses]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
                console=Console(file=self._stream),
            )
            self._task = self._live.add_task(title, total=steps, completed=done, losses="")

    def __enter__(self) -> Reporter:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def stepped(self, done: int) -> None:
        """A step ended."""
        if self._live:
            self._live.update(self._task, completed=done)

    def row(self, row: Row) -> None:
        """A row of history was read."""
        if self._listener is not None:
            self._listener(row)
        if self._live:
            self._live.update(self._task, losses=describe(row, terms=1))
        elif self._shows:
            print(f"{self._title} {row['step']}/{self._steps} {describe(row)}", file=self._stream, flush=True)


def describe(row: Row, terms: int | None = None) -> str:
    """The total, then the terms (only the first `terms` of them all), the rate and the speed of one row in a line."""
    aside = {
        "step",
        "lr",
        "grad_norm_max",
        "seconds_per_step",
        "data_wait",
        "skipped",
        "images_per_s",
        "mfu",
        "memory_gib",
    }
    names = ["loss", *(name for name in row if name not in aside | {"loss"})]
    told = [f"{name} {row[name]:.4g}" for name in names[:terms] if isinstance(row.get(name), float)]
    skipped = [f"skipped {row['skipped']}"] if row.get("skipped") else []
    return "  ".join([*told, f"lr {row['lr']:.2e}", f"{row['seconds_per_step'] * 1e3:.0f} ms/step", *skipped])
