"""What a funnel shows of a step: rows in, rows kept, and rows dropped by reason, which add up from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXACT_COPY = "exact_copy"


@dataclass(frozen=True)
class Level:
    """A step's rows. rows_in = kept + the sum of dropped, and the next step's rows_in is at most kept."""

    rows_in: int
    kept: int
    dropped: dict[str, int]


def level(metrics: Mapping[str, Any]) -> Level | None:
    """The level of a step that counted its rows by these metrics of its manifest; None for one that did not.

    Ingest counts sources, and several may be one picture: those beyond the first are exact copies here, so that what
    is kept is what the next step gets.
    """
    if not {"rows_in", "kept", "dropped"} <= metrics.keys():
        return None
    kept, dropped = metrics["kept"], dict(metrics["dropped"])
    if copies := kept - metrics.get("images", kept):
        kept, dropped = kept - copies, {**dropped, EXACT_COPY: copies}
    return Level(metrics["rows_in"], kept, dropped)
