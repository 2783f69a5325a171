"""The pipelines: the steps wired together, the same here and on a cluster.

`curation`, `training` and `full` are functions of the pool, the root and the settings. Caching by KFP is off: the store
is the only cache, and a step whose version is committed returns at once.
"""

# ruff: noqa: B006 (KFP reads the defaults and never changes them)
# mypy: disable-error-code="misc, no-untyped-def"
from kfp import dsl
from kfp.dsl import Dataset

from components import kfp as steps
from components.steps import TASKS


def _set(task, name: str):
    task.set_caching_options(False)
    task.set_display_name(name)
    return task


def _common(root: str, settings: dict, code_version: str) -> dict:
    return {"root": root, "settings": settings, "code_version": code_version}


def _curate(pool: str, common: dict) -> dict:
    """The nine curation steps; returns their outputs by role."""
    made: dict = {}

    def add(name: str, role: str, *roles: str, **more) -> None:
        task = steps.COMPONENTS[name](**{r: made[r] for r in roles}, **more, **common)
        made[role] = _set(task, name).outputs[role]

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


def _train(shards, common: dict) -> dict:
    """Pretraining, the choice of a checkpoint, then five tasks, each evaluated; returns the evaluations by role.

    One training at a time.
    """
    backbone = _set(steps.pretrain(shards=shards, **common), "pretrain").outputs["backbone"]
    last = _set(steps.probe(backbone=backbone, **common), "probe")
    chosen, evaluations = last.outputs["evaluation"], {}
    for task in TASKS:
        tuned = _set(steps.finetune(backbone=backbone, probe=chosen, task=task, **common), f"finetune-{task}").after(
            last
        )
        last = _set(steps.evaluate(checkpoint=tuned.outputs["checkpoint"], task=task, **common), f"evaluate-{task}")
        evaluations[f"evaluation_{task}"] = last.outputs["evaluation"]
    return evaluations


@dsl.pipeline(name="sapiens2-curation", description="A pool of pictures to a balanced, training-ready dataset.")
def curation(pool: str, root: str, settings: dict = {}, code_version: str = ""):
    common = _common(root, settings, code_version)
    made = _curate(pool, common)
    _set(steps.report(dataset_card=made["dataset_card"], **common), "report")


@dsl.pipeline(name="sapiens2-training", description="Shards to a backbone, five task models and their evaluation.")
def training(shards_manifest: str, root: str, settings: dict = {}, code_version: str = ""):
    common = _common(root, settings, code_version)
    shards = dsl.importer(artifact_uri=shards_manifest, artifact_class=Dataset, reimport=True)
    _set(steps.report(**_train(shards.set_caching_options(False).output, common), **common), "report")


@dsl.pipeline(name="sapiens2-full", description="A pool of pictures to five task models, evaluated, with one report.")
def full(pool: str, root: str, settings: dict = {}, code_version: str = ""):
    common = _common(root, settings, code_version)
    made = _curate(pool, common)
    evaluations = _train(made["shards"], common)
    _set(steps.report(dataset_card=made["dataset_card"], **evaluations, **common), "report")
