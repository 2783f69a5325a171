"""What the report shows of dedup: kinds of evidence, their distances with the bounds drawn, the duplicate groups."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.stages.filter_report import histogram

_GROUPS_SHOWN = 40
_ID = 12  # hex digits that name a picture in a table


class DedupBounds(Protocol):
    """The thresholds that the report draws."""

    hash_radius: int
    min_cosine: float
    min_agreement: float


def fragment(table: pa.Table, edges: pa.Table, metrics: dict[str, Any], config: DedupBounds) -> dict[str, Any]:
    """Kept and dropped, edges per kind, histograms of their distances, the largest groups, the percolation guard."""
    labels = ["in", "kept", *metrics["dropped"]]
    values = [metrics["rows_in"], metrics["kept"], *metrics["dropped"].values()]
    sections: list[dict[str, Any]] = [
        {"type": "bars", "title": "Pictures", "labels": labels, "series": [{"name": "pictures", "values": values}]},
        {
            "type": "table",
            "title": "Evidence",
            "columns": ["kind", "pairs"],
            "rows": [[kind, count] for kind, count in metrics["edges"].items()],
            "note": f"{metrics['pictures_compared']} suspected pairs were compared as pictures, "
            f"{metrics['pictures_agreeing']} agreed. {metrics['untrusted_hashes']} hashes of flat pictures were set "
            f"aside.",
        },
        *_histograms(edges, config),
        _group_table(table),
        {
            "type": "table",
            "title": "Percolation guard: mean number of neighbours of a distinct hash",
            "columns": ["bits", "observed", "expected by chance"],
            "rows": [[r, v, metrics["chance_degree"][r]] for r, v in metrics["hash_degree"].items()],
            "note": f"Longest chain of merged hashes: {metrics['longest_hash_chain']} steps.",
        },
    ]
    return {"title": "Deduplication", "sections": sections}


def _histograms(edges: pa.Table, config: DedupBounds) -> list[dict[str, Any]]:
    kinds = np.array(edges["kind"].to_pylist(), dtype=str)
    distance = np.array(edges["distance"].to_pylist(), dtype=np.float64)
    drawn = (
        (("phash", "mirror"), "Hash distance of merged pairs", float(config.hash_radius), "bits"),
        (("feature",), "Descriptor distance of merged pairs", 1 - config.min_cosine, "1 - cosine"),
        (("geometry",), "Disagreement of merged pairs that were compared", 1 - config.min_agreement, "share"),
    )
    return [
        histogram(title, distance[np.isin(kinds, names)], bound, unit)
        for names, title, bound, unit in drawn
        if np.isin(kinds, names).any()
    ]


def _group_table(table: pa.Table) -> dict[str, Any]:
    counted = table["group_id"].value_counts().to_pylist()
    largest = sorted((-g["counts"], g["values"]) for g in counted if g["counts"] > 1)
    members: dict[str, list[dict[str, Any]]] = {name: [] for _, name in largest[:_GROUPS_SHOWN]}
    for row in table.filter(pc.is_in(table["group_id"], pa.array(list(members), pa.string()))).to_pylist():
        members[row["group_id"]].append(row)
    rows = []
    for group in members.values():
        reasons = Counter(row["reason"] for row in group if not row["keep"])
        kept = [row["image_id"][:_ID] for row in group if row["keep"]]
        why = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items()))
        rows.append([group[0]["group_id"][:_ID], len(group), len(kept), " ".join(kept[:4]), why])
    return {
        "type": "table",
        "title": "Duplicate groups, largest first",
        "columns": ["group", "pictures", "kept", "kept pictures", "dropped as"],
        "rows": rows,
        "note": f"{len(largest)} groups of two or more, {len(rows)} shown. A chain of copies may keep several.",
    }
