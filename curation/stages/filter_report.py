"""What the report shows of filter: the funnel over the rules, and each measurement with its bound drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from curation.stages.measures import Floats, Measures

_BINS = 24
_UNITS = {"person_px": "px", "aspect": "long side / short side"}


class RuleView(Protocol):
    """What the report needs to know of a rule."""

    @property
    def name(self) -> str: ...
    @property
    def column(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def bound(self) -> float: ...
    @property
    def provenance(self) -> str: ...


def histogram(title: str, values: Floats, threshold: float | None, unit: str, note: str = "") -> dict[str, Any]:
    """A histogram section of the finite `values`, wide enough to show the threshold."""
    finite = values[np.isfinite(values)]
    marks = finite if threshold is None else np.append(finite, threshold)
    low, high = (float(marks.min()), float(marks.max())) if len(marks) else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(finite, bins=_BINS, range=(low, high))
    return {
        "type": "histogram",
        "title": title,
        "edges": [round(float(e), 6) for e in edges],
        "counts": [int(c) for c in counts],
        "threshold": threshold,
        "unit": unit,
        "note": note,
    }


def fragment(measures: Measures, active: Sequence[RuleView], metrics: dict[str, Any]) -> dict[str, Any]:
    """Funnel, rules and histograms of one run."""
    left = metrics["rows_in"]
    labels, remaining, dropped, table = ["in"], [left], [0], []
    for rule in active:
        lost = metrics["dropped"].get(rule.name, 0)
        left -= lost
        labels.append(rule.name)
        remaining.append(left)
        dropped.append(lost)
        missing = metrics["not_measured"].get(rule.column, 0)
        table.append([rule.name, rule.column, rule.kind, rule.bound, lost, missing, rule.provenance])
    series = [{"name": "left", "values": remaining}, {"name": "dropped", "values": dropped}]
    sections: list[dict[str, Any]] = [
        {"type": "bars", "title": "Pictures left after each rule", "labels": labels, "series": series},
        {
            "type": "table",
            "title": "Rules, in the order in which they are asked",
            "columns": ["rule", "column", "kind", "bound", "dropped", "not measured", "provenance"],
            "rows": table,
            "note": "The first rule that a picture fails is its reason. Not measured: the rule was not applied.",
        },
    ]
    for rule in active:
        values = measures.columns[rule.column]
        if rule.kind != "never" and np.isfinite(values).any():
            sections.append(histogram(rule.name, values, rule.bound, _UNITS.get(rule.column, rule.column)))
    return {"title": "Filter", "sections": sections}
