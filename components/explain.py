"""One image's way through every stage: where it came from, what was measured, what was decided and why."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from components import picture_index
from components.artifacts import Artifact, Store
from components.named_pictures import resolve_image, resolved
from components.picture_index import OTHER, SOURCE_COLUMNS, SOURCES, PictureIndex, Shown
from components.removals import removals
from components.row_finder import RowFinder
from components.steps import TASKS
from curation.audit.copies import likeness

STAGES = ("images", "detections", "scores", "filtered", "deduped", "clusters", "selection", "shards")
SHOWN_SCORES = ("realism", "text_ratio", "sharpness", "exposure", "aesthetic", "face_count", "yaw_deg")
IMAGE = ("image_id", "source", "format", "width", "height", "n_sources")
REJECT = ("source_id", "source", "reason", "detail")
DECISION = ("image_id", "keep", "reason", "value", "threshold", "representative_id")
COPY = ("image_id", "kind", "source", "evaluation_set")
HELD_OUT = "held_out"  # the table of shards whose pictures were not exported
PICTURE = ("image_id",)
DECIDED = {"data": Shown(PICTURE, DECISION), "evaluation_copies": Shown(PICTURE, COPY)}
SHOWN = {  # every column that is asked for here, by kind and table: the index keeps these
    "images": {
        SOURCES: Shown(("source_id",), SOURCE_COLUMNS),
        "rejects": Shown(("source_id", "image_id"), REJECT),
        "images": Shown(PICTURE, IMAGE),
    },
    "detections": {"data": Shown(PICTURE, ("boxes", "box_scores"))},
    "scores": {"data": Shown(PICTURE, ("scored", *SHOWN_SCORES))},
    "filtered": DECIDED,
    "deduped": DECIDED,
    "clusters": {"data": Shown(PICTURE, ("path", "distance"))},
    "selection": DECIDED,
    "shards": {HELD_OUT: Shown(PICTURE, ("reason", "representative_id")), OTHER: Shown(PICTURE, ("position",))},
}

Said = Iterator[tuple[str, str]]  # verdict and text, a row each


@dataclass(frozen=True)
class Line:
    """What one artifact says of the image."""

    artifact: Artifact
    verdict: str  # kept, dropped, rejected, measured
    text: str
    latest: bool


@dataclass(frozen=True)
class Consumed:
    """A checkpoint that was trained on the image: directly, or through the backbone that it began from."""

    artifact: Artifact
    through: str


def why(store: Store, reference: str) -> Iterator[Line]:
    """What every version of every stage says of an image, in the order of the stages, oldest version first."""
    made = {kind: list(store.all(kind)) for kind in STAGES}
    finder = _finder(store, reference, made)
    for kind, artifacts in made.items():
        tell = EXPLAIN.get(kind, _decision)
        latest = store.latest(kind) if artifacts else None
        told = store.each(lambda artifact, tell=tell: list(tell(artifact, finder)), artifacts)  # type: ignore[misc]
        for artifact, lines in zip(artifacts, told, strict=True):
            for verdict, text in lines:
                yield Line(artifact, verdict, text, latest is not None and latest.version == artifact.version)


def _finder(store: Store, reference: str, made: dict[str, list[Artifact]]) -> RowFinder:
    """What finds the rows about an image: by the index, and by the tables where it does not help."""

    def found(index: PictureIndex | None) -> RowFinder:
        ids, _, rejected = resolved(store, reference, made["images"], index)
        return RowFinder(index, image_id=ids, source_id=rejected)

    index = picture_index.opened(store.storage, [artifact for each in made.values() for artifact in each], SHOWN)
    if index is None:
        return found(None)
    try:
        with closing(index):
            return found(index)
    except (sqlite3.DatabaseError, json.JSONDecodeError):  # torn where nothing was read before
        picture_index.drop(store.storage)
        return found(None)


def _images(artifact: Artifact, finder: RowFinder) -> Said:
    for row in finder.rows(artifact, "rejects", "source_id", REJECT):
        yield "rejected", f"{row['source']}: {row['reason']} ({row['detail']})"
    for row in finder.rows(artifact, "images", "image_id", IMAGE, once=True):
        text = f"{row['source']} {row['format']} {row['width']}x{row['height']}, {row['n_sources']} source(s)"
        yield "kept", f"{text}, id {row['image_id']}"


def _detections(artifact: Artifact, finder: RowFinder) -> Said:
    for row in finder.rows(artifact, "data", "image_id", ["boxes", "box_scores"], once=True):
        sides = [round(min(b[2] - b[0], b[3] - b[1])) for b in row["boxes"]]
        persons = ", ".join(f"{side} px at {score:.2f}" for side, score in zip(sides, row["box_scores"], strict=True))
        yield "measured", f"{len(sides)} person box(es): {persons or 'none'}"


def _scores(artifact: Artifact, finder: RowFinder) -> Said:
    for row in finder.rows(artifact, "data", "image_id", ["scored", *SHOWN_SCORES], once=True):
        shown = [f"{name} {row[name]:.3g}" for name in SHOWN_SCORES if row[name] is not None]
        yield "measured", ", ".join(shown) + ("" if row["scored"] else " (held back by the gate)")


def _clusters(artifact: Artifact, finder: RowFinder) -> Said:
    for row in finder.rows(artifact, "data", "image_id", ["path", "distance"], once=True):
        yield "measured", f"cluster {' < '.join(map(str, row['path']))}, distance {row['distance']:.3f}"


def _decision(artifact: Artifact, finder: RowFinder) -> Said:
    kept = [row["keep"] for row in finder.rows(artifact, "data", "image_id", ["keep"], once=True)]
    if all(kept):
        yield from (("kept", "") for _ in kept)
        return
    for row in finder.rows(artifact, "data", "image_id", DECISION, once=True):
        if row["keep"]:
            yield "kept", ""
            continue
        other = row["representative_id"] or ""
        measured = f"{row['value']:.4g} against {row['threshold']:.4g}" if row["threshold"] is not None else ""
        alike = likeness(row["reason"], row["value"], row["threshold"], other)
        stands = f"; {other} stands for it" if other not in ("", row["image_id"]) and not alike else ""
        yield (
            "dropped",
            f"{row['reason']}: {alike or measured}".removesuffix(": ") + stands + _copied(artifact, row, finder),
        )


def _copied(artifact: Artifact, row: dict[str, Any], finder: RowFinder) -> str:
    """Of which evaluation picture a dropped one is a copy, or that a picture of its group is."""
    if row["reason"] != "evaluation_copy":
        return ""
    for copy in finder.rows(artifact, "evaluation_copies", "image_id", COPY):
        if copy["image_id"] == row["image_id"]:
            return f" by {copy['kind']}; a copy of {copy['source']} in {copy['evaluation_set']}"
    return "; another picture of its group is a copy of an evaluation picture"


def _shards(artifact: Artifact, finder: RowFinder) -> Said:
    tables, found = set(artifact.manifest.tables), 0
    for table in sorted(tables, key=lambda name: (name != HELD_OUT, name)):
        if found == finder.asked("image_id"):
            return  # a picture lies in one of the tables
        columns = ["reason", "representative_id"] if table == HELD_OUT else ["position"]
        for row in finder.rows(artifact, table, "image_id", columns, once=True):
            found += 1
            if table == HELD_OUT:
                yield "dropped", f"{row['reason']}; {row['representative_id']} is the labelled picture"
            else:
                yield "kept", f"{table}, position {row['position']}"


EXPLAIN: dict[str, Callable[[Artifact, RowFinder], Said]] = {
    "images": _images,
    "detections": _detections,
    "scores": _scores,
    "clusters": _clusters,
    "shards": _shards,
}


def trained_on(store: Store, reference: str) -> list[Consumed]:
    """Every checkpoint that consumed the image: exact, by its place in the order of the run against samples seen.

    An image that was removed on request is known from the record of its removal.
    """
    found: list[Consumed] = []
    for removal in removals(store.storage):
        for key, gone in removal.consumers.items():
            known = reference in removal.urls or (len(reference) >= 6 and any(i.startswith(reference) for i in gone))
            kind, _, version = key.partition("=")
            if known and store.committed(kind, version):
                found += _with_heirs(store, store.get(kind, version), f"before the removal {removal.id}")
    if found:
        return found
    ids, _ = resolve_image(store, reference)
    finder = RowFinder(image_id=ids)
    for shards, backbone in _trainings(store):
        seen = _first_seen(shards, backbone, finder)
        if seen:
            found += _with_heirs(store, backbone, f"{shards}, first as sample {min(seen.values())}")
    return found


def consumed_by(store: Store, ids: set[str]) -> Iterator[tuple[Artifact, set[str]]]:
    """Every backbone that was trained on any of the images, and on which."""
    finder = RowFinder(image_id=ids)
    for shards, backbone in _trainings(store):
        if seen := _first_seen(shards, backbone, finder):
            yield backbone, set(seen)


def _trainings(store: Store) -> Iterator[tuple[Artifact, Artifact]]:
    """(shards, backbone) of every training; imported weights have none: what they saw is not known here."""
    for backbone in store.all("backbone"):
        for ref in backbone.manifest.inputs:
            if ref.role == "shards" and store.committed(ref.kind, ref.version):
                yield store.get(ref.kind, ref.version), backbone


def _with_heirs(store: Store, backbone: Artifact, through: str) -> list[Consumed]:
    from components.lineage import descendants

    made = [a for a in descendants(store, backbone).values() if a.kind in ("backbone", *TASKS)]
    heirs = [a for a in made if a.version != backbone.version]
    return [Consumed(backbone, through), *(Consumed(model, f"backbone={backbone.version}") for model in heirs)]


def _first_seen(shards: Artifact, backbone: Artifact, finder: RowFinder) -> dict[str, int]:
    """The first sample of the run that was each of the images; images that the run never came to are absent."""
    from sapiens2.data.order import EpochOrder

    rows = finder.rows(shards, "train", "image_id", ["image_id", "position"])
    if not rows:
        return {}
    config = backbone.manifest.config
    order = EpochOrder(_group_sizes(shards), config["engine"]["seed"], config["shuffle_window"])
    samples = config["engine"]["steps"] * config["batch"]  # a run that is longer than an epoch has come to all
    first: dict[str, int] = {}
    for row in rows:
        sample = order.position(row["position"])
        if sample < samples:
            first[row["image_id"]] = min(sample, first.get(row["image_id"], sample))
    return first


def _group_sizes(shards: Artifact) -> list[int]:
    """Rows of each row group of the training files as they were written, whatever was removed from them since."""
    config, rows = shards.manifest.config, shards.manifest.metrics["splits"]["train"]
    starts = range(0, rows, config["rows_per_shard"])
    files = [min(config["rows_per_shard"], rows - start) for start in starts]
    step = config["rows_per_group"]
    return [min(step, file - start) for file in files for start in range(0, file, step)]


def as_json(lines: list[Line]) -> str:
    """The lines as a JSON array, for other programs."""
    return json.dumps(
        [{"kind": x.artifact.kind, "version": x.artifact.version, "verdict": x.verdict, "text": x.text} for x in lines],
        indent=1,
    )
