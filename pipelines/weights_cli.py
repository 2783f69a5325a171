"""`sapiens2 weights import | export`: other people's weights in, ours out, both strictly checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines import display
from pipelines.chosen_settings import absolute
from pipelines.cli_options import root_option

if TYPE_CHECKING:
    from torch import Tensor

    from sapiens2.tasks.told import Told

console = display.console()


@click.command("import")
@click.argument("file")
@click.option("--out", type=click.Path(), help="Write a .safetensors file instead of an artifact.")
@click.option("--size", help="The size, where the guess from the file's shapes is not wanted.")
@click.option("--task", help="Import the whole task model; without it the backbone of a task checkpoint.")
@click.option("--image-size", nargs=2, type=click.IntRange(16), metavar="H W", help="Where the file does not say it.")
@click.option("--licence", default="", help="What the manifest shall say of the weights' licence.")
@root_option
def import_command(
    file: str,
    out: str | None,
    size: str | None,
    task: Any,
    image_size: tuple[int, int] | None,
    licence: str,
    root: str,
) -> None:
    """Take in FILE: released names or the transformers port's, a backbone or a task checkpoint."""
    from sapiens2.exchange import licence_of, read_checked, recognise
    from sapiens2.tasks.told import Told

    file = absolute(file)
    found = recognise(file, size)
    state = read_checked(file, found, task)
    console.print(f"{file}: {found.text}", soft_wrap=True, markup=False)
    if found.has_head and task is None:
        console.print("only its backbone is taken; --task TASK takes the whole model")
    if out is not None:
        said = {"task": task, "image_size": image_size or found.told.image_size}
        told = found.told.model_copy(update=said) if task else Told(image_size=said["image_size"])
        _write(state, Path(out), found.rope_dtype, licence or licence_of(file), told)
        return
    from components.artifacts import Store
    from components.import_weights import import_weights

    del state  # it is read again, by whoever writes the artifact
    outcome = import_weights(file, Store(root), size=size, task=task, licence=licence, image_size=image_size)
    made = outcome.artifact
    (model,) = made.manifest.models
    console.print(f"{'reused' if outcome.reused else 'made'} {made}, now the latest {made.kind}")
    console.print(f"licence: {model.licence}; sha256 {model.sha256}", soft_wrap=True, markup=False)
    if task is None:
        windows = " --set finetune.window_tokenizer=true" if found.window_tokenizer else ""
        use = f"train finetune --task pose --set finetune.size={found.size}{windows} --input {made}"
        console.print(f"use it: sapiens2 {use}", soft_wrap=True)


@click.command("export")
@click.argument("reference")
@click.option("--out", required=True, type=click.Path(), help="The .safetensors file to write.")
@click.option(
    "--naming",
    type=click.Choice(["released", "transformers"]),
    default="released",
    show_default=True,
    help="Names of the official release, or of the transformers port (backbones without the window tokenizer).",
)
@root_option
def export_command(reference: str, out: str, naming: Any, root: str) -> None:
    """Write the weights of REFERENCE, a .safetensors file or an artifact like backbone=VERSION, for other programs."""
    from components.artifacts import Store
    from components.import_weights import exported
    from sapiens2.exchange import HEAD, backbone_part, read_checked, recognise, renamed
    from sapiens2.model.weights import read_state
    from sapiens2.tasks.told import Told

    path, licence, told = exported(
        absolute(reference) if reference.endswith(".safetensors") else reference, Store(root)
    )
    found = recognise(path)
    if naming == "released" and found.has_head:
        state = read_state(path)
    elif found.has_head:
        console.print("only the backbone is written: the heads have no transformers names here")
        state = renamed(backbone_part(read_checked(path, found)), naming)
    else:
        state = renamed(read_checked(path, found), naming)
    if not any(name.startswith(HEAD) for name in state):
        told = Told(image_size=told.image_size)
    _write(state, Path(out), found.rope_dtype, licence, told)
    if found.rope_dtype == "float32":
        console.print("note: these weights rotate in float32; the official code rotates in bfloat16, about 0.3 % apart")


def _write(state: dict[str, Tensor], out: Path, rope_dtype: str | None, licence: str, told: Told) -> None:
    from sapiens2.model.weights import write_state

    partial = out.with_name(f".{out.name}.partial")
    about = told.model_dump_json(exclude_defaults=True)
    write_state(state, partial, rope_dtype=rope_dtype, licence=licence, about="" if about == "{}" else about)
    partial.replace(out)
    count = sum(tensor.numel() for name, tensor in state.items() if not name.endswith("periods"))
    size = f"{count / 1e6:.1f} M parameters, {out.stat().st_size / 1e6:.1f} MB"
    console.print(f"wrote {out}: {len(state)} tensors, {size}; licence: {licence}", soft_wrap=True, markup=False)


COMMANDS = {command.name or "": command for command in (import_command, export_command)}
