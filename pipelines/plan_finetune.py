"""`sapiens2 plan finetune`: what post-training needs in memory, by task, size and mode, before anything is spent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from components.settings import Settings, parse_overrides
from components.steps import STEPS, TASKS
from pipelines import display
from pipelines.chosen_settings import tuned

if TYPE_CHECKING:
    from sapiens2.tasks.memory import Memory

GIGABYTE = 1e9
SIZES = ("0.1b", "0.4b", "0.8b", "1b", "5b")


@click.command("finetune")
@click.option("--task", "tasks", multiple=True, type=click.Choice(TASKS), help="May be repeated; default all five.")
@click.option("--size", "sizes", multiple=True, type=click.Choice(SIZES), help="May be repeated; default all five.")
@click.option("--source", type=click.Choice(["release", "paper"]), default="release", show_default=True)
@click.option("--gpu", default="h200", show_default=True, help="Kind of GPU: h200, h100 or a100.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="GPUs that share the weights.")
@click.option("--rank", type=click.IntRange(1), default=16, show_default=True, help="Of the low-rank corrections.")
@click.option("--set", "pairs", multiple=True, metavar="finetune.FIELD=VALUE", help="Override one setting.")
@click.option("--transforms", is_flag=True, help="What is done to training samples, in place of memory.")
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
def finetune_command(
    tasks: tuple[str, ...],
    sizes: tuple[str, ...],
    source: str,
    gpu: str,
    gpus: int,
    rank: int,
    pairs: tuple[str, ...],
    transforms: bool,
    as_json: bool,
) -> None:
    """Memory of fine-tuning whole, with a frozen backbone and with low-rank corrections, and the batch that fits.

    Without --task and --size it lists the recipes.
    """
    from sapiens2.pretrain.budget import GPUS

    if gpu not in GPUS:
        raise ValueError(f"unknown GPU {gpu!r}; choose one of {', '.join(GPUS)}")
    if transforms:
        display.console().print(transform_table(tasks or TASKS, (sizes or ("1b",))[0], source, parse_overrides(pairs)))
        return
    if not tasks and not sizes:
        display.console().print(recipe_table(source))
        return
    rows = memory_rows(tasks or TASKS, sizes or SIZES, source, GPUS[gpu].memory, gpus, rank, pairs)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    display.console().print(_memory_table(rows, f"batch on {gpus} x {gpu}"))
    display.console().print(
        "GB of one GPU with one picture: fp32 weights, gradients and moments, and what the backward pass keeps; "
        "kernels need more beside it. The batch is the most pictures at a time on each GPU, before that.",
        soft_wrap=True,
    )


def recipe_table(source: str) -> Table:
    """Every published recipe: one row a task and size."""
    table = _table("task", "size", "learning rate", "layer decay", "clip", "schedule", "steps", "batch", "precision")
    for task in TASKS:
        for size in SIZES:
            config = _config(task, size, source, {})
            engine = config.engine
            numbers = (f"{engine.lr:g}", f"{config.layer_decay:g}", f"{engine.clip_norm:g}", engine.schedule)
            table.add_row(task, size, *numbers, f"{engine.steps:,}", str(config.batch), engine.precision)
    return table


def transform_table(tasks: tuple[str, ...], size: str, source: str, overrides: dict[str, Any]) -> Table:
    """The transforms of each task's recipe in the order in which they are drawn, overrides applied."""
    from sapiens2.tasks.augmentation import augmentation

    table = _table("task", "transform", "probability", "settings", "what it is")
    for task in tasks:
        config = _config(task, size, source, overrides)
        for name, transform in augmentation(config.task, config.augmentation, config.augment).items():
            fields = transform.model_dump(exclude={"p"})
            told = ", ".join(f"{field} {value}" for field, value in fields.items())
            table.add_row(task, name, f"{transform.p:g}", told, (type(transform).__doc__ or "").splitlines()[0])
    return table


def memory_rows(
    tasks: tuple[str, ...],
    sizes: tuple[str, ...],
    source: str,
    room: int,
    gpus: int,
    rank: int,
    pairs: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """One row per task, size and mode: parameters that are trained, bytes of each kind, the batch that fits."""
    from sapiens2.tasks.memory import by_mode

    overrides = parse_overrides(pairs)
    rows = []
    for task in tasks:
        for size in sizes:
            found = by_mode(_config(task, size, source, overrides), rank)
            rows += [{"task": task, "size": size, "mode": mode} | _numbers(m, room, gpus) for mode, m in found.items()]
    return rows


def _config(task: str, size: str, source: str, overrides: dict[str, Any]) -> Any:
    settings = tuned(Settings(overrides=overrides), task, f"{size}:{source}", None)
    return settings.config(STEPS[f"finetune-{task}"])


def _numbers(memory: Memory, room: int, gpus: int) -> dict[str, int]:
    return {
        "trained_parameters": memory.trained,
        "weights": memory.weights // gpus,
        "gradients_and_moments": (memory.gradients + memory.moments) // gpus,
        "activations_per_picture": memory.activations,
        "total": memory.held(gpus) + memory.activations,
        "largest_batch_per_gpu": memory.largest_batch(room, gpus),
    }


def _memory_table(rows: list[dict[str, Any]], fits: str) -> Table:
    parts = ("weights", "gradients_and_moments", "activations_per_picture", "total")
    table = _table("task", "size", "mode", "trained", "weights", "gradients, moments", "a picture", "sum", fits)
    for row in rows:
        batch = row["largest_batch_per_gpu"]
        sizes = (f"{row[part] / GIGABYTE:.1f}" for part in parts)
        trained = f"{row['trained_parameters'] / 1e6:,.0f} M"
        table.add_row(row["task"], row["size"], row["mode"], trained, *sizes, str(batch) if batch else "none fits")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        left = column in ("task", "size", "mode", "schedule", "precision", "transform", "settings", "what it is")
        table.add_column(column, justify="left" if left else "right")
    return table
