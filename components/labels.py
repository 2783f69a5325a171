"""Labels from an annotation tool as an artifact: which selection, which tool, which file.

The artifact's `out` folder is labelled data in the one layout, so fine-tuning and evaluation read it; its table says of
every picture which group of duplicates it is of and in which split. No pipeline runs the step: `sapiens2 annotate
import` does.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from components.artifacts import Store
from components.given_labels import FOLDER
from components.label_splits import adopted, groups_of, known_splits, refuse_other_splits
from components.picture_lookup import ImageLookup
from components.run_step import Outcome, Publication, StepContext, run_step
from components.steps import LABELS
from sapiens2.config import Config, execution, recipe

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("group_id", pa.string()),  # of duplicates, as dedup named it
        ("split", pa.string()),  # train, val or test
        ("rows", pa.int32()),  # of the index: people for pose, 1 for segmentation
        ("labels", pa.string()),  # the rows as JSON
        ("mask_sha256", pa.string()),  # of the part mask's file; null for pose
    ]
)


class ImportLabelsConfig(Config):
    """What is imported, and how it is read."""

    tool: str = recipe("coco", "The tool whose file it is: coco, cvat or label-studio.")
    task: Literal["pose", "segmentation"] = recipe("pose", "What was labelled.")
    unlabelled: Literal["background", "unknown"] = recipe(
        "background", "Segmentation: what pixels are that no region covers."
    )
    licence: str = recipe("", "Under which terms the labels may be used.")
    file: str = execution("", "The tool's file; its sha256 enters the version.")
    batch: str = execution("", "The folder that `sapiens2 annotate export` wrote; its batch.json enters the version.")


def data_digest(config: ImportLabelsConfig) -> str:
    """sha256 over the tool's file and batch.json. Raises FileNotFoundError."""
    from sapiens2.data.annotation.batch import BATCH

    digest = hashlib.sha256()
    for path in (Path(config.file), Path(config.batch) / BATCH):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def import_labels(
    store: Store, file: Path, folder: Path, *, tool: str, unlabelled: Any, licence: str, as_known: bool = False
) -> Outcome:
    """Import a tool's file, given the folder of its batch. Raises ValueError before any labels are written.

    as_known: pictures that labels under the root have, or a duplicate of, go to the split that those have; batch.json
    is rewritten to say so.
    """
    from sapiens2.data.annotation import read_batch
    from sapiens2.data.annotation import tool as tool_named
    from sapiens2.data.annotation.batch import write_batch

    batch = read_batch(folder)
    name = tool or batch.tool
    tool_named(name)
    if not file.is_file():
        raise ValueError(f"{file} is not there: give the file that {name} has exported")
    inputs = {role: store.get(role, version) for role, version in batch.made_from.items()}
    if as_known:
        groups = groups_of(inputs["deduped"])
        placed = adopted(batch, groups, known_splits(store, groups))
        if placed != batch:
            write_batch(folder, placed)
    config = ImportLabelsConfig(
        tool=name, task=batch.task, unlabelled=unlabelled, licence=licence, file=str(file), batch=str(folder)
    )
    return run_step(LABELS, config, inputs, store.root)


def body(context: StepContext) -> Publication:
    """Write the labels in the one layout, and the table of their pictures."""
    from sapiens2.data.annotation import read_batch, tool
    from sapiens2.data.labelled import DatasetFacts, DatasetWriter, LabelError

    config: ImportLabelsConfig = context.config
    batch = read_batch(config.batch)
    found = tool(config.tool).read(Path(config.file), batch)
    pictures = [picture for picture in batch.pictures if picture.name in found.pictures]
    if not pictures:
        raise LabelError(
            config.file, f"labels none of the {len(batch.pictures)} pictures for {batch.task}", "label some"
        )
    groups = groups_of(context.inputs["deduped"])
    refuse_other_splits(config.batch, pictures, groups, known_splits(context.store, groups))
    lookup, out = ImageLookup(context.inputs["images"]), context.attempt.uri(FOLDER)
    rows = []
    facts = DatasetFacts(name=f"{config.tool}: {Path(config.file).name}", licence=config.licence)
    with DatasetWriter(out, facts) as writer:
        for picture in pictures:
            encoded = lookup.encoded([picture.image_id])[picture.image_id]
            rows.append(_write(writer, picture, encoded, found.pictures[picture.name], config))
    names = {f"{FOLDER}/{name}" for row in writer.rows for name in (row.image, row.mask) if name is not None}
    names |= {f"{FOLDER}/dataset.json", f"{FOLDER}/index.jsonl"}
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    record = context.attempt.write_partition("all", {"data": table}, {})
    facts_found = _metrics(context, batch, found, rows)
    existing = [context.attempt.existing_file(name) for name in sorted(names)]
    return Publication({"all": record}, facts_found, existing=existing, fragment=_fragment(context, rows, facts_found))


def _write(writer: Any, picture: Any, encoded: bytes, labels: Any, config: ImportLabelsConfig) -> dict[str, Any]:
    from sapiens2.data.labelled import Row
    from sapiens2.data.labelled.layout import row_values
    from sapiens2.data.labelled.write import png_bytes
    from sapiens2.tasks.vocabulary import IGNORE

    suffix = Path(picture.name).suffix.lower() or ".jpg"
    image = writer.file(f"images/{picture.image_id}{suffix}", encoded)
    common: dict[str, Any] = {"image": image, "split": picture.split, "group": picture.group}
    common["image_id"] = picture.image_id
    sha256 = None
    if config.task == "pose":
        made = [Row(**common, keypoints=who.points, box=who.box, area=who.area) for who in labels.people]
    else:
        unlabelled = 0 if config.unlabelled == "background" else IGNORE
        png = png_bytes(labels.mask((picture.height, picture.width), unlabelled=unlabelled))
        made = [Row(**common, mask=writer.file(f"masks/{picture.image_id}.png", png))]
        sha256 = hashlib.sha256(png).hexdigest()
    writer.rows += made
    return {
        "image_id": picture.image_id,
        "group_id": picture.group,
        "split": picture.split,
        "rows": len(made),
        "labels": json.dumps([row_values(row) for row in made]),
        "mask_sha256": sha256,
    }


def _metrics(context: StepContext, batch: Any, found: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    left_out = {reason: count for reason, count in sorted(found.left_out.items()) if count}
    if len(rows) < len(batch.pictures):
        left_out["pictures without labels"] = len(batch.pictures) - len(rows)
    count = sum(row["rows"] for row in rows)
    return {
        "task": batch.task,
        "tool": context.config.tool,
        "file": Path(context.config.file).name,
        "file_sha256": hashlib.sha256(Path(context.config.file).read_bytes()).hexdigest(),
        "pictures": len(rows),
        "rows": count,
        "splits": dict(Counter(row["split"] for row in rows)),
        "left_out": left_out,
        "headline": f"{count} {'people' if batch.task == 'pose' else 'masks'} on {len(rows)} pictures, {batch.task}",
    }


def _fragment(context: StepContext, rows: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    told = [[name.replace("_", " "), str(facts[name])] for name in ("tool", "file", "file_sha256", "pictures", "rows")]
    told += [[f"split {name}", count] for name, count in facts["splits"].items()]
    told += [[f"left out: {reason}", count] for reason, count in facts["left_out"].items()]
    sections: list[dict[str, Any]] = [
        {"type": "table", "title": "Where they come from", "columns": ["", "value"], "rows": told}
    ]
    sections.append(_pictures(context, facts["task"]))
    return {"title": f"Labels: {facts['task']}", "sections": sections}


def _pictures(context: StepContext, task: str) -> dict[str, Any]:
    """The first samples with their labels drawn over them."""
    from sapiens2.data.labelled import LabelledDataset
    from sapiens2.data.labelled.sheet import tile
    from sapiens2.engine.report import pictures

    dataset = LabelledDataset(context.attempt.uri(FOLDER), task, None)
    shown = [(tile(task, dataset.sample(k)), dataset.rows[k].split) for k in range(min(12, len(dataset)))]
    return pictures("Labels as training reads them", shown)
