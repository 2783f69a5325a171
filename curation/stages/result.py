"""What a stage hands back: tables, counts, and what the report may show of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class StageResult:
    """Tables by name, metrics (`rows_in`, `kept`, `dropped` by reason, ...), a report fragment, and loose files."""

    tables: dict[str, pa.Table]
    metrics: dict[str, Any]
    fragment: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)


def decision_metrics(decisions: pa.Table) -> dict[str, Any]:
    """`rows_in`, `kept` and `dropped` by reason of a table of decisions (see curation.tables.DECISIONS)."""
    keep = decisions["keep"].to_pylist()
    reasons = decisions["reason"].to_pylist()
    dropped: dict[str, int] = {}
    for kept, reason in zip(keep, reasons, strict=True):
        if not kept:
            dropped[reason] = dropped.get(reason, 0) + 1
    return {"rows_in": len(keep), "kept": sum(keep), "dropped": dict(sorted(dropped.items()))}
