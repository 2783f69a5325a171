"""`sapiens2 data ...`: look into labelled data, bring other formats into the layout, and take labels out of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from components.steps import TASKS
from pipelines import display
from pipelines.cli import USER_ERROR

console = display.console()
SHOWN = 20  # problems printed; the page has more


@click.command("check")
@click.argument("folder")
@click.option("--task", "tasks", multiple=True, type=click.Choice(TASKS), help="Only this task; may be repeated.")
@click.option("--show", default=8, help="Samples drawn per task.")
@click.option("--out", type=click.Path(), help="Folder for check.html and sheet.png; default ./data-check.")
def check_command(folder: str, tasks: tuple[str, ...], show: int, out: str | None) -> None:
    """Read every sample and judge it: ranges, units, axes, sizes; exit code 2 when anything is wrong."""
    from sapiens2.data.labelled.check import check

    report = check(_absolute(folder), tasks or None, show=show)
    for task, counts in report.counts.items():
        splits = ", ".join(f"{count} {name}" for name, count in counts["splits"].items())
        console.print(f"{task}: {counts['samples']} samples ({splits}), {counts['unreadable']} unreadable")
        for name, value in counts.items():
            if name not in ("samples", "splits", "unreadable"):
                console.print(f"    {name}: {_text(value)}", markup=False, soft_wrap=True)
    problems = sorted(report.problems, key=lambda problem: not problem.error)
    for problem in problems[:SHOWN]:
        console.print(str(problem), markup=False, soft_wrap=True)
    if len(problems) > SHOWN:
        console.print(f"and {len(problems) - SHOWN} more, on the page")
    where = _draw(report, Path(out or "data-check"))
    warnings = len(problems) - report.errors
    console.print(f"{report.rows} rows, {report.errors} errors, {warnings} warnings; {where}", soft_wrap=True)
    if report.errors:
        sys.exit(USER_ERROR)


def _draw(report: Any, out: Path) -> str:
    """Write the page, and the sheet where there is anything to show; says where."""
    from sapiens2.data.labelled.sheet import contact_sheet, page, tile
    from sapiens2.data.labelled.write import png_bytes

    out.mkdir(parents=True, exist_ok=True)
    (out / "check.html").write_text(page(report), encoding="utf-8")
    if report.shown:
        tiles = [tile(task, sample) for task, _, sample in report.shown]
        (out / "sheet.png").write_bytes(png_bytes(contact_sheet(tiles)))
    return f"pictures in {out / 'check.html'}"


def _text(value: Any) -> str:
    from sapiens2.data.labelled.sheet import range_text

    return range_text(value)


def _absolute(folder: str) -> str:
    return folder if "://" in folder else str(Path(folder).expanduser().absolute())


COMMANDS = {command.name or "": command for command in (check_command,)}
