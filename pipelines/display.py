"""What a run shows in the terminal: a live table while it works, a closing table to act on, the plan of a dry run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from components.artifacts import Artifact
    from components.plan import PlannedStep

WIDTH = 130
MARKS = {"done": ("✓", "green"), "reused": ("=", "cyan"), "running": ("▸", "yellow"), "failed": ("✗", "red")}


def console() -> Console:
    """A console as wide as the terminal; where there is none, wide enough for the tables."""
    made = Console(highlight=False)
    return made if made.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=WIDTH)


@contextmanager
def counted(verb: str, what: str, total: int, console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line now and then elsewhere; it is told how many of how many are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if console.is_terminal:
        columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            row = bar.add_task(verb, total=total)
            yield lambda done, of: bar.update(row, completed=done, total=of)
        return
    told = [0]

    def line(done: int, of: int) -> None:
        if done == of or done - told[0] >= max(1, of // 10):
            told[0] = done
            console.print(f"{verb} {done}/{of} {what}")

    yield line


class LiveTable:
    """The steps with their state, redrawn in place on a terminal; elsewhere one line for each step that ends."""

    def __init__(self, console: Console, planned: Sequence[PlannedStep]) -> None:
        self.console, self.planned = console, planned
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._told: set[str] = set()

    def __enter__(self) -> LiveTable:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, records: Mapping[str, dict[str, Any]]) -> None:
        """Show the newest records."""
        if self._live:
            self._live.update(self._table(records))
            return
        for name, record in records.items():
            if record["state"] != "running" and name not in self._told:
                self._told.add(name)
                text = record.get("error") or counts(record) or record.get("headline") or ""
                self.console.print(f"{record['state']:>7} {name:<22} {record['seconds']:7.1f} s  {text}", markup=False)

    def _table(self, records: Mapping[str, dict[str, Any]]) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for each in self.planned:
            record = records.get(each.step.name)
            state = record["state"] if record else "waiting"
            mark, colour = MARKS.get(state, ("·", "dim"))
            table.add_row(Text(mark, colour), Text(each.step.name, "" if record else "dim"), *_cells(record))
        return table


def _cells(record: Mapping[str, Any] | None) -> tuple[Text, Text]:
    if record is None:
        return Text(""), Text("")
    if record["state"] == "running" and record.get("total"):
        width, share = 20, record["done"] / record["total"]
        bar = "━" * round(width * share)
        note = f"{record['done']}/{record['total']} {record['unit']} {record.get('note') or ''}"
        return Text(f"{bar:<{width}}", "yellow"), Text(note, "dim")
    return Text(f"{record['seconds']:6.1f} s", "dim"), Text(counts(record) or record.get("headline") or "")


def counts(record: Mapping[str, Any]) -> str:
    """`120 in, 64 kept, 56 dropped`, where a step counts rows."""
    if record.get("rows_in") is None:
        return ""
    return f"{record['rows_in']} in, {record.get('kept')} kept, {record.get('dropped', 0)} dropped"


def summary_table(
    planned: Sequence[PlannedStep], made: Mapping[str, Artifact], records: Mapping[str, dict[str, Any]]
) -> Table:
    """Steps with rows in, kept and dropped, seconds and version."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "", "in", "kept", "dropped", "seconds", "version"):
        table.add_column(
            name, justify="right" if name in ("in", "kept", "dropped", "seconds") else "left", no_wrap=True
        )
    table.add_column("result", overflow="fold")
    for each in planned:
        metrics = made[each.step.name].manifest.metrics
        state = records.get(each.step.name, {}).get("state", "reused" if each.reused else "done")
        dropped = sum((metrics.get("dropped") or {}).values())
        has_rows = metrics.get("rows_in") is not None
        cells = [str(metrics["rows_in"]), str(metrics["kept"]), str(dropped)] if has_rows else ["", "", ""]
        seconds = "" if state == "reused" else f"{metrics.get('seconds', 0):.1f}"
        headline = metrics.get("headline") or ""
        table.add_row(each.step.name, state, *cells, seconds, each.version, headline)
    return table


def plan_table(planned: Sequence[PlannedStep]) -> Table:
    """What is reused, what runs, and why."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "version", "", "why"):
        table.add_column(name, overflow="fold")
    for each in planned:
        table.add_row(each.step.name, each.version, "reuse" if each.reused else "[yellow]run[/]", each.why)
    return table
