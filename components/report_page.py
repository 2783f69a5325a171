"""The report of a run: one HTML page, assembled from the manifests and the fragments that its steps published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from components.fragments import render_fragment, render_section
from components.lineage_page import lineage_svg, plain, templates

Manifest = Mapping[str, Any]
Fragment = Mapping[str, Any]

MAX_BYTES = 20_000_000
CURATION = ("ingest", "detect", "score", "filter", "dedup", "cluster", "balance", "export", "card")
EVALUATION = ("evaluate", "probe")


@dataclass(frozen=True)
class StepSummary:
    """One step of the run: what it is called, what it made, and what it has to show."""

    name: str  # as in the table of steps; a task's steps may add it: "finetune pose"
    manifest: Manifest
    reused: bool  # True when an artifact of an earlier run was taken as it is
    fragment: Fragment | None = None

    @property
    def kind(self) -> str:
        """The kind of artifact that the step made."""
        return str(self.manifest["kind"])

    @property
    def version(self) -> str:
        """Its version, 16 hex digits."""
        return str(self.manifest["version"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The counts and times of the manifest."""
        metrics: Mapping[str, Any] = self.manifest.get("metrics", {})
        return metrics

    @property
    def seconds(self) -> float:
        """How long the step ran when it ran."""
        return float(self.metrics.get("seconds") or 0.0)

    @property
    def stage(self) -> str:
        """Which part of the page it belongs to: Curation, Training or Evaluation."""
        first = self.name.split()[0]
        return "Curation" if first in CURATION else "Evaluation" if first in EVALUATION else "Training"


@dataclass(frozen=True)
class Measure:
    """One evaluated figure of a task, with the ends of its confidence interval where there is one."""

    task: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    samples: int | None = None
    note: str = ""


@dataclass(frozen=True)
class ReportInput:
    """All that the page says. `manifests` are those drawn as lineage; the steps' own when it is empty."""

    preset: str
    profile: str
    date: str  # ISO 8601
    steps: Sequence[StepSummary]
    title: str = "Sapiens2 run"
    pool: str = ""
    seconds: float | None = None  # of the whole run; the sum of the steps that ran when absent
    measures: Sequence[Measure] = ()
    manifests: Sequence[Manifest] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def render_report(report: ReportInput, *, max_bytes: int = MAX_BYTES) -> str:
    """The page. Over `max_bytes` the last large pictures are left out, and the page says how many.

    Raises ValueError for a fragment that cannot be drawn (see render_fragment), naming the step, and when the page is
    too large without any picture.
    """
    page = assemble(report, left_out=0)
    excess = size(page) - max_bytes
    if excess <= 0:
        return page
    lighter, left_out = drop_pictures(report, excess + 400)
    page = assemble(lighter, left_out)
    if size(page) > max_bytes:
        raise ValueError(f"the report is {size(page):,} bytes without its pictures, more than the {max_bytes:,} allowed")
    return page


def size(page: str) -> int:
    """Bytes of the page as it is written."""
    return len(page.encode())
