"""`sapiens2 annotate export | import`: pictures of the selection to an annotation tool, and its labels back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from pipelines import display
from pipelines.cli_options import root_option

console = display.console()
TOOLS = ("coco", "cvat", "label-studio")
_STUDIO = (
    "paste labeling_config.xml into the project's interface, then import tasks.json; copied pictures are served from "
    "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, the exported folder"
)
HINTS = {
    ("coco", "pose"): "annotations.json has the people that the detector found, without keypoints yet",
    ("coco", "segmentation"): "annotations.json has the pictures and the parts as categories, without annotations yet",
    ("cvat", "pose"): "paste labels.json into the raw view of the task's labels, then upload images and "
    "annotations.xml, which has the boxes of people that the detector found",
    ("cvat", "segmentation"): "paste labels.json into the raw view of the task's labels, then upload images; "
    "annotations.xml has no shapes yet",
    ("label-studio", "pose"): f"{_STUDIO}; the boxes of people that the detector found are predictions of the tasks",
    ("label-studio", "segmentation"): f"{_STUDIO}; the tasks have no predictions yet",
}


@click.command("export")
@click.option("--to", "tool", required=True, type=click.Choice(TOOLS), help="The tool whose files are written.")
@click.option("--task", required=True, type=click.Choice(["pose", "segmentation"]), help="What is to be labelled.")
@click.option("--count", default=100, show_default=True, help="Pictures, even over the selection's clusters.")
@click.option("--out", required=True, type=click.Path(), help="The folder to write.")
@click.option("--keypoints", default="sapiens308", show_default=True, help="Layout to label: coco17, wholebody133, ...")
@click.option("--test-share", default=0.2, show_default=True, help="Share of the duplicate groups that is for tests.")
@click.option("--pictures", type=click.Choice(["copy", "reference"]), default="copy", show_default=True)
@click.option("--pool", default="", help="With --pictures reference: the folder that was the pool.")
@click.option("--min-person-score", default=0.5, show_default=True, help="Detector score of the boxes to start from.")
@click.option("--again", is_flag=True, help="Take pictures that are labelled already, too; they keep their split.")
@click.option("--unsafe", is_flag=True, help="Take pictures that are blurred in every page, too.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--input", "given", default="selection", metavar="selection=VERSION", help="Default: the latest.")
@root_option
def export_command(given: str, out: str, root: str, **wanted: Any) -> None:
    """Write a balanced sample of the selection for people to label."""
    from pydantic import ValidationError

    from components.annotation_batch import BatchRequest, export_batch, settled_before, unsafe_pictures
    from components.artifacts import Store

    try:
        request = BatchRequest(**wanted)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    store = Store(root)
    selection = store.find(given)
    batch = export_batch(store, selection, request, Path(out))
    splits = ", ".join(f"{n} {split}" for split, n in sorted(Counter(p.split for p in batch.pictures).items()))
    short = "" if len(batch.pictures) == request.count else f" (all that {selection} has left)"
    console.print(f"{len(batch.pictures)} pictures{short} of {selection} in {out}: {splits}", soft_wrap=True)
    absent = {"train", "test"} - {picture.split for picture in batch.pictures}
    if 0 < request.test_share < 1 and absent:
        missing = absent.pop()
        console.print(
            f"    none is for {missing}: each group of duplicates is drawn by itself, so that it stays on its side; "
            f"take more pictures (--count), or a {'larger' if missing == 'test' else 'smaller'} --test-share, into "
            "another --out",
            soft_wrap=True,
        )
    if request.again:
        settled, torn = settled_before(store, selection, batch)
        if settled:
            console.print(f"    {settled} are labelled already, or a duplicate of them, and keep that split")
        if torn:
            console.print(f"    left out: {torn} of which labels under the root disagree about the split")
    if not request.unsafe and (flagged := len(unsafe_pictures(store, selection))):
        console.print(f"    left out: {flagged} that look unsafe (NSFW score of 0.5 or more; --unsafe takes them)")
    console.print(HINTS[request.tool, request.task], soft_wrap=True, markup=False)
    console.print(f"then: sapiens2 annotate import FILE --batch {out}", soft_wrap=True)


@click.command("import")
@click.argument("file", type=click.Path())
@click.option("--batch", required=True, type=click.Path(), help="The folder that `annotate export` has written.")
@click.option("--from", "tool", type=click.Choice(TOOLS), help="The tool; default the one that it was exported to.")
@click.option(
    "--unlabelled",
    type=click.Choice(["background", "unknown"]),
    default="background",
    show_default=True,
    help="Segmentation: what pixels are that nothing covers.",
)
@click.option("--licence", default="", help="Under which terms the labels may be used.")
@click.option(
    "--known-splits",
    "as_known",
    is_flag=True,
    help="Put pictures that are labelled already, or a duplicate of them, into the split that they have; batch.json is "
    "rewritten.",
)
@root_option
def import_command(file: str, batch: str, tool: str | None, root: str, **more: Any) -> None:
    """Take in the FILE that the tool has exported, as labels to train and to measure on."""
    from components.artifacts import Store
    from components.labels import import_labels

    outcome = import_labels(Store(root), Path(file).absolute(), Path(batch).absolute(), tool=tool or "", **more)
    made, facts = outcome.artifact, outcome.artifact.manifest.metrics
    console.print(f"{'reused' if outcome.reused else 'made'} {made}: {facts['headline']}", soft_wrap=True)
    for reason, count in facts["left_out"].items():
        console.print(f"    left out: {count} {reason}", soft_wrap=True)
    if facts["splits"].get("test"):
        console.print("test pictures and their duplicates stay out of the shards from the next `export` on")
    source = f'[{{"path": "labels={made.version}"}}]'
    console.print(
        f"use it: sapiens2 train finetune --task {facts['task']} --set 'finetune.sources={source}'",
        soft_wrap=True,
        markup=False,
    )


COMMANDS = {command.name or "": command for command in (export_command, import_command)}
