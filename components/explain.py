"""One image's way through every stage: where it came from, what was measured, what was decided and why."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.artifacts import Artifact, ArtifactError, Store
from components.removals import removals
from components.steps import TASKS

STAGES = ("images", "detections", "scores", "filtered", "deduped", "clusters", "selection", "shards")
SHOWN_SCORES = ("realism", "text_ratio", "sharpness", "exposure", "aesthetic", "face_count", "yaw_deg")
DECISION = ["image_id", "keep", "reason", "value", "threshold", "representative_id"]
ID_DIGITS = 32
HELD_OUT = "held_out"  # the table of shards whose pictures were not exported


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


def resolve_image(store: Store, reference: str) -> tuple[set[str], set[str]]:
    """(image ids, source ids) that a path, URL, source name or id prefix means.

    A file that exists is known by its bytes; else by its source name or the end of it. Raises ArtifactError.
    """
    from curation.tables import image_id

    path = Path(reference).expanduser()
    images = list(store.all("images"))
    if not images:
        raise ArtifactError(f"there is no `images` artifact under {store.root}: nothing was ingested yet")
    wanted = {image_id(path.read_bytes())} if path.is_file() else set()
    ids: set[str] = set()
    sources: set[str] = set()
    for artifact in images:
        table = artifact.read("sources", ["source_id", "source", "image_id"])
        found = table.filter(
            pc.or_kleene(
                _among(table["image_id"], wanted),
                pc.or_kleene(_named(table["source"], reference, path.is_file()), _prefix(table["image_id"], reference)),
            )
        )
        ids |= {i for i in found["image_id"].to_pylist() if i}
        sources |= set(found["source_id"].to_pylist())
        if wanted:  # a file that was rejected is known by its bytes too
            sources |= {row["source_id"] for row in _rows(artifact, "rejects", "image_id", wanted)}
    if not sources:
        raise ArtifactError(
            f"{reference!r} is no picture that was ingested under {store.root}: give its path, its URL, or at least "
            "six digits of its id"
        )
    return ids, sources


def _named(column: Any, reference: str, by_bytes: bool) -> Any:
    """Rows whose source is the reference, or ends with it at a separator; or, for a file, with the file's name."""
    ends = pc.or_(pc.ends_with(column, f"/{reference}"), pc.ends_with(column, f"::{reference}"))
    if by_bytes and Path(reference).is_absolute():
        return _among(column, {reference})
    return pc.or_(_among(column, {reference}), ends)


def _prefix(column: Any, reference: str) -> Any:
    is_id = 6 <= len(reference) <= ID_DIGITS and all(c in "0123456789abcdef" for c in reference)
    return pc.starts_with(column, reference if is_id else "\0")


def why(store: Store, reference: str) -> Iterator[Line]:
    """What every version of every stage says of an image, in the order of the stages, oldest version first."""
    ids, sources = resolve_image(store, reference)
    for kind in STAGES:
        latest = store.latest(kind)
        for artifact in store.all(kind):
            for verdict, text in EXPLAIN.get(kind, _decision)(artifact, ids, sources):
                yield Line(artifact, verdict, text, latest is not None and latest.version == artifact.version)


def _rows(artifact: Artifact, table: str, key: str, values: set[str], columns: list[str] | None = None) -> list[dict]:
    found = []
    for pid in artifact.partitions(table):
        part = artifact.read_partition(table, pid, columns)
        found += part.filter(_among(part[key], values)).to_pylist()
    return found


def _among(column: Any, values: set[str]) -> Any:
    """Rows with one of the values; null is none of them.

    The value set is built from bytes: from a Python list, pyarrow would import pandas first, a quarter of a second.
    """
    texts = [value.encode() for value in sorted(values)]
    offsets = array("i", accumulate((len(text) for text in texts), initial=0))
    wanted = pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))
    return pc.is_in(column, value_set=wanted)


def _images(artifact: Artifact, ids: set[str], sources: set[str]) -> Iterator[tuple[str, str]]:
    for row in _rows(artifact, "rejects", "source_id", sources):
        yield "rejected", f"{row['source']}: {row['reason']} ({row['detail']})"
    from components.curation_steps import NARROW

    for row in _rows(artifact, "images", "image_id", ids, NARROW):
        text = f"{row['source']} {row['format']} {row['width']}x{row['height']}, {row['n_sources']} source(s)"
        yield "kept", f"{text}, id {row['image_id']}"


def _detections(artifact: Artifact, ids: set[str], _: set[str]) -> Iterator[tuple[str, str]]:
    for row in _rows(artifact, "data", "image_id", ids, ["image_id", "boxes", "box_scores"]):
        sides = [round(min(b[2] - b[0], b[3] - b[1])) for b in row["boxes"]]
        persons = ", ".join(f"{side} px at {score:.2f}" for side, score in zip(sides, row["box_scores"], strict=True))
        yield "measured", f"{len(sides)} person box(es): {persons or 'none'}"


def _scores(artifact: Artifact, ids: set[str], _: set[str]) -> Iterator[tuple[str, str]]:
    for row in _rows(artifact, "data", "image_id", ids, ["image_id", "scored", *SHOWN_SCORES]):
        shown = [f"{name} {row[name]:.3g}" for name in SHOWN_SCORES if row[name] is not None]
        yield "measured", ", ".join(shown) + ("" if row["scored"] else " (held back by the gate)")


def _clusters(artifact: Artifact, ids: set[str], _: set[str]) -> Iterator[tuple[str, str]]:
    for row in _rows(artifact, "data", "image_id", ids, ["image_id", "path", "distance"]):
        yield "measured", f"cluster {' < '.join(map(str, row['path']))}, distance {row['distance']:.3f}"


def _decision(artifact: Artifact, ids: set[str], _: set[str]) -> Iterator[tuple[str, str]]:
    for row in _rows(artifact, "data", "image_id", ids, DECISION):
        if row["keep"]:
            yield "kept", ""
            continue
        measured = f": {row['value']:.4g} against {row['threshold']:.4g}" if row["threshold"] is not None else ""
        other = f"; {row['representative_id']} stands for it" if row["representative_id"] else ""
        yield "dropped", f"{row['reason']}{measured}{other}{_copied(artifact, row)}"


def _copied(artifact: Artifact, row: dict[str, Any]) -> str:
    """Of which evaluation picture a dropped one is a copy, or that a picture of its group is."""
    if row["reason"] != "evaluation_copy":
        return ""
    for copy in _rows(artifact, "evaluation_copies", "image_id", {row["image_id"]}):
        return f" by {copy['kind']}; a copy of {copy['source']} in {copy['evaluation_set']}"
    return "; another picture of its group is a copy of an evaluation picture"


def _shards(artifact: Artifact, ids: set[str], _: set[str]) -> Iterator[tuple[str, str]]:
    if HELD_OUT in artifact.manifest.tables:
        for row in _rows(artifact, HELD_OUT, "image_id", ids):
            yield "dropped", f"{row['reason']}; {row['representative_id']} is the labelled picture"
    for split in set(artifact.manifest.tables) - {HELD_OUT}:
        for row in _rows(artifact, split, "image_id", ids, ["image_id", "position"]):
            yield "kept", f"{split}, position {row['position']}"


EXPLAIN: dict[str, Callable[[Artifact, set[str], set[str]], Iterator[tuple[str, str]]]] = {
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
    for shards, backbone in _trainings(store):
        seen = _first_seen(shards, backbone, ids)
        if seen:
            found += _with_heirs(store, backbone, f"{shards}, first as sample {min(seen.values())}")
    return found


def consumed_by(store: Store, ids: set[str]) -> Iterator[tuple[Artifact, set[str]]]:
    """Every backbone that was trained on any of the images, and on which."""
    for shards, backbone in _trainings(store):
        if seen := _first_seen(shards, backbone, ids):
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


def _first_seen(shards: Artifact, backbone: Artifact, ids: set[str]) -> dict[str, int]:
    """The first sample of the run that was each of the images; images that the run never came to are absent."""
    from sapiens2.data.order import EpochOrder

    rows = shards.read("train", ["image_id", "position"])
    places = zip(rows["position"].to_pylist(), rows["image_id"].to_pylist(), strict=True)
    wanted = {place: image_id for place, image_id in places if image_id in ids}
    if not wanted:
        return {}
    config = backbone.manifest.config
    order = EpochOrder(_group_sizes(shards), config["engine"]["seed"], config["shuffle_window"])
    samples = range(min(config["engine"]["steps"] * config["batch"], len(order)))
    first: dict[str, int] = {}
    for sample in samples:
        image_id = wanted.get(order.index(sample))
        if image_id is not None:
            first.setdefault(image_id, sample)
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
