"""The pipelines: the steps wired together, the same here and on a cluster.

`curation`, `training` and `full` make a pipeline of the pool, the root and the settings, whose tasks run where the
placements say. Caching by KFP is off: the store is the only cache, and a step whose version is committed returns at
once.
"""

# ruff: noqa: B006 (KFP reads the defaults and never changes them)
# mypy: disable-error-code="misc, no-untyped-def"
from collections.abc import Callable
from typing import Any

from kfp import dsl
from kfp.dsl import Dataset

from components import kfp as steps
from components.steps import TASKS
from pipelines.placing import as_it_comes

Place = Callable[[Any, str], Any]  # (task, name of its step) -> the task, named and placed


def _common(root: str, settings: dict, code_version: str) -> dict:
    return {"root": root, "settings": settings, "code_version": code_version}


def _curate(pool: str, common: dict, place: Place) -> dict:
    """The nine curation steps; returns their outputs by role."""
    made: dict = {}

    def add(name: str, role: str, *roles: str, **more) -> None:
        task = steps.COMPONENTS[name](**{r: made[r] for r in roles}, **more, **common)
        made[role] = place(task, name).outputs[role]

    add("ingest", "images", pool=pool)
    add("detect", "detections", "images")
    add("score", "scores", "images", "detections")
    add("filter", "filtered", "images", "detections", "scores")
    add("dedup", "deduped", "images", "detections", "scores", "filtered")
    add("cluster", "clusters", "scores", "deduped")
    add("balance", "selection", "images", "detections", "scores", "deduped", "clusters")
    add("export", "shards", "images", "detections", "deduped", "selection")
    roles = ("images", "detections", "scores", "filtered", "deduped", "clusters", "selection", "shards")
    add("card", "dataset_card", *roles)
    return made


def _train(shards, common: dict, place: Place) -> dict:
    """Pretraining, the choice of a checkpoint, then five tasks, each evaluated; returns the evaluations by role.

    One training at a time.
    """
    backbone = place(steps.pretrain(shards=shards, **common), "pretrain").outputs["backbone"]
    last = place(steps.probe(backbone=backbone, **common), "probe")
    chosen, evaluations = last.outputs["evaluation"], {}
    for task in TASKS:
        tuned = place(steps.finetune(backbone=backbone, probe=chosen, task=task, **common), f"finetune-{task}").after(
            last
        )
        last = place(steps.evaluate(checkpoint=tuned.outputs["checkpoint"], task=task, **common), f"evaluate-{task}")
        evaluations[f"evaluation_{task}"] = last.outputs["evaluation"]
    return evaluations


def curation(place: Place = as_it_comes) -> Any:
    """From a pool of pictures to a balanced, training-ready dataset."""

    @dsl.pipeline(name="sapiens2-curation", description="A pool of pictures to a balanced, training-ready dataset.")
    def pipeline(pool: str, root: str, settings: dict = {}, code_version: str = ""):
        common = _common(root, settings, code_version)
        made = _curate(pool, common, place)
        place(steps.report(dataset_card=made["dataset_card"], **common), "report")

    return pipeline


def training(place: Place = as_it_comes) -> Any:
    """From shards to a backbone, five task models and their evaluation."""

    @dsl.pipeline(name="sapiens2-training", description="Shards to a backbone, five task models and their evaluation.")
    def pipeline(shards_manifest: str, root: str, settings: dict = {}, code_version: str = ""):
        common = _common(root, settings, code_version)
        shards = dsl.importer(artifact_uri=shards_manifest, artifact_class=Dataset, reimport=True)
        evaluations = _train(shards.set_caching_options(False).output, common, place)
        place(steps.report(**evaluations, **common), "report")

    return pipeline


def full(place: Place = as_it_comes) -> Any:
    """From a pool of pictures to five task models, evaluated, with one report."""

    @dsl.pipeline(
        name="sapiens2-full", description="A pool of pictures to five task models, evaluated, with one report."
    )
    def pipeline(pool: str, root: str, settings: dict = {}, code_version: str = ""):
        common = _common(root, settings, code_version)
        made = _curate(pool, common, place)
        evaluations = _train(made["shards"], common, place)
        place(steps.report(dataset_card=made["dataset_card"], **evaluations, **common), "report")

    return pipeline
