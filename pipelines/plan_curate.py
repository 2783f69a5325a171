"""`sapiens2 plan curate`: what curating a pool would take, before anything is spent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.table import Table

from pipelines import display

if TYPE_CHECKING:
    from components.curation_plan import StepPlan

console = display.console()


@click.command("curate")
@click.option("--images", type=float, required=True, help="Pictures that are listed: 4e9.")
@click.option("--cpus", type=click.IntRange(1), default=2, show_default=True, help="Cores of all machines together.")
@click.option("--gpus", type=click.IntRange(0), default=0, show_default=True, help="GPUs of all machines together.")
@click.option("--profile", default="builtin", show_default=True, help="Models: builtin, small or full.")
@click.option("--network-gbit", type=click.FloatRange(0), default=0.0, help="Download speed of all; 0: no download.")
@click.option("--memory-gb", type=click.FloatRange(1), default=256.0, show_default=True, help="Of the largest machine.")
@click.option("--root", help="Take the rates from the newest run under this root, where it has them.")
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
def curate_command(
    images: float,
    cpus: int,
    gpus: int,
    profile: str,
    network_gbit: float,
    memory_gb: float,
    root: str | None,
    as_json: bool,
) -> None:
    """Hours, core-hours, storage, shuffle and memory of every curation step, and what dominates."""
    from components.artifacts import Store
    from components.curation_plan import as_record, largest_pool, measured, plan, shipped

    rates = shipped(profile)
    if root:
        rates = measured(Store(root), rates)
    steps = plan(rates, images, cpus=cpus, gpus=gpus, network_gbit=network_gbit)
    most = largest_pool(rates, memory_gb * 1e9)
    if as_json:
        click.echo(json.dumps({"steps": [as_record(step) for step in steps], "largest_pool": most}, indent=1))
        return
    console.print(_table(steps))
    console.print()
    longest = max(steps, key=lambda step: step.hours)
    total = sum(step.hours for step in steps)
    share = longest.hours / total if total else 0.0
    console.print(f"{longest.step} dominates: {share:.0%} of {total:,.1f} hours, bound by {longest.bound}")
    if images > most:
        console.print(
            f"[yellow]does not fit:[/] the global steps work in one process, and {memory_gb:g} GB hold a pool of "
            f"{most:.2g} pictures: curate {images / most:,.0f} pools of that size, or give --memory-gb",
            soft_wrap=True,
        )
    console.print(f"[dim]rates of {rates.hardware}; steps beyond the measured rows are extrapolated[/]", soft_wrap=True)
    for source in dict.fromkeys(f"{step.step}: {step.source}" for step in steps):
        console.print(f"[dim]  {source}[/]", soft_wrap=True)


def _table(steps: list[StepPlan]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "rows in", "hours", "bound by", "core-hours", "GPU-hours", "stored", "shuffled", "memory"):
        table.add_column(name, justify="left" if name in ("step", "bound by") else "right")
    for s in steps:
        sizes = (size(s.stored), size(s.shuffled), size(s.memory))
        hours = (f"{s.hours:,.2f}", s.bound, f"{s.core_hours:,.1f}", f"{s.gpu_hours:,.1f}" if s.gpu_hours else "")
        table.add_row(s.step, f"{s.rows:,.0f}", *hours, *sizes)
    total = (f"{sum(s.hours for s in steps):,.2f}", "", f"{sum(s.core_hours for s in steps):,.1f}")
    gpu = sum(s.gpu_hours for s in steps)
    sums = (f"{gpu:,.1f}" if gpu else "", size(sum(s.stored for s in steps)), size(sum(s.shuffled for s in steps)), "")
    table.add_row("all", "", *total, *sums)
    return table


def size(n_bytes: float) -> str:
    """Bytes with a unit of 1000; nothing for none."""
    for unit, value in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= value:
            return f"{n_bytes / value:.3g} {unit}"
    return f"{n_bytes:.0f} B" if n_bytes else ""


COMMANDS = {"curate": curate_command}
