"""From a selection to a folder that people label, in the files of their tool."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.artifacts import Artifact, Store
from components.label_splits import Split, Splits, groups_of, known_splits
from components.picture_lookup import ImageLookup, narrow
from curation.audit.contact_sheet import BLUR_NSFW

ROLES = ("images", "detections", "deduped", "clusters")


class BatchRequest(BaseModel):
    """What is to be labelled, by whom."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    tool: str
    task: Literal["pose", "segmentation"]
    keypoints: str = "sapiens308"
    count: int = Field(100, ge=1)
    test_share: float = Field(0.2, ge=0, le=1)
    pictures: Literal["copy", "reference"] = "copy"
    pool: str = Field("", description="the folder below which the names of a folder's pictures are, to reference them")
    min_person_score: float = Field(0.5, ge=0, le=1)
    again: bool = Field(False, description="take pictures that were labelled before, too")
    unsafe: bool = Field(False, description="take pictures that every page blurs, too")
    seed: int = 0


def export_batch(store: Store, selection: Artifact, request: BatchRequest, out: Path) -> Any:
    """Write a balanced sample of a selection to `out`; returns the sapiens2.data.annotation.Batch.

    A group of duplicates that labels under the root have stays in their split; one that they have in two is left out.
    Raises ValueError for an unknown tool or layout, a folder that holds a batch already, a selection with nothing left
    to label, and pictures that cannot be referenced.
    """
    from curation.stages.label_sample import group_splits, label_sample
    from sapiens2.data.annotation import Batch, Picture, tool
    from sapiens2.data.annotation.batch import BATCH, write_batch
    from sapiens2.data.formats.vocabularies import layout

    writer = tool(request.tool)
    layout(request.keypoints)
    if (out / BATCH).exists():
        raise ValueError(f"{out} holds a batch already: choose another --out, so that no labels are mixed up")
    made = made_from(store, selection)
    groups = groups_of(made["deduped"])
    known = known_splits(store, groups)
    unsafe = set() if request.unsafe else unsafe_pictures(store, selection)
    kept, skip = selection.read(), _of_groups(groups, torn(known) if request.again else known) | unsafe
    ids = label_sample(kept, made["clusters"].read(), request.count, seed=request.seed, skip=skip)
    if not ids:
        raise ValueError(
            f"every picture of {selection} is labelled already, or looks unsafe"
            if skip
            else f"{selection} kept no picture"
        )
    rows = _by_id(narrow(made["images"]), ids)
    found = _by_id(made["detections"].read(), ids)
    lookup = ImageLookup(made["images"])
    drawn = group_splits([groups[i] for i in ids], request.test_share)
    splits: dict[str, Split] = {group: next(iter(known.get(group, ())), split) for group, split in drawn.items()}
    out.mkdir(parents=True, exist_ok=True)
    pictures = tuple(
        Picture(
            name=_place(rows[i], request),
            width=rows[i]["width"],
            height=rows[i]["height"],
            image_id=i,
            group=groups[i],
            split=splits[groups[i]],
            boxes=_boxes(found[i], request.min_person_score),
        )
        for i in ids
    )
    batch = Batch(
        tool=request.tool,
        task=request.task,
        keypoints=request.keypoints,
        made_from={"selection": selection.version} | {role: artifact.version for role, artifact in made.items()},
        pictures=pictures,
    )
    if request.pictures == "copy":
        for picture in pictures:
            (out / "images").mkdir(exist_ok=True)
            (out / picture.name).write_bytes(lookup.encoded([picture.image_id])[picture.image_id])
    writer.write(out, batch, {})
    write_batch(out, batch)
    return batch


def made_from(store: Store, selection: Artifact) -> dict[str, Artifact]:
    """The artifacts that a selection was made from, by role."""
    if selection.kind != "selection":
        raise ValueError(f"{selection} is no selection: name one with --input selection=VERSION")
    refs = {ref.role: ref for ref in selection.manifest.inputs}
    return {role: store.get(refs[role].kind, refs[role].version) for role in ROLES}


def unsafe_pictures(store: Store, selection: Artifact) -> set[str]:
    """Kept pictures whose NSFW score is one from which every page blurs: nobody is handed them unasked."""
    (scores,) = [store.get(ref.kind, ref.version) for ref in selection.manifest.inputs if ref.role == "scores"]
    rows = scores.read(columns=["image_id", "nsfw"]).to_pylist()
    kept = selection.read(columns=["image_id", "keep"])
    flagged = {row["image_id"] for row in rows if (row["nsfw"] or 0.0) >= BLUR_NSFW}
    return flagged & set(kept.filter(kept["keep"])["image_id"].to_pylist())


def settled_before(store: Store, selection: Artifact, batch: Any) -> tuple[int, int]:
    """How many pictures of a batch have the split that labels gave them, and how many the labels have in two splits."""
    groups = groups_of(made_from(store, selection)["deduped"])
    known = known_splits(store, groups)
    settled = sum(len(known.get(picture.group, ())) == 1 for picture in batch.pictures)
    return settled, len(_of_groups(groups, torn(known)))


def torn(known: Splits) -> set[str]:
    """Groups that the labels have in two splits: whatever a new batch said of them would contradict some labels."""
    return {group for group, splits in known.items() if len(splits) > 1}


def _of_groups(groups: dict[str, str], wanted: Collection[str]) -> set[str]:
    return {i for i, group in groups.items() if group in wanted}


def _by_id(table: Any, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    wanted = set(ids)
    return {row["image_id"]: row for row in table.to_pylist() if row["image_id"] in wanted}


def _boxes(row: dict[str, Any], least: float) -> tuple[tuple[float, float, float, float], ...]:
    pairs = zip(row["boxes"], row["box_scores"], strict=True)
    return tuple(tuple(float(v) for v in box) for box, score in pairs if score >= least)  # type: ignore[misc]


def _place(row: dict[str, Any], request: BatchRequest) -> str:
    """The name of a picture in the batch: a copy under its id, or where the pool has it."""
    if request.pictures == "copy":
        suffix = {"jpeg": "jpg"}.get(row["format"].lower(), row["format"].lower())
        return f"images/{row['image_id']}.{suffix}"
    source: str = row["source"]
    if "::" in source:
        raise ValueError(f"the picture {source} lies in an archive and cannot be referenced: use --pictures copy")
    if "://" in source:
        return source
    path = Path(request.pool, source).absolute()
    if not path.is_file():
        raise ValueError(f"there is no picture {path}: name the pool's folder with --pool, or use --pictures copy")
    return str(path)
