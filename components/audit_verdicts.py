"""What labels say: the threshold that keeps a promise, the confusion of an attribute; and whom a filter drops."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from components.artifacts import Artifact
from components.audits import Pool
from curation.audit.calibration import Labels, Point, choose, points
from curation.audit.confusion import Share, corrected, matrix, precisions
from curation.audit.exclusion import Exclusion, exclusions
from curation.audit.label_page import UNSURE
from curation.balance.attributes import columns as attributes_of
from curation.stages.balance import BalanceConfig, people_of
from curation.stages.measures import rows_for


@dataclass(frozen=True)
class RuleVerdict:
    """What the labels of a rule say: every threshold tried, the one chosen, and the field that it sets."""

    field: str
    points: list[Point]
    chosen: Point | None
    before: float
    provenance: str


def read_labels(text: str, where: str) -> dict[str, Any]:
    """What the page saved. Raises ValueError naming the file and what is wrong with it."""
    try:
        found = json.loads(text)
        wanted = {"id", "kind", "strata", "stratum", "labels"}
        if not isinstance(found, dict) or wanted - found.keys():
            raise ValueError(f"it lacks {sorted(wanted - set(found))}")
        strangers = set(found["labels"]) - set(found["stratum"])
        if strangers:
            raise ValueError(f"it labels {sorted(strangers)[0]}, which is not in the sample")
    except ValueError as error:
        raise ValueError(f"{where} holds no labels of an audit ({error}); use the file that the page saves") from error
    if not any(value != UNSURE for value in found["labels"].values()):
        raise ValueError(f"{where} holds no answers yet; label some pictures and save again")
    return found


def calibrate_rule(
    labels: Mapping[str, Any], *, precision: float, confidence: float, method: str, date: str
) -> RuleVerdict:
    """The threshold that keeps the promised precision. Raises ValueError for labels of another kind of audit."""
    if labels["kind"] != "rule":
        raise ValueError(f"the labels are those of an audit of {labels.get('axis')}, an attribute without a threshold")
    answered = {i: answer for i, answer in sorted(labels["labels"].items()) if answer != UNSURE}
    data = Labels(
        np.array([labels["values"][i] for i in answered]),
        np.array([answer == "good" for answer in answered.values()]),
        np.array([labels["stratum"][i] for i in answered]),
        [stratum["population"] for stratum in labels["strata"]],
    )
    kind = labels["bound_kind"]
    edges = [s["low"] for s in labels["strata"] if s["low"] is not None]
    everything = [min(data.values)] if kind == "min" else [max(data.values)]
    found = points(data, sorted({*edges, *everything}), kind, confidence=confidence, method=method)
    chosen = choose(found, precision)
    said = f"audit {labels['id']} of {labels['artifact']}, {len(answered)} labels, {date}"
    if chosen:
        said += f": precision {chosen.precision:.3f}, at least {chosen.bound:.3f} ({method}, {confidence:.0%})"
    return RuleVerdict(f"{kind}_{labels['column']}", found, chosen, labels["bound"], said)


@dataclass(frozen=True)
class AttributeVerdict:
    """What the labels of an attribute say: confusion, precision of each bin, true shares of pool and selection."""

    bins: list[str]
    counts: list[list[int]]
    precision: dict[str, tuple[int, float | None, float, float]]
    before: list[Share]
    after: list[Share] | None
    provenance: str


def calibrate_attribute(labels: Mapping[str, Any], selection: Artifact | None, *, date: str) -> AttributeVerdict:
    """Confusion and corrected shares; `selection`: whose shares after balancing are corrected too."""
    if labels["kind"] != "attribute":
        raise ValueError(f"the labels are those of an audit of the rule {labels.get('rule')}, not of an attribute")
    answered = {i: answer for i, answer in sorted(labels["labels"].items()) if answer != UNSURE}
    bins = sorted({*labels["bins"], *answered.values()})
    counts = matrix([labels["measured"][i] for i in answered], list(answered.values()), bins)
    after = None
    if selection is not None:
        rows = selection.read("balance").to_pylist()
        kept = {row["bin"]: row["after"] for row in rows if row["axis"] == labels["axis"]}
        after = corrected(counts, kept, bins)
    before = corrected(counts, labels["population"], bins)
    said = f"audit {labels['id']} of {labels['artifact']}, {len(answered)} labels, {date}"
    return AttributeVerdict(bins, counts.tolist(), precisions(counts, bins), before, after, said)


def rates(pool: Pool) -> list[Exclusion]:
    """Drop rates of filter by source and by every attribute, and which differ by more than chance."""
    decisions = rows_for(pool.filtered.read(columns=["image_id", "keep"]), pool.ids, "audit")
    dropped = ~np.array(decisions["keep"].to_pylist(), bool)
    people = people_of(pool.ids, pool.images, pool.detections, pool.scores, BalanceConfig().min_person_score)
    groups: dict[str, list[str]] = {axis: bins.tolist() for axis, bins in attributes_of(people).items()}
    groups["source"] = [origin(source) for source in pool.images["source"].to_pylist()]
    licences = pool.images["licence"].to_pylist()
    if any(licences):
        groups["licence"] = [licence or "unknown" for licence in licences]
    return exclusions(groups, dropped)


def origin(source: str) -> str:
    """The host of a URL, the archive of a member, the top folder of a file."""
    if "://" in source:
        return urlsplit(source).hostname or source
    archive, inside, _ = source.partition("::")
    return archive if inside else (source.split("/")[0] if "/" in source else "(top)")
