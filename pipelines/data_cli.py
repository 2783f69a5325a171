"""`sapiens2 data ...`: look into labelled data, bring other formats into the layout, and take labels out of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from components.steps import TASKS
from pipelines import display
from pipelines.user_errors import USER_ERROR

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


@click.command("import")
@click.argument("vocabulary")
@click.option("--labels", required=True, type=click.Path(exists=True), help="COCO-like JSON, or a folder of masks.")
@click.option("--images", required=True, type=click.Path(exists=True, file_okay=False), help="Folder of the pictures.")
@click.option("--out", required=True, type=click.Path(), help="Folder of labelled data to write.")
@click.option("--split", default="train", type=click.Choice(["train", "val", "test"]), help="Of every row.")
def import_command(vocabulary: str, labels: str, images: str, out: str, split: str) -> None:
    """Bring labels of another VOCABULARY into the layout: coco17, wholebody133, halpe26, ..., cihp20, lip20, voc21.

    A folder holds one import: each split goes to its own. No file that lies in it is written over.
    """
    from sapiens2.data.formats.vocabularies import CLASS_MAPS, LAYOUTS
    from sapiens2.data.labelled import DatasetFacts

    if vocabulary not in (*LAYOUTS, *CLASS_MAPS):
        raise ValueError(f"unknown vocabulary {vocabulary!r}; use one of {', '.join((*LAYOUTS, *CLASS_MAPS))}")
    facts = DatasetFacts(name=f"{Path(labels).name} ({vocabulary})")
    _refuse_what_is_there(out, facts)
    reader = _import_masks if vocabulary in CLASS_MAPS else _import_keypoints
    rows, note = reader(vocabulary, Path(labels), Path(images), out, split, facts)
    console.print(f"{rows} rows in {out}{note}; `sapiens2 data check {out}` looks at them", soft_wrap=True)


def _refuse_what_is_there(out: str, facts: Any) -> None:
    from sapiens2.data.labelled.layout import DATASET, JSONL, PARQUET, LabelError, read_facts
    from sapiens2.engine import storage

    mend = "import into a new folder, one a split (sources and `evaluate.labelled` name theirs), or delete that file"
    for name in (JSONL, PARQUET):
        if storage.exists(storage.join(out, name)):
            raise LabelError(out, f"has an {name} already, whose rows would be lost", mend)
    if storage.exists(storage.join(out, DATASET)) and read_facts(out) != facts:
        raise LabelError(out, f"has a {DATASET} already that says other things, which would be lost", mend)


def _import_masks(name: str, labels: Path, images: Path, out: str, split: str, facts: Any) -> tuple[int, str]:
    from sapiens2.data.formats.masks import import_masks, without_partner
    from sapiens2.data.labelled import DatasetWriter

    with DatasetWriter(out, facts) as writer:
        rows = import_masks(images, labels, name, writer, split)
    left = [f"{len(names)} {reason}: {_some(names)}" for reason, names in without_partner(images, labels).items()]
    note = f" ({'; '.join(left)}; left out)" if left else ""
    return rows, note + _turned(images / Path(row.image).name for row in writer.rows)


def _turned(pictures: Iterable[Path]) -> str:
    from sapiens2.data.formats.upright import turned_unseen

    names = turned_unseen(pictures)
    if not names:
        return ""
    return (
        f"; EXIF orientation turns or mirrors {len(names)} pictures without changing their size: {_some(names)}; their "
        "labels are taken for ones of upright pixels, which nothing but the eye can tell"
    )


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _import_keypoints(name: str, labels: Path, images: Path, out: str, split: str, facts: Any) -> tuple[int, str]:
    from sapiens2.data.formats.coco import read_coco
    from sapiens2.data.formats.placing import lies_there
    from sapiens2.data.labelled import DatasetWriter

    found = read_coco(labels, name, split=split, folder=images)
    sources = {row.image: images / row.image.removeprefix("images/") for row in found.rows}
    new = [picture for picture in sorted(sources) if not lies_there(out, picture, sources[picture].read_bytes)]
    with DatasetWriter(out, facts) as writer:
        for picture in new:
            writer.file(picture, sources[picture].read_bytes())
        writer.rows += found.rows
    left = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items() if count)
    note = f" ({left} left out)" if left else ""
    return len(found.rows), note + _turned(sources[picture] for picture in sorted(sources))


@click.command("export")
@click.argument("folder")
@click.option("--format", "name", required=True, help="coco17, wholebody133, another keypoint layout, or openpose.")
@click.option("--out", required=True, type=click.Path(), help="JSON file; for openpose a folder, one file a picture.")
def export_command(folder: str, name: str, out: str) -> None:
    """Take the keypoints of labelled data out, in another layout."""
    import json
    from collections import Counter

    from sapiens2.data.formats.convert import coco_file, openpose
    from sapiens2.data.formats.vocabularies import layout
    from sapiens2.data.labelled import LabelledDataset
    from sapiens2.data.labelled.read import read_image

    dataset = LabelledDataset(_absolute(folder), "pose", None)
    pictures: dict[str, list[Any]] = {}
    for row in dataset.rows:
        pictures.setdefault(row.image, []).append(row)
    if name == "openpose":
        Path(out).mkdir(parents=True, exist_ok=True)
        stems = Counter(Path(picture).stem for picture in pictures)
        for picture, rows in pictures.items():
            text = json.dumps(openpose([row.keypoints for row in rows]))
            stem = Path(picture).stem if stems[Path(picture).stem] == 1 else picture.replace("/", "_")
            (Path(out) / f"{stem}_keypoints.json").write_text(text)
    else:
        layout(name)  # an unknown name is refused before pictures are read
        sizes = {picture: read_image(f"{dataset.folder}/{picture}").shape[:2] for picture in pictures}
        people = [
            (number, picture, sizes[picture], row.keypoints, row.box, row.area)
            for number, (picture, rows) in enumerate(pictures.items(), 1)
            for row in rows
        ]
        Path(out).write_text(json.dumps(coco_file(people, name)))
    console.print(f"{len(dataset)} people of {len(pictures)} pictures as {name} in {out}", soft_wrap=True)


@click.command("render")
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder of labelled data to write.")
@click.option(
    "--count", default=256, show_default=True, type=click.IntRange(1), help="Scenes; give more to go on later."
)
@click.option(
    "--size", nargs=2, type=click.IntRange(16), default=(256, 192), show_default=True, help="Height and width, pixels."
)
@click.option("--look", default="train", show_default=True, type=click.Choice(["train", "test", "transfer"]))
@click.option(
    "--first-seed", default=0, show_default=True, type=click.IntRange(0), help="Of the first scene; the others follow."
)
@click.option("--split", default="train", show_default=True, type=click.Choice(["train", "val", "test"]))
@click.option("--task", "tasks", multiple=True, type=click.Choice(TASKS), help="Labels of this task alone; may repeat.")
@click.option("--makehuman", default="", help="Folder of MakeHuman's data, whose bodies are rendered.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Processes.")
def render_command(out: str, size: tuple[int, int], tasks: tuple[str, ...], **rest: Any) -> None:
    """Render people with exact labels of all tasks into the layout, to train or to evaluate on; goes on after a kill.

    train and test looks share no pose family, fabric or background; transfer has the poses of train.
    """
    from sapiens2.data.labelled.rendered import RenderConfig, render_folder

    asked: dict[str, Any] = {**rest, "tasks": tasks} if tasks else rest
    config = RenderConfig(height=size[0], width=size[1], **asked)
    with display.counted("render", "scenes", config.count, console) as tell:
        fresh = render_folder(out, config, tell)
    console.print(f"{fresh} scenes rendered into {out}; `sapiens2 data check {out}` looks at them", soft_wrap=True)


COMMANDS = {command.name or "": command for command in (check_command, import_command, export_command, render_command)}
