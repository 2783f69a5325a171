"""A funnel that one can add up: what a step keeps is what the next one gets."""

from __future__ import annotations

from components.report_page import StepSummary, funnel
from curation.audit.funnel import EXACT_COPY, level

INGEST = {"rows_in": 14, "kept": 12, "dropped": {"corrupt": 2}, "images": 11}
FILTER = {"rows_in": 11, "kept": 9, "dropped": {"blurred": 2}}


def test_copies_of_a_source_are_dropped_by_ingest() -> None:
    counted = [level(metrics) for metrics in (INGEST, FILTER)]
    for found in counted:
        assert found is not None and found.rows_in == found.kept + sum(found.dropped.values())
    first, second = counted
    assert first is not None and second is not None
    assert first.kept == second.rows_in and first.dropped == {"corrupt": 2, EXACT_COPY: 1}
    assert INGEST["dropped"] == {"corrupt": 2}, "the manifest's own counts stay as they are"


def test_without_copies_nothing_is_added_and_without_counts_there_is_no_level() -> None:
    assert level({**INGEST, "images": 12}) == level({k: v for k, v in INGEST.items() if k != "images"})
    assert level({"rows_in": 3, "kept": 3}) is None


def test_the_report_shows_them() -> None:
    steps = [
        StepSummary(name, {"kind": kind, "version": "0" * 16, "step": name, "metrics": metrics}, None)
        for name, kind, metrics in (("ingest", "images", INGEST), ("filter", "filtered", FILTER))
    ]
    assert "exact copy" in str(funnel(steps))
