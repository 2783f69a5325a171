"""What an ablation shows: tables of arms and of differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sapiens2.engine import report
from sapiens2.evaluation.ablation.comparison import Difference
from sapiens2.evaluation.ablation.runner import Outcome
from sapiens2.evaluation.probe import higher_is_better

Rows = list[list[str]]


def arms_table(outcomes: Sequence[Outcome]) -> tuple[list[str], Rows]:
    """Columns and rows: each probe's mean over seeds by arm, its spread over seeds, and the baseline."""
    arms = list(dict.fromkeys(o.arm for o in outcomes))
    rows = []
    for probe in outcomes[0].main:
        values = [[o.main[probe] for o in outcomes if o.arm == arm] for arm in arms]
        arrow = "more is better" if higher_is_better(probe) else "less is better"
        told = [f"{np.mean(v):.4f} ± {np.std(v):.4f}" for v in values]
        rows.append([f"{probe} ({arrow})", *told, f"{outcomes[0].baseline[probe]:.4f}"])
    return ["probe", *arms, "baseline"], rows


def facts_table(outcomes: Sequence[Outcome]) -> tuple[list[str], Rows]:
    """Columns and rows: what the runs of each arm were like, means over seeds."""
    arms = list(dict.fromkeys(o.arm for o in outcomes))
    names = list(dict.fromkeys(name for o in outcomes for name in o.facts))
    rows = []
    for name in names:
        row = [name]
        for arm in arms:
            values = [o.facts[name] for o in outcomes if o.arm == arm and o.facts.get(name) is not None]
            row.append(f"{np.mean(values):.4g}" if values else "")
        rows.append(row)
    return ["of the run", *arms], rows


def differences_table(found: Sequence[Difference]) -> tuple[list[str], Rows]:
    """Columns and rows: error of an arm minus that of the reference, with its interval and what it means."""
    rows = [[d.probe, f"{d.arm} - {d.reference}", d.text(), d.verdict, str(d.seeds)] for d in found]
    return ["probe", "error of", "difference (95 %)", "verdict", "seeds"], rows


def fragment(axis: str, outcomes: Sequence[Outcome], found: Sequence[Difference]) -> dict[str, object]:
    """The page of an ablation."""
    sections = [
        _table("Probes", *arms_table(outcomes), "Mean and deviation over seeds; the backbone is frozen."),
        _table("Differences", *differences_table(found), "Paired by scene and seed; below 0 the arm is better."),
        _table("Runs", *facts_table(outcomes), "Arms take as many steps as the reference's arithmetic pays for."),
    ]
    return {"title": f"Ablation: {axis}", "sections": sections}


def _table(title: str, columns: list[str], rows: Rows, note: str) -> report.Section:
    return {"type": "table", "title": title, "columns": columns, "rows": rows, "note": note}


def text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal, columns aligned."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in [columns, *rows])
