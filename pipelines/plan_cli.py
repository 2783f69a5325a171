"""`sapiens2 plan train`: cost, time and memory of a pretraining run before anything is spent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from components.settings import Settings, parse_overrides
from components.steps import PRETRAIN
from pipelines import display
from pipelines.plan_finetune import finetune_command

if TYPE_CHECKING:
    from sapiens2.pretrain.budget import Budget

console = display.console()
TERA, GIBIBYTE = 1e12, 2**30


@click.command("train")
@click.option("--recipe", default="", help="A recipe by name; without one and without --size they are listed.")
@click.option("--size", help="The paper's recipe at a size: 0.1b, 0.4b, 0.8b, 1b, 5b.")
@click.option("--gpus", default=1, show_default=True, help="GPUs that share the batch.")
@click.option("--gpu", default="h200", show_default=True, help="Kind of GPU: h200, h100 or a100.")
@click.option("--mfu", default=0.4, show_default=True, help="Share of the datasheet's FLOP/s that is reached.")
@click.option("--batch-per-gpu", type=int, help="Images of a micro-batch; default: the most that fit.")
@click.option(
    "--checkpointing",
    type=click.Choice(["none", "elementwise", "selective", "full"]),
    help="What backward computes again; default: what the recipe sets.",
)
@click.option("--eager", is_flag=True, help="Plan without compiled blocks.")
@click.option("--set", "pairs", multiple=True, metavar="pretrain.FIELD=VALUE", help="Override one setting.")
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
def train_command(recipe: str, size: str | None, pairs: tuple[str, ...], as_json: bool, **hardware: Any) -> None:
    """FLOPs, memory per GPU, days, GPU-hours and disk of a pretraining run."""
    from sapiens2.pretrain.budget import budget

    if recipe and size:
        raise click.UsageError("--recipe and --size both name a recipe: give one")
    name = recipe or size or ""
    if not name:
        console.print(_recipes())
        return
    config: Any = Settings(recipe=name, overrides=parse_overrides(pairs)).config(PRETRAIN)
    hardware["compiled"] = not hardware.pop("eager")
    hardware["checkpointing"] = hardware["checkpointing"] or config.engine.checkpointing
    made = budget(config, **hardware)
    if as_json:
        click.echo(json.dumps(made.summary() | {"recipe": name, **hardware}, indent=1))
        return
    for table in (_run(made, name), _arithmetic(made), _memory(made)):
        console.print(table)
        console.print()
    console.print(_verdict(made, hardware), soft_wrap=True)


def _recipes() -> Table:
    from sapiens2.pretrain.cost import step_cost
    from sapiens2.pretrain.recipe_names import RECIPES

    table = _table("recipe", "pixels", "batch", "steps", "TFLOP an image", "FLOP", "starts from", "what it is")
    for name, recipe in RECIPES.items():
        config = recipe.make()
        image = step_cost(config).total
        numbers = (f"{image / TERA:.3g}", f"{image * config.batch * config.engine.steps:.2g}")
        shape = "x".join(map(str, config.image_size))
        sizes = (shape, str(config.batch), str(config.engine.steps))
        table.add_row(name, *sizes, *numbers, recipe.starts_from or "scratch", recipe.summary)
    return table


def _run(made: Budget, name: str) -> Table:
    config = made.config
    table = _table(f"recipe {name}", "")
    table.add_row("backbone", f"{config.size}, {config.image_size[0]} x {config.image_size[1]} pixels")
    table.add_row("steps", f"{config.engine.steps:,} of {config.batch:,} images: {made.images:,} images")
    table.add_row("arithmetic", f"{made.flops:.3g} FLOP")
    table.add_row("speed", f"{made.images_per_second:.2f} images/s on {made.gpus} GPU(s)")
    table.add_row("time", f"{made.days:.2f} days, {made.gpu_hours:,.0f} GPU-hours")
    table.add_row("disk", f"{made.state / 1e9:.2f} GB a saved state, {made.weights / 1e9:.2f} GB the backbone")
    return table


def _arithmetic(made: Budget) -> Table:
    table = _table("FLOPs per image", "TFLOP", "share")
    for part, flops in {**made.cost._asdict(), "total": made.cost.total}.items():
        table.add_row(part, f"{flops / TERA:.3f}", f"{flops / made.cost.total:.1%}")
    if made.recomputed:
        table.add_row("computed twice", f"{made.recomputed / TERA:.3f}", f"+{made.recomputed / made.cost.total:.1%}")
    return table


NOTES = {
    "weights": "student, heads and decoder in fp32",
    "teacher": "the running mean, in fp32",
    "encoder": "kept for the backward pass",
    "decoder": "kept for the backward pass",
    "rest": "patches, class tokens, logits",
    "working": "16-bit copies, gathered and recomputed blocks, workspaces",
    "overlap": "gradients that come as what was kept goes",
}


def _memory(made: Budget) -> Table:
    table = _table("memory per GPU", "GiB", f"{made.layout.images} image(s) at a time")
    for part, size in {**made.memory.parts(), "total": made.memory.total}.items():
        table.add_row(part, f"{size / GIBIBYTE:.2f}", NOTES.get(part, ""))
    return table


def _verdict(made: Budget, hardware: dict[str, Any]) -> str:
    room = f"{made.room / GIBIBYTE:.0f} GiB of a {hardware['gpu']}"
    if made.fits:
        shown = f"fits into the {room} with {made.batch_per_gpu} images at a time (the most: {made.largest_batch})"
        return f"{shown}: " + " ".join(f"--set pretrain.engine.{k}={str(v).lower()}" for k, v in made.settings.items())
    how = made.checkpointing_that_fits
    mend = f"try --checkpointing {how}" if how and not made.largest_batch else "use more GPUs or a smaller size"
    if made.largest_batch:
        mend = f"at most {made.largest_batch} images at a time fit: leave --batch-per-gpu out, or {mend}"
    return f"[yellow]does not fit[/] into the {room}: {mend}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in ("TFLOP", "GiB", "share", "batch", "steps") else "left")
    return table


COMMANDS = {"train": train_command, "finetune": finetune_command}
