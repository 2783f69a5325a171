"""What the report shows of balance: every axis before and after, in numbers and as bars."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def fragment(counts: pa.Table, metrics: dict[str, Any]) -> dict[str, Any]:
    """Target and selection, what could not be met, evenness per axis, bars per axis."""
    dropped = metrics["dropped"]
    labels = ["in", "selected", *dropped]
    values = [metrics["rows_in"], metrics["kept"], *dropped.values()]
    sections: list[dict[str, Any]] = [
        {
            "type": "bars",
            "title": "Pictures",
            "labels": labels,
            "series": [{"name": "pictures", "values": values}],
            "note": f"Target {metrics['target']}. {' '.join(f'{note}.' for note in metrics['notes'])}".strip(),
        },
        {
            "type": "table",
            "title": "Evenness of each axis over its known bins",
            "columns": ["axis", "Gini before", "Gini after", "KL before", "KL after", "unknown"],
            "rows": [
                [axis, v["gini_before"], v["gini_after"], v["kl_before"], v["kl_after"], v["unknown"]]
                for axis, v in metrics["axes"].items()
            ],
            "note": f"0 is even. KL to the uniform distribution, in nats. Gini of the clusters: "
            f"{metrics['cluster_gini_before']} before, {metrics['cluster_gini_after']} after.",
        },
    ]
    sections.extend(_true_shares(axis, told) for axis, told in metrics["true_shares"].items())
    rows = counts.to_pylist()
    axes = dict.fromkeys(row["axis"] for row in rows)
    sections.extend(_bars(axis, [row for row in rows if row["axis"] == axis]) for axis in axes)
    return {"title": "Balance", "sections": sections}


def _true_shares(axis: str, told: dict[str, Any]) -> dict[str, Any]:
    before, after = told["before"], told["after"]
    said = f"Caps and floors of {axis} hold for these, by {told['labels']} labels ({told['provenance']})."
    if told["above_cap"]:
        said += f" Within the interval {', '.join(told['above_cap'])} may be above the cap: label more pictures."
    return {
        "type": "table",
        "title": f"True shares of {axis.replace('_', ' ')}, corrected for errors of the measurement",
        "columns": ["bin", "measured before", "true before", "measured after", "true after", "at least", "at most"],
        "rows": [
            [name, b["measured"], b["corrected"], *(after[name][k] for k in ("measured", "corrected", "low", "high"))]
            for name, b in before.items()
        ],
        "note": f"{said} Intervals of 95 %.",
    }


def _bars(axis: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    limits = [
        f"{row['bin']}: " + ", ".join(f"{kind} {row[kind]}" for kind in ("floor", "cap") if row[kind] is not None)
        for row in rows
        if row["cap"] is not None or row["floor"] is not None
    ]
    return {
        "type": "bars",
        "title": axis.replace("_", " "),
        "labels": [row["bin"] for row in rows],
        "series": [
            {"name": "before", "values": [row["before"] for row in rows]},
            {"name": "after", "values": [row["after"] for row in rows]},
        ],
        "note": "; ".join(limits) if limits else "not limited",
    }
