"""The last step: one page over everything that led to its inputs."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from components.artifacts import Artifact
from components.lineage import ancestors
from components.report_page import Measure, ReportInput, StepSummary, render_report
from components.run_step import Publication, StepContext
from components.steps import CURATION, LABELS, STEPS
from curation.audit.contact_sheet import BLUR_NSFW, blurred
from curation.config import Config, recipe


class ReportConfig(Config):
    """What the report page is called, and how large it may be."""

    title: str = recipe("Sapiens2 run", "heading of the page, as text")
    max_bytes: int = recipe(20_000_000, "size of the page, in bytes; pictures are left out above it", ge=200_000)


def report(context: StepContext) -> Publication:
    """Assemble the page from the manifests and fragments of all ancestors."""
    if not context.inputs:
        raise ValueError("report has nothing to report on: run the pipeline first, or name a dataset_card with --input")
    made = ancestors(context.store, context.inputs.values(), earlier=False)
    order: dict[str, float] = {name: place for place, name in enumerate(STEPS)}
    order[LABELS.name] = order["card"] + 0.5
    artifacts = sorted(made.values(), key=lambda a: order.get(a.manifest.step, len(order)))
    flagged = _flagged(artifacts)
    hidden = _hidden(artifacts, flagged)
    manifests = [artifact.manifest.model_dump(mode="json") for artifact in artifacts]
    page = render_report(
        ReportInput(
            title=context.config.title,
            profile="",  # the manifests say what each step used
            preset="",
            date=max(artifact.manifest.end for artifact in artifacts),
            steps=[
                StepSummary(a.manifest.step.replace("-", " "), m, None, _blurred(a, flagged, hidden))
                for a, m in zip(artifacts, manifests, strict=True)
            ],
            measures=list(_measures(artifacts)),
            manifests=manifests,
            notes=[f"{a.manifest.step}: {text}" for a in artifacts for text in a.manifest.metrics.get("notes", [])],
        ),
        max_bytes=context.config.max_bytes,
    )
    data = page.encode()
    return Publication(
        metrics={"headline": f"{len(data) / 1e6:.1f} MB, {len(artifacts)} artifacts"}, files={"report.html": data}
    )


def _flagged(artifacts: Iterable[Artifact]) -> set[str]:
    """Pictures that nobody should have to look at: scored as unsafe, or dropped for it."""
    found: set[str] = set()
    for artifact in artifacts:
        if artifact.kind == "scores":
            rows = artifact.read(columns=["image_id", "nsfw"]).to_pylist()
            found |= {row["image_id"] for row in rows if (row["nsfw"] or 0.0) >= BLUR_NSFW}
        elif artifact.kind == "filtered":
            rows = artifact.read(columns=["image_id", "reason"]).to_pylist()
            found |= {row["image_id"] for row in rows if row["reason"] == "unsafe"}
    return found


def _hidden(artifacts: Sequence[Artifact], flagged: set[str]) -> set[str]:
    """The kinds that may show a flagged picture and do not say which: what was trained, where one was selected."""
    selected: set[str] = set()
    for artifact in artifacts:
        if flagged and artifact.kind == "selection":
            table = artifact.read(columns=["image_id", "keep"])
            selected |= set(table.filter(table["keep"])["image_id"].to_pylist())
    if not selected & flagged:
        return set()
    kinds = {artifact.kind for artifact in artifacts}
    curated = {step.kind for step in CURATION}
    return kinds - curated if LABELS.kind in kinds else kinds & {STEPS["pretrain"].kind}


def _blurred(artifact: Artifact, flagged: set[str], hidden: set[str]) -> Any:
    """Its fragment; flagged pictures are unrecognisable, and in a hidden kind those that do not say which they are."""
    fragment, nameless = artifact.fragment(), artifact.kind in hidden
    if fragment is None or not flagged:
        return fragment
    sections = [
        {**s, "items": [_shown(i, flagged, nameless) for i in s["items"]]} if s.get("type") == "images" else s
        for s in fragment["sections"]
    ]
    return {**fragment, "sections": sections}


def _shown(item: dict[str, Any], flagged: set[str], nameless: bool) -> dict[str, Any]:
    if item["image_id"] not in flagged if "image_id" in item else not nameless:
        return item
    return {**item, "jpeg": base64.b64encode(blurred(base64.b64decode(item["jpeg"]))).decode()}


def _measures(artifacts: Iterable[Artifact]) -> Iterable[Measure]:
    for artifact in artifacts:
        if artifact.kind != "evaluation":
            continue
        metrics, task = artifact.manifest.metrics, STEPS[artifact.manifest.step].task or artifact.manifest.step
        for name, figure in metrics["metrics"].items():
            if figure["value"] is not None:
                note = "main metric" if name == metrics["main"] else ""
                yield Measure(task, name, figure["value"], figure["low"], figure["high"], metrics["n_test"], note)
