"""`sapiens2 models ...`: which third-party networks are known, where their files are, whether they are right."""

from __future__ import annotations

import sys

import click
from rich.table import Table

from pipelines import display

console = display.console()


@click.command("list")
def list_command() -> None:
    """Every known network, its licence, and where its file was found; put files into $SAPIENS2_MODELS."""
    from curation.models.weights import MODELS, find

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "licence", "file"):
        table.add_column(name, overflow="fold")
    for spec in MODELS.values():
        try:
            where = str(find(spec, download=False))
        except FileNotFoundError:
            where = f"[dim]absent: {spec.filename}[/]"
        except ValueError as problem:
            where = f"[red]{problem}[/]"
        table.add_row(spec.name, spec.licence, where)
    console.print(table)


@click.command("verify")
def verify_command() -> None:
    """Hold every file that is there against its pinned sha256; exit code 1 when one differs."""
    from curation.models.weights import MODELS, find

    wrong = 0
    for spec in MODELS.values():
        try:
            console.print(f"ok       {spec.name}  {find(spec, download=False)}", soft_wrap=True)
        except FileNotFoundError:
            console.print(f"absent   {spec.name}")
        except ValueError as problem:
            wrong += 1
            console.print(f"[red]wrong[/]    {spec.name}  {problem}", soft_wrap=True)
    if wrong:
        sys.exit(1)


COMMANDS = {command.name or "": command for command in (list_command, verify_command)}
