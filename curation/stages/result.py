"""What a stage hands back: tables, counts, and what the report may show of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class StageResult:
    """Tables by name, metrics (`rows_in`, `kept`, `dropped` by reason, ...), a report fragment, and loose files."""

    tables: dict[str, pa.Table]
    metrics: dict[str, Any]
    fragment: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)


def decision_metrics(decisions: pa.Table) -> dict[str, Any]:
    """`rows_in`, `kept` and `dropped` by reason of a table of decisions (see curation.tables.DECISIONS)."""
    dropped = decisions.filter(pc.invert(decisions["keep"]))["reason"].value_counts()
    counts = zip(dropped.field("values").to_pylist(), dropped.field("counts").to_pylist(), strict=True)
    kept = decisions.num_rows - sum(dropped.field("counts").to_pylist())
    return {"rows_in": decisions.num_rows, "kept": kept, "dropped": dict(sorted(counts))}
