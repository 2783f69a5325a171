"""The report of a run: one HTML page, assembled from the manifests and the fragments that its steps published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from markupsafe import Markup

from components.fragments import render_fragment, render_section
from components.lineage_page import lineage_svg, plain, templates
from curation.audit.axes import duration, number
from curation.audit.funnel import level

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
    reused: bool | None  # True when an artifact of an earlier run was taken as it is; None when that is not known
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

    preset: str  # empty when it is not known; so are profile and pool
    profile: str
    date: str  # ISO 8601
    steps: Sequence[StepSummary]
    title: str = "Sapiens2 run"
    pool: str = ""
    seconds: float | None = None  # of the whole run; the sum of the steps that ran when absent
    measures: Sequence[Measure] = ()
    manifests: Sequence[Manifest] = ()
    notes: Sequence[str] = ()


def render_report(report: ReportInput, *, max_bytes: int = MAX_BYTES) -> str:
    """The page. Over `max_bytes` pictures are left out, and the page says how many and where.

    Raises ValueError for a fragment that cannot be drawn (see render_fragment), naming the step, and when the page is
    too large without any picture.
    """
    page = assemble(report, left_out=0)
    excess = len(page.encode()) - max_bytes
    if excess <= 0:
        return page
    lighter, left_out = drop_pictures(report, excess)
    page = assemble(lighter, left_out)
    if len(page.encode()) > max_bytes:
        raise ValueError(f"the report takes {len(page.encode()):,} bytes without pictures; {max_bytes:,} are allowed")
    return page


def assemble(report: ReportInput, left_out: int) -> str:
    """The page of a report as it is, `left_out` pictures having been dropped before."""
    manifests = report.manifests or [step.manifest for step in report.steps]
    stages = {
        stage: [step_view(i, s) for i, s in enumerate(report.steps) if s.stage == stage]
        for stage in ("Curation", "Training", "Evaluation")
    }
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            title=report.title,
            report=report,
            when=report.date[:16].replace("T", " "),
            tiles=tiles(report),
            stages={stage: views for stage, views in stages.items() if views},
            steps=[step_view(i, s, body=False) for i, s in enumerate(report.steps)],
            slowest=max([s.seconds for s in report.steps], default=0.0) or 1.0,
            funnel=funnel(report.steps),
            measures=measures_table(report.measures),
            timings=timings(report.steps),
            lineage=lineage_svg(manifests),
            models=models_table(report.steps),
            environment=environment_table(report.steps),
            left_out=left_out,
        )
    )


def step_view(index: int, step: StepSummary, *, body: bool = True) -> dict[str, Any]:
    """What the template shows of a step.

    Raises ValueError naming the step when its fragment cannot be drawn.
    """
    drawn = ""
    if body and step.fragment:
        try:
            drawn = render_fragment(step.fragment, title=False)  # the step's own heading stands above it
        except ValueError as error:
            raise ValueError(f"the fragment of step {step.name!r} cannot be drawn: {error}") from error
    dropped = {reason: count for reason, count in step.metrics.get("dropped", {}).items() if count}
    return {
        "id": f"step-{index + 1}",
        "name": step.name,
        "kind": step.kind,
        "version": step.version,
        "reused": step.reused,
        "rows_in": step.metrics.get("rows_in"),
        "kept": step.metrics.get("kept"),
        "dropped": sum(dropped.values()),
        "seconds": step.seconds,
        "body": Markup(drawn),
        "config": json.dumps(plain(step.manifest.get("config", {})), indent=2, ensure_ascii=False, default=str),
    }


def tiles(report: ReportInput) -> list[tuple[str, str, str]]:
    """The figures at the top: (name, value, what it is of)."""
    by_name = {step.name: step for step in report.steps}
    found: list[tuple[str, str, str]] = []
    if first := by_name.get("ingest"):
        found.append(("sources", number(first.metrics.get("rows_in")), "listed in the pool"))
    kept = [by_name[name] for name in ("export", "balance", "dedup", "filter") if name in by_name]
    if kept:
        found.append(("pictures kept", number(kept[0].metrics.get("kept")), f"after {kept[0].name}"))
    ran = [step for step in report.steps if not step.reused]
    known = all(step.reused is not None for step in report.steps)
    told = f"{len(ran)} ran, {len(report.steps) - len(ran)} reused" if known else "led to this page"
    found.append(("steps", number(len(report.steps)), told))
    seconds = sum(step.seconds for step in ran) if report.seconds is None else report.seconds
    found.append(("time", duration(seconds), "this run" if known else "of all steps together"))
    return found


def funnel(steps: Sequence[StepSummary]) -> Markup:
    """The curation steps that counted their rows; empty when the run has none."""
    counted = [(s.name, level(s.metrics)) for s in steps if s.stage == "Curation" and s.name != "card"]
    levels = [{"name": name, **asdict(found)} for name, found in counted if found]
    return render_section({"type": "funnel", "title": "", "steps": levels}) if levels else Markup("")


def measures_table(measures: Sequence[Measure]) -> Markup:
    """The evaluated figures, a row each."""
    if not measures:
        return Markup("")
    rows = [
        [m.task, m.metric, m.value, interval(m), number(m.samples) if m.samples is not None else "–", m.note]
        for m in measures
    ]
    columns = ["task", "metric", "value", "95 % interval", "samples", "note"]
    used = [i for i in range(len(columns)) if i < 4 or any(row[i] not in ("", "–") for row in rows)]
    return render_section(
        {
            "type": "table",
            "title": "",
            "columns": [columns[i] for i in used],
            "rows": [[r[i] for i in used] for r in rows],
        }
    )


def interval(measure: Measure) -> str:
    """The ends of the interval, or a dash."""
    if measure.low is None or measure.high is None:
        return "–"
    return f"{number(measure.low)} to {number(measure.high)}"


def timings(steps: Sequence[StepSummary]) -> Markup:
    """Seconds per step; what was reused cost nothing now and is shown with what it cost then."""
    series = [
        {"name": "this run", "values": [None if s.reused else round(s.seconds, 2) for s in steps]},
        {"name": "before", "values": [round(s.seconds, 2) if s.reused else None for s in steps]},
    ]
    if not any(s.reused for s in steps):
        series = series[:1]
    note = "Seconds. A reused step is drawn with what it took when it ran." if len(series) > 1 else "Seconds."
    return render_section(
        {"type": "bars", "title": "", "labels": [s.name for s in steps], "series": series, "note": note}
    )


def models_table(steps: Sequence[StepSummary]) -> Markup:
    """Third-party networks whose outputs went into the run, each once, with the steps that used it."""
    used: dict[tuple[str, str, str, str], list[str]] = {}
    for step in steps:
        for m in step.manifest.get("models", []):
            used.setdefault((m["name"], str(m["revision"]), m["licence"], m["sha256"]), []).append(step.name)
    if not used:
        return Markup("")
    rows = [[name, revision, licence, sha[:16], ", ".join(by)] for (name, revision, licence, sha), by in used.items()]
    columns = ["model", "revision", "licence", "sha256", "used by"]
    return render_section({"type": "table", "title": "", "columns": columns, "rows": rows})


def environment_table(steps: Sequence[StepSummary]) -> Markup:
    """Code and machine, each value once; two values in a cell when steps of two environments were put together."""
    values: dict[str, list[str]] = {}
    for step in steps:
        code = step.manifest.get("code", {})
        commit = (code.get("git_commit") or "")[:12] + (" with changes" if code.get("dirty") else "")
        facts = {"package": code.get("package_version"), "commit": commit, **step.manifest.get("environment", {})}
        for name, value in facts.items():
            if value and str(value) not in values.setdefault(name, []):
                values[name].append(str(value))
    rows = [[name, ", ".join(held)] for name, held in values.items() if held]
    return render_section({"type": "table", "title": "", "columns": ["what", "value"], "rows": rows})


def drop_pictures(report: ReportInput, excess: int) -> tuple[ReportInput, int]:
    """The report with enough pictures gone to save `excess` bytes, and their number.

    The last picture of the contact sheet that is largest at the moment goes first, so that every sheet keeps its
    beginning; each sheet then says how many it lost.
    """
    sheets = {
        (i, j): [len(item["jpeg"]) for item in section["items"]]
        for i, step in enumerate(report.steps)
        for j, section in enumerate((step.fragment or {}).get("sections", []))
        if section.get("type") == "images"
    }
    lost = dict.fromkeys(sheets, 0)
    excess += 200 * len(sheets) + 400  # the notes that say so
    while excess > 0 and any(sheets.values()):
        largest = max(sheets, key=lambda key: sum(sheets[key]))
        excess -= sheets[largest].pop()
        lost[largest] += 1
    steps = [
        replace(step, fragment=without(step.fragment, {j: n for (k, j), n in lost.items() if k == i and n}))
        for i, step in enumerate(report.steps)
    ]
    return replace(report, steps=steps), sum(lost.values())


def without(fragment: Fragment | None, lost: Mapping[int, int]) -> Fragment | None:
    """The fragment with the last `lost[j]` pictures of section j gone and a note in their place."""
    if fragment is None or not lost:
        return fragment
    sections = list(fragment["sections"])
    for j, count in lost.items():
        section = sections[j]
        said = f"{count:,} more picture{'s' if count > 1 else ''} left out to keep this page small."
        note = " ".join(part for part in (section.get("note"), said) if part)
        sections[j] = {**section, "items": section["items"][:-count], "note": note}
    return {**fragment, "sections": sections}
