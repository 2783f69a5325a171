"""The one table of steps, from which the command line and the KFP components are made.

Everything heavy is named by a string and imported when it is used, so that reading the table costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TASKS = ("pose", "segmentation", "normal", "pointmap", "albedo")
IMPORT = "import-weights"
"""The step that `sapiens2 weights import` runs (components.import_weights), by no pipeline."""


@dataclass(frozen=True)
class Input:
    """What a step reads: the role it plays, and the step (by name) that makes it.

    unless: a field of the step's configuration that takes this input's place when it is set.
    only: a field of it, and the value with which alone the input is read.
    chooses: the role of the run among whose checkpoints it chooses; imported weights are one file and leave no choice.
    """

    role: str
    producer: str
    optional: bool = False
    unless: str = ""
    only: tuple[str, str] | None = None
    chooses: str = ""

    @property
    def always(self) -> bool:
        """Whether every run reads it."""
        return not (self.optional or self.unless or self.only or self.chooses)

    def needed(self, config: Any, made_by: Mapping[str, str]) -> bool:
        """Whether a run with this configuration reads it. made_by: other inputs' steps, by role, where known."""
        if self.unless and getattr(config, self.unless):
            return False
        if self.only and getattr(config, self.only[0]) != self.only[1]:
            return False
        return not (self.chooses and made_by.get(self.chooses) == IMPORT)


@dataclass(frozen=True)
class Step:
    """A row of the table. `revision` is raised when the meaning of the step changes (see tests/components).

    `sources` are the modules whose text is the step's meaning; `body` does the work, given a StepContext; `data` gives
    the digest of what a configuration reads from outside the store. `weights` names third-party networks from a config,
    `given` finds weights and artifacts that the config names itself (components.given_weights, given_labels).
    `row_wise`: a row follows from its picture alone, so that the removal of other pictures makes no other version.
    """

    name: str
    kind: str
    inputs: tuple[Input, ...]
    config: str
    body: str
    summary: str
    sources: tuple[str, ...]
    revision: int = 1
    task: str | None = None
    weights: str | None = None
    data: str | None = None
    given: str | None = None
    deterministic: bool = True
    row_wise: bool = False

    def reads(self, config: Any, made_by: Mapping[str, str]) -> tuple[Input, ...]:
        """The inputs that a run with this configuration has (see Input.needed)."""
        return tuple(read for read in self.inputs if read.needed(config, made_by))

    @property
    def family(self) -> str:
        """The step without its task: `finetune` for `finetune-pose`."""
        return self.name.removesuffix(f"-{self.task}") if self.task else self.name

    @property
    def latest_name(self) -> str:
        """Under which name the newest version is found: the kind, and the task where one kind serves several."""
        if self.kind == "evaluation":
            return f"{self.kind}-{self.task or self.name}"
        return f"{self.kind}-{self.task}" if self.task and self.kind != self.task else self.kind


def load(path: str) -> Any:
    """The object that `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _reads(*producers: str) -> tuple[Input, ...]:
    return tuple(Input(BY_PRODUCT[p], p) for p in producers)


# role under which a step's product is read by the next ones
BY_PRODUCT = {
    "ingest": "images",
    "detect": "detections",
    "score": "scores",
    "filter": "filtered",
    "dedup": "deduped",
    "cluster": "clusters",
    "balance": "selection",
    "export": "shards",
    "card": "dataset_card",
    "pretrain": "backbone",
}


def _curation(name: str, reads: tuple[str, ...], summary: str, **more: Any) -> Step:
    return Step(
        name=name,
        kind=BY_PRODUCT[name],
        inputs=_reads(*reads),
        config=f"curation.stages.{name}:{name.capitalize()}Config",
        body=f"components.curation_steps:{name}",
        summary=summary,
        **more,
    )


CURATION: tuple[Step, ...] = (
    _curation(
        "ingest",
        (),
        "list, fetch, header gate, decode check, perceptual hash, exact duplicates",
        revision=4,
        sources=("curation.stages.ingest", "curation.images"),
    ),
    _curation(
        "detect",
        ("ingest",),
        "person boxes",
        row_wise=True,
        weights="curation.stages.detect:required_weights",
        sources=("curation.stages.detect", "curation.images.decode", "curation.models.person", "curation.models.boxes"),
    ),
    _curation(
        "score",
        ("ingest", "detect"),
        "quality, realism, text overlay, faces and head pose, embeddings",
        row_wise=True,
        weights="curation.stages.score:required_weights",
        sources=("curation.stages.score", "curation.images.decode", "curation.models"),
    ),
    _curation(
        "filter",
        ("ingest", "detect", "score"),
        "thresholds to decisions",
        sources=("curation.stages.filter", "curation.stages.measures"),
    ),
    _curation(
        "dedup",
        ("ingest", "detect", "score", "filter"),
        "hash and deep-feature duplicates, representatives; copies of evaluation sets go with their groups",
        weights="curation.stages.dedup_references:required_weights",
        data="curation.stages.dedup_references:digest",
        given="components.given_dedup:previous",
        revision=3,
        sources=("curation.stages.dedup", "curation.dedup", "curation.balance.groups", "curation.balance.kmeans"),
    ),
    _curation(
        "cluster",
        ("score", "dedup"),
        "hierarchical k-means",
        given="components.given_clusters:previous",
        revision=3,
        sources=("curation.stages.cluster", "curation.balance"),
    ),
    _curation(
        "balance",
        ("ingest", "detect", "score", "dedup", "cluster"),
        "caps and floors to an exact target size",
        sources=("curation.stages.balance", "curation.balance", "curation.stages.measures"),
    ),
    _curation(
        "export",
        ("ingest", "detect", "dedup", "balance"),
        "shuffled, training-ready Parquet; train and val disjoint by duplicate group; labelled test pictures held out",
        sources=("curation.stages.export",),
        given="components.given_labels:held_out",
        revision=2,
    ),
    _curation(
        "card",
        ("ingest", "detect", "score", "filter", "dedup", "cluster", "balance", "export"),
        "the dataset card: funnel, histograms, contact sheets",
        revision=3,
        sources=("curation.stages.card", "curation.audit"),
    ),
)

PRETRAIN = Step(
    name="pretrain",
    kind="backbone",
    inputs=(Input("shards", "export"),),
    config="sapiens2.pretrain.config:PretrainConfig",
    body="components.training_steps:pretrain",
    summary="masked reconstruction, self-distilled contrast and KoLeo on the curated pictures",
    revision=2,
    sources=("sapiens2.pretrain", "sapiens2.model", "sapiens2.engine", "sapiens2.data"),
    given="components.given_weights:initial",
    deterministic=False,  # on a GPU; a lease keeps a second trainer off the state folder
)


PROBE = Step(
    name="probe",
    kind="evaluation",
    inputs=(Input("backbone", "pretrain"),),
    config="sapiens2.evaluation.config:SelectionConfig",
    body="components.training_steps:probe",
    summary="frozen probes of every kept checkpoint; the best on validation scenes is tagged best-val",
    given="components.given_weights:compared",
    revision=3,
    sources=("sapiens2.evaluation", "sapiens2.tasks", "sapiens2.model", "sapiens2.data"),
)


def _finetune(task: str) -> Step:
    return Step(
        name=f"finetune-{task}",
        kind=task,
        task=task,
        inputs=(
            Input("backbone", "pretrain", unless="backbone"),
            Input("probe", "probe", unless="backbone", only=("checkpoint", "best-val"), chooses="backbone"),
        ),
        config="sapiens2.tasks.config:FinetuneConfig",
        body="components.training_steps:finetune",
        summary=f"post-train the backbone for {task}",
        given="components.given_labels:sources",
        data="sapiens2.tasks.config:data_digest",
        revision=6,
        sources=("sapiens2.tasks", "sapiens2.model", "sapiens2.engine", "sapiens2.data"),
        deterministic=False,
    )


def _evaluate(task: str) -> Step:
    return Step(
        name=f"evaluate-{task}",
        kind="evaluation",
        task=task,
        inputs=(Input("checkpoint", f"finetune-{task}"),),
        config="sapiens2.evaluation.config:EvaluateConfig",
        body="components.training_steps:evaluate",
        summary=f"metrics of {task} with confidence intervals, on held-out people",
        given="components.given_labels:measured",
        data="sapiens2.evaluation.config:data_digest",
        revision=8,
        sources=("sapiens2.evaluation", "sapiens2.tasks", "sapiens2.model", "sapiens2.data"),
    )


TRAINING: tuple[Step, ...] = (PRETRAIN, PROBE, *(_finetune(t) for t in TASKS), *(_evaluate(t) for t in TASKS))

REPORT = Step(
    name="report",
    kind="report",
    inputs=(
        Input("dataset_card", "card", optional=True),
        *(Input(f"evaluation_{t}", f"evaluate-{t}", optional=True) for t in TASKS),
    ),
    config="components.report_step:ReportConfig",
    body="components.report_step:report",
    summary="one page over everything that led here",
    revision=3,
    sources=("components.report_step", "components.report_page"),
)

LABELS = Step(
    name="import-labels",
    kind="labels",
    inputs=_reads("balance", "ingest", "detect", "dedup", "cluster"),
    config="components.labels:ImportLabelsConfig",
    body="components.labels:body",
    summary="labels from an annotation tool, as labelled data",
    revision=2,
    sources=("components.labels", "sapiens2.data.annotation"),
    data="components.labels:data_digest",
)
"""Run by `sapiens2 annotate import`, by no pipeline."""

STEPS: dict[str, Step] = {step.name: step for step in (*CURATION, *TRAINING, REPORT)}


def pipeline_steps(only: str | None = None) -> tuple[Step, ...]:
    """The steps of `curation`, `training` or the full pipeline, in the order in which they run."""
    if only == "curation":
        return (*CURATION, REPORT)
    if only == "training":
        return (*TRAINING, REPORT)
    return (*CURATION, *TRAINING, REPORT)


def find_steps(name: str) -> tuple[Step, ...]:
    """The step of that name, or every step of that family (`finetune`). Raises ValueError listing the names."""
    found = tuple(step for step in STEPS.values() if name in (step.name, step.family))
    if not found:
        raise ValueError(f"unknown step {name!r}; the steps are {', '.join(STEPS)}")
    return found


def names(steps: Iterable[Step]) -> list[str]:
    """The names of steps, in order."""
    return [step.name for step in steps]
