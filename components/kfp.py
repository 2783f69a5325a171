"""The KFP components: typed, three lines each; the work is in components.run_step.

KFP ships the source of a body, so each is written out; a test holds names, inputs and outputs to the table of steps.
What travels is the manifest, a small file; tables and weights stay under the root.
"""

# mypy: disable-error-code="valid-type, misc, no-untyped-def"
import functools
import os

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

IMAGE = os.environ.get("SAPIENS2_IMAGE", "sapiens2-python:latest")
component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)


@component
def ingest(pool: str, root: str, settings: dict, code_version: str, images: Output[Dataset], facts: Output[Metrics]):
    from components.kfp_entry import run

    run("ingest", {}, images, facts, root, settings, pool=pool)


@component
def detect(
    images: Input[Dataset],
    root: str,
    settings: dict,
    code_version: str,
    detections: Output[Dataset],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    run("detect", {"images": images}, detections, facts, root, settings)


@component
def score(
    images: Input[Dataset],
    detections: Input[Dataset],
    root: str,
    settings: dict,
    code_version: str,
    scores: Output[Dataset],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    run("score", {"images": images, "detections": detections}, scores, facts, root, settings)


@component
def filter(
    images: Input[Dataset],
    detections: Input[Dataset],
    scores: Input[Dataset],
    root: str,
    settings: dict,
    code_version: str,
    filtered: Output[Dataset],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    run("filter", {"images": images, "detections": detections, "scores": scores}, filtered, facts, root, settings)


@component
def dedup(
    images: Input[Dataset],
    detections: Input[Dataset],
    scores: Input[Dataset],
    filtered: Input[Dataset],
    root: str,
    settings: dict,
    code_version: str,
    deduped: Output[Dataset],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    inputs = {"images": images, "detections": detections, "scores": scores, "filtered": filtered}
    run("dedup", inputs, deduped, facts, root, settings)


@component
def cluster(
    scores: Input[Dataset],
    deduped: Input[Dataset],
    root: str,
    settings: dict,
    code_version: str,
    clusters: Output[Dataset],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    run("cluster", {"scores": scores, "deduped": deduped}, clusters, facts, root, settings)


@component
def balance(
    images: Input[Dataset],
    detections: Input[Dataset],
    scores: Input[Dataset],
    deduped: Input[Dataset],
    clusters: Input[Dataset],
    root: str,
    settings: dict,
    code_version: str,
    selection: Output[Dataset],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    inputs = {"images": images, "detections": detections, "scores": scores, "deduped": deduped, "clusters": clusters}
    run("balance", inputs, selection, facts, root, settings)


@component
def export(
    images: Input[Dataset],
    detections: Input[Dataset],
    deduped: Input[Dataset],
    selection: Input[Dataset],
    root: str,
    settings: dict,
    code_version: str,
    shards: Output[Dataset],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    inputs = {"images": images, "detections": detections, "deduped": deduped, "selection": selection}
    run("export", inputs, shards, facts, root, settings)


@component
def card(
    images: Input[Dataset],
    detections: Input[Dataset],
    scores: Input[Dataset],
    filtered: Input[Dataset],
    deduped: Input[Dataset],
    clusters: Input[Dataset],
    selection: Input[Dataset],
    shards: Input[Dataset],
    root: str,
    settings: dict,
    code_version: str,
    dataset_card: Output[Dataset],
    facts: Output[Metrics],
    page: Output[HTML],
):
    from components.kfp_entry import run

    inputs = {"images": images, "detections": detections, "scores": scores, "filtered": filtered, "deduped": deduped}
    inputs |= {"clusters": clusters, "selection": selection, "shards": shards}
    run("card", inputs, dataset_card, facts, root, settings, page=page)


@component
def pretrain(
    shards: Input[Dataset],
    root: str,
    settings: dict,
    code_version: str,
    backbone: Output[Model],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    run("pretrain", {"shards": shards}, backbone, facts, root, settings)


@component
def probe(
    backbone: Input[Model],
    root: str,
    settings: dict,
    code_version: str,
    evaluation: Output[Artifact],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    run("probe", {"backbone": backbone}, evaluation, facts, root, settings)


@component
def finetune(
    task: str,
    root: str,
    settings: dict,
    code_version: str,
    checkpoint: Output[Model],
    facts: Output[Metrics],
    backbone: Input[Model] = None,
    probe: Input[Artifact] = None,
):
    from components.kfp_entry import run

    run(f"finetune-{task}", {"backbone": backbone, "probe": probe}, checkpoint, facts, root, settings)


@component
def evaluate(
    checkpoint: Input[Model],
    task: str,
    root: str,
    settings: dict,
    code_version: str,
    evaluation: Output[Artifact],
    facts: Output[Metrics],
):
    from components.kfp_entry import run

    run(f"evaluate-{task}", {"checkpoint": checkpoint}, evaluation, facts, root, settings)


@component
def report(
    root: str,
    settings: dict,
    code_version: str,
    report: Output[Artifact],
    facts: Output[Metrics],
    page: Output[HTML],
    dataset_card: Input[Dataset] = None,
    evaluation_pose: Input[Artifact] = None,
    evaluation_segmentation: Input[Artifact] = None,
    evaluation_normal: Input[Artifact] = None,
    evaluation_pointmap: Input[Artifact] = None,
    evaluation_albedo: Input[Artifact] = None,
):
    from components.kfp_entry import run

    inputs = {"dataset_card": dataset_card, "evaluation_pose": evaluation_pose}
    inputs |= {"evaluation_segmentation": evaluation_segmentation, "evaluation_normal": evaluation_normal}
    inputs |= {"evaluation_pointmap": evaluation_pointmap, "evaluation_albedo": evaluation_albedo}
    run("report", inputs, report, facts, root, settings, page=page)


# By family: the table of steps and these components say the same, tested.
COMPONENTS = {
    each.name: each
    for each in (
        *(ingest, detect, score, filter, dedup, cluster, balance, export, card),
        *(pretrain, probe, finetune, evaluate, report),
    )
}
