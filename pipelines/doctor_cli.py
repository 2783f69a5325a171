"""`sapiens2 doctor`: what works on this machine. `sapiens2 doctor train`: how fast pretraining is on it."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from components.settings import Settings, parse_overrides
from components.steps import PRETRAIN
from pipelines import display
from pipelines.cli_options import unseen_root_option

if TYPE_CHECKING:
    from sapiens2.pretrain.measure import Measured

console = display.console()
GIBIBYTE, TERA = 2**30, 1e12
OK, NOTE, WRONG = "[green]ok[/]", "[yellow]note[/]", "[red]wrong[/]"
LITTLE_MEMORY, LITTLE_DISK = 4 * GIBIBYTE, 5 * GIBIBYTE
RAY_SECONDS = 60
LONG_WAIT = 0.02  # share of a step
Finding = tuple[str, str, str]  # state, what, text


@click.group("doctor", invoke_without_command=True)
@click.option("--no-ray", is_flag=True, help="Do not start a Ray, which takes some seconds.")
@unseen_root_option
@click.pass_context
def doctor(context: click.Context, no_ray: bool, root: str) -> None:
    """What works on this machine; exit code 1 when something is wrong. `doctor train` measures pretraining."""
    if context.invoked_subcommand is not None:
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    states = []
    for state, what, text in _findings(root, no_ray):
        states.append(state)
        table.add_row(state, what, text)
    console.print(table)
    if WRONG in states:
        console.print("something is wrong: mend what is marked, then run `sapiens2 doctor` again")
        sys.exit(1)
    console.print("everything that `sapiens2 run` needs works here")


def _findings(root: str, no_ray: bool) -> Iterator[Finding]:
    version = platform.python_version()
    supported = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield OK if supported else WRONG, "Python", version if supported else f"{version}: 3.11 to 3.13 are supported"
    yield _torch()
    yield from _gpus()
    yield _memory()
    yield _disk(root)
    yield _chromium()
    yield _weights()
    yield (NOTE, "Ray", "not tried") if no_ray else _ray()


def _torch() -> Finding:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        return WRONG, "torch", f"cannot be imported: {error}"
    return OK, "torch", f"{torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores"


def _gpus() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield NOTE, "GPU", "none that torch can use: the builtin and small profiles and tiny training work without"
    for index in range(torch.cuda.device_count()):
        free, whole = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield OK, f"GPU {index}", f"{name}, {free / GIBIBYTE:.1f} of {whole / GIBIBYTE:.1f} GiB free"


def _memory() -> Finding:
    import torch

    from sapiens2.engine.capacity import available_bytes

    free = available_bytes(torch.device("cpu"))
    if free is None:
        return NOTE, "memory", "this system does not tell"
    state = OK if free >= LITTLE_MEMORY else NOTE
    return state, "memory", f"{free / GIBIBYTE:.1f} GiB free" + ("" if state is OK else "; the demo needs about 4")


def _disk(root: str) -> Finding:
    if "://" in root and not root.startswith("file://"):
        return _store(root)
    folder = Path(root).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        return WRONG, "disk", f"{folder} cannot be written: choose another --root, or set SAPIENS2_ROOT"
    state = OK if free >= LITTLE_DISK else NOTE
    return state, "disk", f"{free / 1e9:.1f} GB free under {folder}"


def _store(root: str) -> Finding:
    from components.storage import Storage

    try:
        Storage(root).ensure_writable()
    except ValueError as error:
        return WRONG, "store", str(error)
    return OK, "store", f"{root} is read and written"


def _chromium() -> Finding:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    return (OK, "Chromium", found) if found else (NOTE, "Chromium", "absent: only the screenshot tests need it")


def _weights() -> Finding:
    from curation.models.weights import MODELS, find

    there, wrong = 0, []
    for spec in MODELS.values():
        try:
            find(spec, download=False)
            there += 1
        except FileNotFoundError:
            continue
        except ValueError:
            wrong.append(spec.name)
    if wrong:
        return WRONG, "networks", f"{', '.join(wrong)}: not the pinned bytes; see `sapiens2 models verify`"
    return OK if there else NOTE, "networks", f"{there} of {len(MODELS)} files found; the builtin profile needs none"


def _ray() -> Finding:
    """A Ray in a process of its own, as a run starts one."""
    code = "from components.ray_session import ray_session\nwith ray_session():\n    pass"
    began = time.monotonic()
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=RAY_SECONDS)
    except subprocess.TimeoutExpired:
        return WRONG, "Ray", f"did not start within {RAY_SECONDS} s"
    if done.returncode:
        return WRONG, "Ray", (done.stderr.strip().splitlines() or ["it ended with an error"])[-1]
    return OK, "Ray", f"starts and ends in {time.monotonic() - began:.1f} s"


@doctor.command("train")
@click.option("--recipe", default="", help="A pretraining recipe; see `sapiens2 plan train`.")
@click.option("--size", help="The paper's recipe at a size; tiny for a CPU.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Images of a step.")
@click.option("--image-size", nargs=2, type=int, metavar="HEIGHT WIDTH", help="Global views; local ones are half.")
@click.option(
    "--steps", type=click.IntRange(1), default=10, show_default=True, help="Timed steps, after two that are not."
)
@click.option("--set", "pairs", multiple=True, metavar="pretrain.FIELD=VALUE", help="Override one setting.")
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
def train_command(
    recipe: str,
    size: str | None,
    batch: int,
    image_size: tuple[int, int] | None,
    steps: int,
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure a pretraining step: block, step, images/s, MFU, memory, waiting; each beside its prediction."""
    import torch

    from sapiens2.pretrain.measure import measure

    if recipe and size:
        raise click.UsageError("--recipe and --size both name a recipe: give one")
    overrides: dict[str, Any] = {"pretrain.batch": batch, "pretrain.koleo_group": _group(batch)}
    if image_size:
        overrides |= {"pretrain.image_size": image_size, "pretrain.local_size": [side // 2 for side in image_size]}
    if not torch.cuda.is_available():
        overrides["pretrain.engine.compile"] = False  # a minute of a C++ compiler, for a few steps
    name = recipe or size or "tiny"
    config: Any = Settings(recipe=name, overrides=overrides | parse_overrides(pairs)).config(PRETRAIN)
    device = torch.device("cuda" if torch.cuda.is_available() and config.engine.device != "cpu" else "cpu")
    found = measure(config, device, steps)
    if as_json:
        click.echo(json.dumps({"recipe": name, "batch": batch, "mfu": found.mfu} | vars(found), indent=1))
        return
    console.print(_measured(found, name, batch))
    console.print(_advice(found, config), soft_wrap=True)


def _group(batch: int) -> int:
    """The largest KoLeo group, up to the paper recipe's 8, that divides the batch."""
    groups = [size for size in range(2, 9) if batch % size == 0]
    if not groups:
        raise ValueError(f"--batch {batch} does not divide into KoLeo groups of 2 to 8 images: use an even number")
    return groups[-1]


def _measured(found: Measured, name: str, batch: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (f"{name}, {batch} images, {found.device}", "measured", "predicted", ""):
        table.add_column(column, justify="right" if column in ("measured", "predicted") else "left")
    lower = "at the rate of a large matrix product"
    table.add_row("one block, forward and backward", _time(found.block), _time(found.block_at_peak), lower)
    table.add_row("one step", _time(found.step), _time(found.step_at_peak), lower)
    table.add_row("images a second", f"{found.images_per_second:.2f}", "", "")
    table.add_row("arithmetic, TFLOP/s", f"{found.flops / TERA:.3f}", f"{found.matrix_flops / TERA:.3f}", "attainable")
    if found.mfu is not None:
        table.add_row("MFU", f"{found.mfu:.1%}", "", f"of {(found.peak_flops or 0) / TERA:.0f} TFLOP/s")
    sizes = (f"{found.memory / GIBIBYTE:.2f} GiB", f"{found.memory_predicted / GIBIBYTE:.2f} GiB")
    table.add_row("memory", *sizes, "growth of this process" if found.device == "CPU" else "most allocated")
    table.add_row("waiting for data", f"{found.data_wait:.1%}", f"< {LONG_WAIT:.0%}", "JPEGs of 1.8 megapixels")
    table.add_row("views of a picture", _time(found.views), "", "on one core, decoding included")
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _advice(found: Measured, config: Any) -> str:
    """One line to act on: the first thing that is far from what it could be."""
    cores = found.views * found.images_per_second
    if found.data_wait > LONG_WAIT:
        return f"do this: {found.data_wait:.0%} of the step waits for batches; raise pretrain.engine.prefetch"
    if found.device != "CPU" and found.memory > found.memory_predicted * 1.1:
        return "do this: more memory than predicted; lower the batch by an eighth before a long run"
    if found.mfu is not None and found.mfu < 0.3 and not getattr(config.engine, "compile", False):
        return f"do this: MFU is {found.mfu:.0%}; try --set pretrain.engine.compile=true"
    if cores > 0.8:
        return (
            f"do this: views at {found.images_per_second:.1f} images/s take {cores:.1f} cores; set "
            f"pretrain.engine.loader_workers={max(1, round(cores + 0.5))}"
        )
    share = found.step_at_peak / found.step
    return f"ready to train: {found.images_per_second:.2f} images/s, {share:.0%} of what this device attains"
