"""The bodies of the nine curation steps: artifacts to tables, the stage, tables to artifacts."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.artifacts import Artifact, Store
from components.failure import failing_picture, note
from components.partitions import PartitionWork, Worker, map_partitions, sum_metrics
from components.picture_lookup import NARROW, ImageLookup, narrow
from components.refetch import earlier_fetch, failed_for_now, known_outcomes
from components.removals import root_denylist
from components.run_step import Publication, StepContext
from components.score_cache import ScoreCache
from components.settings import recipe_fields
from components.steps import LABELS

# --- ingest ----------------------------------------------------------------------------------------------------------


@dataclass
class _IngestWork:
    config: Any
    state_folder: str
    denylist: Any
    earlier: Artifact | None

    def __call__(self, pid: str, payload: Any) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        from curation.stages.ingest import IngestPartition

        known = known_outcomes(self.earlier, pid) if self.earlier is not None else None
        tables = IngestPartition(self.config, self.state_folder, denylist=self.denylist)(payload, known)
        return tables, {"rows_in": tables["sources"].num_rows}


def ingest(context: StepContext) -> Publication:
    """Fetch and check every source by partition, then settle which partition owns an image that several have."""
    from curation.images.screening import denylist_of
    from curation.stages import ingest as stage

    denylist = denylist_of(context.config.denylist_files) | root_denylist(context.store.storage)
    partitions = {partition.pid: partition for partition in context.source.partitions}
    earlier = earlier_fetch(context.store, context.source, recipe_fields(context.config))
    work = partial(_IngestWork, context.config, _hosts(context.store), denylist, earlier)
    worker = Worker(context.attempt, work, stage="staging")
    staged = map_partitions(worker, partitions, context.progress, workers=_workers(context))
    reader = _Staged(context, staged)
    settlements = stage.settle([(pid, reader.table(pid, "images", NARROW)) for pid in staged])
    done = context.attempt.done()
    for pid in staged:
        if pid not in done:
            images = stage.apply_settlement(reader.table(pid, "images"), settlements[pid])
            tables = {
                "sources": reader.table(pid, "sources"),
                "images": images,
                "rejects": reader.table(pid, "rejects"),
            }
            context.attempt.write_partition(pid, tables, staged[pid].metrics)
    records = {pid: record for pid, record in context.attempt.done().items() if pid in partitions}
    whole = _Staged(context, records)
    sources, images, rejects = (whole.all(t, c) for t, c in (("sources", None), ("images", NARROW), ("rejects", None)))
    dropped = _count(rejects["reason"].to_pylist())
    metrics = {"rows_in": sources.num_rows, "kept": sum(images["n_sources"].to_pylist()), "dropped": dropped}
    if metrics["rows_in"] != metrics["kept"] + rejects.num_rows:
        raise AssertionError(f"ingest lost sources: {metrics}")
    metrics["images"] = images.num_rows
    metrics["headline"] = f"{images.num_rows} distinct pictures"
    metrics["url_list"] = context.source.url_list
    note = failed_for_now(rejects)
    metrics["notes"] = [note] if note else []
    if not images.num_rows:
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        metrics["notes"] += [f"none of the {sources.num_rows} sources is a picture that can be used ({reasons})"]
    return Publication(records, metrics, fragment=stage.fragment(sources, images, rejects, context.config))


def _hosts(store: Store) -> str:
    """Where workers share what they know of hosts: locks need a disk, so beside a remote root each machine has one."""
    if store.storage.local:
        return store.storage.path("cache/hosts")
    name = hashlib.sha256(store.root.encode()).hexdigest()[:12]
    return str(Path(tempfile.gettempdir()) / f"sapiens2-hosts-{name}")


class _Staged:
    """Tables of finished partitions that are not published yet."""

    def __init__(self, context: StepContext, records: dict[str, Any]) -> None:
        self.storage, self.records = context.store.storage, records

    def table(self, pid: str, name: str, columns: list[str] | None = None) -> pa.Table:
        from components.artifacts import read_parquet

        (entry,) = [entry for entry in self.records[pid].files if entry.table == name]
        return read_parquet(self.storage, entry.path, columns)

    def all(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return pa.concat_tables(self.table(pid, name, columns) for pid in self.records)


# --- detect, score ---------------------------------------------------------------------------------------------------


@dataclass
class _ImageWork:
    """One partition of `images` (and of what was measured on it) through a per-image stage with a model cache."""

    root: str
    build: Callable[[], Any]
    inputs: dict[str, str]
    side: tuple[str, ...]

    def __post_init__(self) -> None:
        self.store, self.stage, self.cache = Store(self.root), self.build(), ScoreCache(self.root)
        self.artifacts = {kind: self.store.get(kind, version) for kind, version in self.inputs.items()}

    def __call__(self, pid: str, payload: Any) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        images = self.artifacts["images"].read_partition("images", pid)
        others = [self.artifacts[kind].read_partition("data", pid) for kind in self.side]
        try:
            result = self.stage(images, *others, cache=self.cache)
        except Exception as error:
            note(error, failing_picture(images, lambda one: self.stage(one, *others, cache=self.cache)))
            raise
        return result.tables, result.metrics


def detect(context: StepContext) -> Publication:
    """Person boxes, partition by partition."""
    from curation.stages.detect import DetectPartition

    return _per_image(context, partial(DetectPartition, context.config, context.weights), ())


def score(context: StepContext) -> Publication:
    """All scores from one decode, partition by partition."""
    from curation.stages.score import ScorePartition

    return _per_image(context, partial(ScorePartition, context.config, context.weights), ("detections",))


def _per_image(context: StepContext, build: Callable[[], Any], side: tuple[str, ...]) -> Publication:
    import importlib

    images = context.inputs["images"]
    versions = {role: artifact.version for role, artifact in context.inputs.items()}
    factory: Callable[[], PartitionWork] = partial(_ImageWork, context.store.root, build, versions, side)
    worker = Worker(context.attempt, factory)
    pids = dict.fromkeys(images.partitions("images"))
    records = map_partitions(worker, pids, context.progress, workers=_workers(context))
    whole = _Staged(context, records).all("data")
    metrics = sum_metrics(records)
    stage = importlib.import_module(f"curation.stages.{context.step.name}")
    others = [context.inputs[kind].read() for kind in side]
    lookup = ImageLookup(images)
    fragment = stage.fragment(whole, *others, images=narrow(images), fetch=lookup.encoded, config=context.config)
    return Publication(records, metrics, fragment=fragment)


# --- the global stages -----------------------------------------------------------------------------------------------


def filter(context: StepContext) -> Publication:  # the step's name
    """Thresholds to decisions."""
    from curation.stages import filter as stage

    images, detections, scores = (
        narrow(context.inputs["images"]),
        _data(context, "detections"),
        _data(context, "scores"),
    )
    return _publish(context, stage.run(images, detections, scores, context.config))


def dedup(context: StepContext) -> Publication:
    """Duplicates and their representatives."""
    from components.given_dedup import carried
    from components.hamming_shuffle import distinct_pairs_on_ray
    from curation.stages import dedup as stage
    from curation.stages.dedup_references import read_references

    images, scores, filtered = narrow(context.inputs["images"]), _data(context, "scores"), _data(context, "filtered")
    lookup = ImageLookup(context.inputs["images"])
    result = stage.run(
        images,
        scores,
        filtered,
        context.config,
        detections=_data(context, "detections"),
        thumbnails=lookup.grey,
        search=distinct_pairs_on_ray,
        references=read_references(context.config, context.weights),
        previous=carried(context.inputs),
    )
    return _publish(context, result)


def cluster(context: StepContext) -> Publication:
    """Hierarchical k-means."""
    from components.given_clusters import centroids
    from curation.stages import cluster as stage

    scores, deduped = (_data(context, role) for role in ("scores", "deduped"))
    return _publish(context, stage.run(scores, deduped, context.config, previous=centroids(context.inputs)))


def balance(context: StepContext) -> Publication:
    """Caps and floors to an exact target size."""
    from curation.stages import balance as stage

    data = (_data(context, role) for role in ("detections", "scores", "deduped", "clusters"))
    detections, scores, deduped, clusters = data
    result = stage.run(narrow(context.inputs["images"]), detections, scores, deduped, clusters, context.config)
    return _publish(context, result)


@dataclass
class _ExportWork:
    root: str
    inputs: dict[str, str]

    def __post_init__(self) -> None:
        store = Store(self.root)
        self.artifacts = {kind: store.get(kind, version) for kind, version in self.inputs.items()}
        self.lookup = ImageLookup(self.artifacts["images"])
        self.detections = self.artifacts["detections"].read()
        self.attributes = self.artifacts["selection"].read("attributes")
        self.deduped = self.artifacts["deduped"].read()

    def __call__(self, pid: str, payload: Any) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        from curation.stages import export as stage

        images = self.lookup.rows(payload.image_ids)
        table = stage.build_shard(payload, images, self.detections, self.attributes, self.deduped)
        return {payload.split: table}, {"rows_in": table.num_rows}


def export(context: StepContext) -> Publication:
    """Shuffled, training-ready Parquet."""
    from curation.stages import export as stage

    selection, deduped = context.inputs["selection"].read(), _data(context, "deduped")
    excluded = stage.held_out(selection, deduped, labelled_pictures(context.inputs.values()))
    left_out = excluded["image_id"].to_pylist()
    plans = {plan.pid: plan for plan in stage.plan(selection, deduped, context.config, without=left_out)}
    versions = {read.role: context.inputs[read.role].version for read in context.step.inputs}
    context.attempt.row_group_rows = context.config.rows_per_group
    worker = Worker(context.attempt, partial(_ExportWork, context.store.root, versions))
    records = map_partitions(worker, plans, context.progress, workers=_workers(context))
    if left_out:
        records["held-out"] = context.attempt.write_partition("held-out", {"held_out": excluded}, {})
    rows = {split: sum(len(p.image_ids) for p in plans.values() if p.split == split) for split in ("train", "val")}
    kept = sum(rows.values())
    dropped = {stage.LABELLED_TEST: len(left_out)} if left_out else {}
    metrics = {"rows_in": kept + len(left_out), "kept": kept, "dropped": dropped, "splits": rows}
    return Publication(records, metrics, fragment=stage.fragment(plans.values(), context.config, len(left_out)))


def card(context: StepContext) -> Publication:
    """The dataset card."""
    from curation.stages import card as stage

    inputs = context.inputs
    tables = {
        "sources": inputs["images"].read("sources"),
        "images": narrow(inputs["images"]),
        "rejects": inputs["images"].read("rejects"),
        "edges": inputs["deduped"].read("edges"),
        "selection": inputs["selection"].read(),
        "attributes": inputs["selection"].read("attributes"),
        "balance": inputs["selection"].read("balance"),
        **{kind: inputs[kind].read() for kind in ("detections", "scores", "filtered", "deduped", "clusters")},
    }
    lookup = ImageLookup(inputs["images"])
    thumbnails = lookup.thumbnails(stage.wanted_thumbnails(tables, context.config))
    metrics = {artifact.manifest.step: artifact.manifest.metrics for artifact in inputs.values()}
    result = stage.run(tables, metrics, thumbnails, context.config)
    return Publication(metrics=result.metrics, files=dict(result.files), fragment=result.fragment)


def labelled_pictures(artifacts: Iterable[Artifact]) -> pa.Table:
    """image_id, group_id and split of every picture of the labels among some artifacts."""
    columns = ["image_id", "group_id", "split"]
    tables = [artifact.read(columns=columns) for artifact in artifacts if artifact.kind == LABELS.kind]
    empty = pa.table({name: pa.array([], pa.string()) for name in columns})
    return pa.concat_tables([empty, *tables])


# --- shared by the bodies --------------------------------------------------------------------------------------------


def _data(context: StepContext, role: str) -> pa.Table:
    return context.inputs[role].read()


def _workers(context: StepContext) -> int:
    return int(context.config.workers)


def _publish(context: StepContext, result: Any) -> Publication:
    record = context.attempt.write_partition("all", result.tables, {})
    return Publication({"all": record}, result.metrics, dict(result.files), fragment=result.fragment)


def _count(values: list[str]) -> dict[str, int]:
    return {value: values.count(value) for value in sorted(set(values))}
