"""Rendered people as labelled data: procedural ones, or with MakeHuman's bodies, in the layout of a folder.

A folder that was begun and not finished is gone on with: a sample's line stands in PROGRESS once its files are there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from sapiens2.config import Config, execution, recipe
from sapiens2.data import synthetic
from sapiens2.data.labelled.layout import (
    DATASET,
    JSONL,
    LABEL_OF,
    DatasetFacts,
    LabelError,
    Row,
    parse_row,
    read_facts,
    read_index,
    row_values,
)
from sapiens2.data.labelled.write import DatasetWriter
from sapiens2.engine import storage
from sapiens2.tasks.head_specs import TASKS, TaskName
from sapiens2.tasks.sample import Sample, from_scene

ORDER, PROGRESS = "render.json", ".rendered.jsonl"
BODY_FILES = ("*.obj", "*.mhskel", "*.mhw", "*.mhclo", "*.target.gz", "mpfb_*.jpg")
"""What is read of MakeHuman's data; licences, and what an operating system leaves there, change nothing."""
Renderer = Callable[..., synthetic.Scene]
_LABELS = {"pose": ("keypoints", "labelled"), "segmentation": ("mask",), "pointmap": ("points", "intrinsics")}


class RenderConfig(Config):
    """What is rendered. Scene i has the seed first_seed + i; a folder takes more scenes later, and nothing else."""

    count: int = execution(256, "Scenes.", ge=1)
    height: int = recipe(256, "Pixels.", ge=16)
    width: int = recipe(192, "Pixels.", ge=16)
    look: Literal["train", "test", "transfer"] = recipe(
        "train", "Family of poses, fabrics and backgrounds: train and test share none, transfer has the poses of train."
    )
    first_seed: int = recipe(0, "Seed of the first scene.", ge=0)
    split: Literal["train", "val", "test"] = recipe("train", "Of every row.")
    tasks: tuple[TaskName, ...] = recipe(TASKS, "Whose labels are written.", min_length=1)
    makehuman: str = execution("", "Folder of MakeHuman's data, whose bodies take the place of the procedural ones.")
    jobs: int = execution(1, "Processes.", ge=1)


def render_folder(out: str | Path, config: RenderConfig, tell: Callable[[int, int], None] = lambda *_: None) -> int:
    """Render into a folder, going on where an earlier call ended; returns how many scenes were rendered now.

    tell: gets how many of how many are done. The scenes are the same whatever `jobs` is. Raises LabelError when the
    folder holds other data, MakeHumanError for a file of the bodies that is missing or does not fit.
    """
    folder, renderer = Path(out), _renderer(config.makehuman)
    order = {
        "revision": synthetic.REVISION,
        "bodies": _fingerprint(config.makehuman),
        **config.model_dump(mode="json", exclude={"count", "makehuman", "jobs"}),
    }
    rows = _begun(folder, order)
    done = len(rows)
    tell(done, max(done, config.count))
    make = partial(_write, str(folder), config, renderer if config.jobs == 1 else None)
    with (folder / PROGRESS).open("a", encoding="utf-8") as progress:
        for row in _made(make, range(done, config.count), config.jobs):
            progress.write(json.dumps(row_values(row)) + "\n")
            progress.flush()
            rows.append(row)
            tell(len(rows), config.count)
    with DatasetWriter(str(folder), _facts(folder, config)) as writer:
        writer.rows = rows
    (folder / PROGRESS).unlink()
    return max(0, config.count - done)


def _facts(folder: Path, config: RenderConfig) -> DatasetFacts:
    """What the folder says of itself, which may have been edited; at first what it is."""
    if (folder / DATASET).exists():
        return read_facts(str(folder))
    name = "MakeHuman bodies" if config.makehuman else "synthetic people"
    return DatasetFacts(name=f"{name}, {config.look}", licence="CC0-1.0" if config.makehuman else "")


def _renderer(makehuman: str) -> Renderer:
    if not makehuman:
        return synthetic.render
    from sapiens2.data.makehuman import Bodies

    return Bodies(makehuman).render


def _fingerprint(makehuman: str) -> str:
    """Of the names and contents of the bodies' files; empty for the procedural ones."""
    if not makehuman:
        return ""
    from sapiens2.data.makehuman.bodies import REVISION

    root, told = Path(makehuman), hashlib.sha256(str(REVISION).encode())
    for path in sorted(path for kind in BODY_FILES for path in root.rglob(kind)):
        told.update(f"\n{path.relative_to(root).as_posix()} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return told.hexdigest()[:16]


def _begun(folder: Path, order: dict[str, Any]) -> list[Row]:
    """The rows that are there already, of this very order. Makes the folder and says in it what it will hold."""
    kept = folder / ORDER
    if not kept.exists():
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if there:
            told = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
            raise LabelError(str(folder), f"is not empty ({told}) and was not rendered", "give --out a new folder")
        storage.write_bytes(str(kept), (json.dumps(order, indent=2) + "\n").encode())
        return []
    try:
        before = json.loads(kept.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LabelError(str(kept), f"is not what was written there ({error})", _MEND) from error
    other = [name for name in order if before.get(name) != order[name]]
    if other:
        told = ", ".join(f"{name} {before.get(name)!r} and not {order[name]!r}" for name in other)
        raise LabelError(str(folder), f"was rendered with {told}", _MEND)
    return _there(folder)


def _there(folder: Path) -> list[Row]:
    """The rows of the index, then those that the progress has beside them; a line that was cut short is taken out."""
    index = read_index(str(folder)) if (folder / JSONL).exists() else []
    rows = list({row.image: row for row in (*index, *_noted(folder / PROGRESS))}.values())
    for number, row in enumerate(rows):
        if row.image != f"images/{_stem(number)}.png":
            raise LabelError(str(folder), f"has {row.image} where scene {number} was: its index was changed", _MEND)
    text = "".join(json.dumps(row_values(row)) + "\n" for row in rows[len(index) :])
    (folder / PROGRESS).write_text(text, encoding="utf-8")
    return rows


def _noted(progress: Path) -> Iterator[Row]:
    """The rows of a file that may end in the middle of a line."""
    for number, line in enumerate(progress.read_text(encoding="utf-8").splitlines() if progress.exists() else (), 1):
        try:
            values = json.loads(line)
        except ValueError:
            return
        yield parse_row(f"{progress} line {number}", values)


def _stem(number: int) -> str:
    return f"{number:06d}"


_MEND = "give --out another folder, or delete this one"


def _made(make: Callable[[int], Row], numbers: Sequence[int], jobs: int) -> Iterator[Row]:
    """The rows of scenes in their order, made in this process or in `jobs` others."""
    if jobs == 1 or len(numbers) < 2:
        yield from map(make, numbers)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(make, numbers, chunksize=4)


_BODIES: dict[str, Renderer] = {}
"""Renderers of this process by folder: bodies are read once."""


def _write(folder: str, config: RenderConfig, renderer: Renderer | None, number: int) -> Row:
    """Render one scene and write its files; the row is the caller's to keep."""
    if renderer is None:
        if config.makehuman not in _BODIES:
            _BODIES[config.makehuman] = _renderer(config.makehuman)
        renderer = _BODIES[config.makehuman]
    scene = renderer(config.first_seed + number, config.height, config.width, config.look)
    sample = _asked(from_scene(scene), config.tasks)
    row = DatasetWriter(folder).add(sample, _stem(number), split=config.split)
    if row.keypoints is None:
        return row
    points = row.keypoints.copy()
    points[:, 2] = (points[:, 2] > 0) * scene.visibility
    return replace(row, keypoints=points)


def _asked(sample: Sample, tasks: Sequence[TaskName]) -> Sample:
    """A sample with the labels of some tasks alone; `valid` where one of them is a map of vectors or colours."""
    every = {name for task in TASKS for name in _LABELS.get(task, LABEL_OF[task])}
    asked = {name for task in tasks for name in _LABELS.get(task, LABEL_OF[task])}
    dropped = dict.fromkeys(every - asked)
    if not {"normal", "pointmap", "albedo"} & set(tasks):
        dropped["valid"] = None
    return replace(sample, **dropped)  # type: ignore[arg-type]
