"""The bodies of the training and evaluation steps: artifacts to files, Ray Train, files to artifacts."""

from __future__ import annotations

import json
from typing import Any

from components.artifacts import Artifact, ArtifactError
from components.given_labels import resolved
from components.given_weights import INIT, WEIGHTS
from components.run_step import Publication, StepContext
from components.step_sources import source_hash
from components.steps import IMPORT

LOOSE = ("model.safetensors", "config.json", "history.jsonl", "fragment.json", "metrics.json")


def pretrain(context: StepContext) -> Publication:
    """Pretrain a backbone on the shards, on Ray Train."""
    shards = context.inputs["shards"]
    train_files = _files(shards, "train")
    if not train_files:
        raise ValueError(
            f"no picture of the pool is left to train on in shards={shards.manifest.version}: run with "
            "--only curation for a report of every reason, then give other pictures, or looser thresholds with --set"
        )
    return _launch(
        context,
        "pretrain",
        train_files=train_files,
        val_files=_files(shards, "val"),
        init=context.weights.get(INIT),
    )


def probe(context: StepContext) -> Publication:
    """Probe the kept checkpoints of a backbone; its metrics name the chosen one and the tags that are to follow it."""
    from sapiens2.evaluation.select import select

    backbone = context.inputs["backbone"]
    run = f"{backbone.folder}/out"
    select(
        context.config,
        run=context.store.storage.full(run),
        files=[entry.path.removeprefix(f"{run}/") for entry in backbone.manifest.files],
        out=context.attempt.uri("out"),
        name=str(backbone),
        state=context.attempt.uri("work"),
        code=source_hash(context.step),
        progress=lambda done, total, note: context.progress.update(done, total, "backbones", note),
    )
    publication = _collect(context)
    metrics = publication.metrics
    chose = (("best-val", "chosen"),) if context.config.checkpoints == "each" else ()
    metrics["tags"] = [
        {"name": name, "kind": backbone.kind, "version": backbone.version, "file": f"out/{metrics[key]['file']}"}
        for name, key in (*chose, ("last", "last"))
    ]
    return publication


def finetune(context: StepContext) -> Publication:
    """Post-train one task on Ray Train: from the checkpoint of the backbone that the probe chose (or the last), or from
    somebody else's backbone."""
    context.config = resolved(context.config, context.inputs, context.store)
    if context.config.backbone:
        return _launch(context, "finetune")
    backbone = context.inputs["backbone"]
    file = starting_point(backbone, context.inputs.get("probe"), context.config.checkpoint)
    return _launch(context, "finetune", backbone=context.store.storage.full(backbone.file_path(file)))


def starting_point(backbone: Artifact, probe: Artifact | None, checkpoint: str) -> str:
    """The name of the weights to start from inside the backbone's version.

    The last checkpoint and imported weights need no probe. Raises ArtifactError without one, for a probe of another
    backbone, and for one that chose among nothing.
    """
    if checkpoint == "last" or backbone.manifest.step == IMPORT:
        return WEIGHTS
    if probe is None:
        raise ArtifactError(f"no probe chose a checkpoint of {backbone}: run `sapiens2 probe --each` first")
    probed = [ref.version for ref in probe.manifest.inputs if ref.role == "backbone"]
    if probed != [backbone.version]:
        raise ArtifactError(
            f"{probe} chose among the checkpoints of backbone={probed[0]}, not of {backbone}: run "
            f"`sapiens2 probe --each --input {backbone}` first, or name the probe of this backbone with --input"
        )
    if probe.manifest.config["checkpoints"] == "last":
        raise ArtifactError(
            f"{probe} looked at the last checkpoint only and chose none: run `sapiens2 probe --each` first, or start "
            "from the last with --set finetune.checkpoint=last"
        )
    file: str = probe.manifest.metrics["chosen"]["file"]
    return file


def evaluate(context: StepContext) -> Publication:
    """Evaluate one task model on held-out people."""
    from sapiens2.evaluation.run import evaluate as run

    checkpoint = context.inputs["checkpoint"]
    run(
        resolved(context.config, context.inputs, context.store),
        checkpoint=context.store.storage.full(f"{checkpoint.folder}/out"),
        out=context.attempt.uri("out"),
        name=str(checkpoint),
        asked=context.config,
        state=context.attempt.uri("work"),
        said=lambda done, total: context.progress.update(done, total, "samples"),
    )
    return _collect(context)


def _launch(context: StepContext, target: str, **paths: Any) -> Publication:
    from sapiens2.engine.control import Control
    from sapiens2.launch import launch

    steps, progress = context.config.engine.steps, context.progress

    def show(row: dict[str, Any]) -> None:
        loss = "skipped" if row["loss"] is None else f"loss {row['loss']:.4f}"
        progress.update(int(row["step"]), steps, "steps", loss)

    progress.update(0, steps, "steps")
    out, state = context.attempt.uri("out"), context.attempt.uri("work")
    launch(
        target,
        context.config,
        workers=context.config.workers,
        min_workers=context.config.min_workers,
        storage=context.attempt.uri("work/ray"),
        out=out,
        state=state,
        control=Control(on_row=show, shows=False),
        **paths,
    )
    return _collect(context)


def _files(shards: Artifact, split: str) -> list[str]:
    return [shards.storage.full(entry.path) for entry in shards.manifest.files_of(split)]


def _collect(context: StepContext) -> Publication:
    """What a run left in its `out` folder, as files of the artifact."""
    storage, folder = context.store.storage, f"{context.attempt.folder}/out"
    written = [
        path.removeprefix(f"{folder}/") for path, is_file, _, _ in storage.list(folder, recursive=True) if is_file
    ]
    metrics = json.loads(storage.read(f"{folder}/metrics.json"))
    metrics["headline"] = _headline(metrics)
    existing = [context.attempt.existing_file(f"out/{name}") for name in written]
    return Publication(metrics=metrics, existing=existing, digest=metrics.get("digest"), seed=metrics.get("seed"))


def _headline(metrics: dict[str, Any]) -> str:
    """What a person wants to know first: how far the loss fell, which checkpoint, or the metric beside its baseline."""
    if "chosen" in metrics:
        chosen, count = metrics["chosen"], len(metrics["candidates"])
        which = "imported weights" if chosen["step"] is None else f"{chosen['name']} of {count} checkpoints"
        return f"{which}, score {chosen['score']:.3f}, test {metrics['score']:.3f}"
    if "loss_first" in metrics:
        knn = f", k-NN {metrics['knn']['verdict']}" if "knn" in metrics else ""
        return f"loss {metrics['loss_first']:.3f} -> {metrics['loss_final']:.3f}{knn}"
    name = metrics["main"]
    beside = (("mean map", "baseline"), ("the picture itself", "picture"))
    told = (f", {said} {_told(metrics[base][name]['value'])}" for said, base in beside if base in metrics)
    return f"{name} {_told(metrics['value'])}{''.join(told)}"


def _told(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
