"""An ablation as an artifact: arms over the shards of this root, or over what each stage of its curation would keep."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from components.artifacts import Artifact, Store
from components.run_step import Outcome, Publication, StepContext, run_step
from components.steps import Input, Step
from sapiens2.config import Config, execution, recipe
from sapiens2.evaluation.ablation.arms import (
    Arm,
    Axis,
    architecture_arms,
    attention_arms,
    changed,
    crops_arms,
    curation_arms,
    objective_arms,
)
from sapiens2.evaluation.config import ProbeConfig
from sapiens2.pretrain.config import PretrainConfig

AXES: dict[Axis, str] = {
    "objective": "both",
    "curation": "random",
    "attention": "global",
    "architecture": "whole",
    "crops": "whole",
}
"""Every axis and the arm that the others are held against."""

_CURATED = ("images", "filtered", "deduped", "selection")


class AblationConfig(Config):
    """Settings of one ablation."""

    axis: Axis = recipe("objective", "What the arms differ in.")
    seeds: int = recipe(3, "Runs of each arm, with the seeds 0, 1, ...", ge=1)
    pretrain: PretrainConfig = recipe(PretrainConfig(), "The run that all arms share but for the axis.")
    probe: ProbeConfig = recipe(ProbeConfig(), "The frozen probes that judge them.")
    minutes: float | None = execution(None, "Stop after so long; the same command continues.", gt=0)


def base_for(axis: Axis, config: PretrainConfig) -> PretrainConfig:
    """The run, made fit for an axis where it is not: deep enough to share key heads, patches small enough to pool."""
    if axis == "architecture" and config.architecture.layers <= 16:
        return changed(config, changes={"layers": 18, "dim": 96, "heads": 4})
    if axis == "attention":
        patch, window = config.architecture.patch // 2, 2
        return changed(config, changes={"patch": patch, "window": window})
    return config


def step_of(axis: Axis) -> Step:
    """The row that an ablation would have in the table of steps; it is no part of a pipeline."""
    produced = {"images": "ingest", "filtered": "filter", "deduped": "dedup", "selection": "balance"}
    inputs = [Input(role, produced[role]) for role in _CURATED] if axis == "curation" else [Input("shards", "export")]
    return Step(
        name=f"ablation-{axis}",
        kind="evaluation",
        inputs=tuple(inputs),
        config="components.ablation:AblationConfig",
        body="components.ablation:ablate",
        summary=f"arms that differ in the {axis}, at equal data and compute, judged by frozen probes",
        sources=("components.ablation", "sapiens2.evaluation", "sapiens2.pretrain", "sapiens2.model"),
        task=axis,
        deterministic=False,
    )


def run_ablation(config: AblationConfig, store: Store, given: Mapping[str, Artifact]) -> Outcome:
    """Run an ablation on `given` inputs, the latest ones where none is given.

    Raises ValueError naming the step to run first when an input is missing.
    """
    step = step_of(config.axis)
    inputs = {}
    for read in step.inputs:
        found = given.get(read.role) or store.latest(read.role)
        if found is None:
            raise ValueError(f"there are no {read.role} under {store.root}: run the {read.producer} step first")
        inputs[read.role] = found
    return run_step(step, config, inputs, store.root)


def ablate(context: StepContext) -> Publication:
    """The body of the step: arms and seeds, then tables of probes and paired differences."""
    from sapiens2.evaluation.ablation.comparison import differences
    from sapiens2.evaluation.ablation.report import arms_table, fragment
    from sapiens2.evaluation.ablation.runner import run_arms

    config, began = context.config, time.monotonic()
    arms, notes = _arms(context)
    total, done = len(arms) * config.seeds, []

    def say(line: str) -> None:
        done.append(line)
        context.progress.update(len(done), total, "runs", line)

    stop = None if config.minutes is None else (lambda: time.monotonic() - began > 60 * config.minutes)
    held_out = [] if config.axis == "curation" else _split(context, "val")  # its arms share no pictures to hold out
    outcomes = run_arms(
        arms,
        range(config.seeds),
        config.probe,
        out=context.attempt.uri("work/runs"),
        val_files=held_out,
        stop=stop,
        say=say,
    )
    reference = AXES[config.axis]
    found = differences(outcomes, reference)
    wins = [f"{d.arm} is {d.verdict} in {d.probe}" for d in found if d.verdict != "even"]
    told = {
        "axis": config.axis,
        "reference": reference,
        "arms": [{"arm": o.arm, "seed": o.seed, "probes": o.main, "run": o.facts} for o in outcomes],
        "differences": [vars(d) | {"verdict": d.verdict} for d in found],
        "headline": f"{len(arms)} arms, {config.seeds} seeds; {len(wins)} of {len(found)} differences are sure",
        "notes": notes,
    }
    columns, rows = arms_table(outcomes)
    files = {"ablation.json": json.dumps({**told, "columns": columns, "rows": rows}, indent=1).encode()}
    return Publication(metrics=told, files=files, fragment=fragment(config.axis, outcomes, found), seed=0)


def _arms(context: StepContext) -> tuple[list[Arm], list[str]]:
    config = context.config
    if config.axis == "curation":
        selections, notes = _selections(context)
        return curation_arms(config.pretrain, selections), notes
    make = {
        "objective": objective_arms,
        "attention": attention_arms,
        "architecture": architecture_arms,
        "crops": crops_arms,
    }[config.axis]
    return make(config.pretrain, _split(context, "train")), []


def _split(context: StepContext, name: str) -> list[str]:
    """Paths or URIs of one split of the shards."""
    shards = context.inputs["shards"]
    return [shards.storage.full(entry.path) for entry in shards.manifest.files_of(name)]


def _selections(context: StepContext) -> tuple[dict[str, list[str]], list[str]]:
    """One shard per arm, all with as many pictures: any, those that pass the filter, one of each group, the balanced.

    Drawn by a keyed hash, so that the smaller pools are not simply the head of a list.
    """
    from components.picture_lookup import ImageLookup

    inputs = context.inputs
    pools = {"random": inputs["images"].read("images", ["image_id"])["image_id"].to_pylist()}
    names = {"filtered": "filtered", "deduped": "deduped", "balanced": "selection"}
    for name, role in names.items():
        table = inputs[role].read()
        pools[name] = table.filter(table["keep"])["image_id"].to_pylist()
    count = min(len(pool) for pool in pools.values())
    if count < context.config.pretrain.koleo_group:
        raise ValueError(f"the smallest pool has {count} pictures, too few to train on: curate a larger pool")
    lookup, files = ImageLookup(inputs["images"]), {}
    for name, pool in pools.items():
        files[name] = [_write_shard(context, lookup, name, drawn(pool, count))]
    sizes = ", ".join(f"{name} {len(pool)}" for name, pool in pools.items())
    return files, [f"every arm trains on {count} pictures; the pools hold {sizes}"]


def drawn(image_ids: Iterable[str], count: int) -> list[str]:
    """`count` of the ids, by a keyed hash: the same whatever the order in which they come."""
    return sorted(image_ids, key=lambda i: hashlib.sha256(f"ablation/{i}".encode()).digest())[:count]


def _write_shard(context: StepContext, lookup: Any, name: str, image_ids: list[str]) -> str:
    import pyarrow.parquet as pq

    from sapiens2.data.shards import COLUMNS
    from sapiens2.engine.storage import locate

    uri = context.attempt.uri(f"work/arms/{name}.parquet")
    system, path = locate(uri)
    system.create_dir(path.rpartition("/")[0], recursive=True)
    table = lookup.rows(image_ids).select(list(COLUMNS))
    with system.open_output_stream(path) as stream:
        pq.write_table(table, stream, row_group_size=64)
    return uri
