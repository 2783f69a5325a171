"""Groups of which one picture is a copy of an evaluation picture: all of them are dropped, and it is told why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.dedup.contacts import Contacts, contacts
from curation.dedup.evidence import KINDS, Bounds, Pictures, Thumbnails
from curation.stages.dedup_references import References
from curation.tables import EVALUATION_COPIES

EVALUATION_COPY = "evaluation_copy"  # the reason of a picture that is in a group with one


def keep_apart(
    decisions: pa.Table,
    pictures: Pictures,
    references: References,
    bounds: Bounds,
    thresholds: Mapping[str, float],
    thumbnails: Thumbnails | None,
) -> tuple[pa.Table, pa.Table]:
    """(decisions, evaluation_copies): the decisions with every group dropped that holds a copy of a reference.

    decisions: DEDUPED, a row per picture in the order of `pictures`. The value and threshold of a dropped row are those
    of the best evidence in its group; nothing that is kept stands for it. evaluation_copies: EVALUATION_COPIES.
    """
    found = contacts(pictures, references.pictures, bounds, thumbnails, references.thumbnails)
    group_ids = decisions["group_id"].to_pylist()
    best: dict[str, tuple[int, float]] = {}
    for row, kind, distance in zip(found.row.tolist(), found.kind.tolist(), found.distance.tolist(), strict=True):
        group = group_ids[row]
        best[group] = min(best.get(group, (len(KINDS), 0.0)), (kind, float(distance)))
    hits = [best.get(group) for group in group_ids]
    gone = pa.array([hit is not None for hit in hits])
    columns: dict[str, Any] = {
        "keep": pa.scalar(False),
        "reason": pa.scalar(EVALUATION_COPY),
        "value": pa.array([hit[1] if hit else None for hit in hits], pa.float64()),
        "threshold": pa.array([thresholds[KINDS[hit[0]]] if hit else None for hit in hits], pa.float64()),
        "representative_id": pa.scalar(None, pa.string()),
    }
    for name, value in columns.items():
        at = decisions.schema.get_field_index(name)
        decisions = decisions.set_column(at, decisions.schema.field(at), pc.if_else(gone, value, decisions[name]))
    return decisions, _told(found, pictures, references)


def _told(found: Contacts, pictures: Pictures, references: References) -> pa.Table:
    columns = {
        "image_id": [pictures.image_ids[row] for row in found.row.tolist()],
        "evaluation_set": [references.sets[k] for k in found.reference.tolist()],
        "source": [references.sources[k] for k in found.reference.tolist()],
        "kind": [KINDS[kind] for kind in found.kind.tolist()],
        "distance": found.distance.astype(np.float32),
    }
    return pa.table(columns, schema=EVALUATION_COPIES)


def apart_metrics(decisions: pa.Table, copies: pa.Table, references: References) -> dict[str, Any]:
    """Pictures of the evaluation sets, how many of them have copies here, and files that could not be read."""
    pairs = zip(copies["evaluation_set"].to_pylist(), copies["source"].to_pylist(), strict=True)
    return {
        "evaluation_pictures": len(references.sources),
        "evaluation_pictures_with_copies": len(set(pairs)),
        "evaluation_groups": pc.count_distinct(
            decisions.filter(pc.fill_null(pc.equal(decisions["reason"], EVALUATION_COPY), False))["group_id"]
        ).as_py(),
        "evaluation_files_unreadable": sum(references.unreadable.values()),
        "notes": [
            f"{count} file(s) of the evaluation set {uri} cannot be read: no copies were looked for"
            for uri, count in references.unreadable.items()
            if count
        ],
    }


def apart_section(copies: pa.Table, references: References) -> dict[str, Any]:
    """What the report shows: each evaluation set, its pictures, those with copies in the pool, the copies."""
    rows = []
    for uri in sorted(set(references.sets)):
        own = copies.filter(pc.equal(copies["evaluation_set"], uri))
        sources, pictures = set(own["source"].to_pylist()), set(own["image_id"].to_pylist())
        rows.append([uri, references.sets.count(uri), len(sources), len(pictures)])
    return {
        "type": "table",
        "title": "Kept apart from evaluation sets",
        "columns": ["evaluation set", "pictures", "of which copied in the pool", "copies in the pool"],
        "rows": rows,
        "note": "The whole duplicate group of a copy is dropped.",
    }
