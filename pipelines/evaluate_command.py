"""`sapiens2 evaluate` and `probe`: measure a model or a backbone, and put it into a table in the paper's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.artifacts import Artifact, Store
from components.settings import Settings
from pipelines import display
from pipelines.run_command import run_one

console = display.console()
FORMATS = (".csv", ".tex")
PROBE = "probe"
"""The step, and the table of the paper that it fills."""


def run_evaluate(
    task: str, given: Sequence[str], tables: Sequence[str], beside: Sequence[str], root: str, settings: Settings
) -> None:
    """Evaluate, then write the tables. Raises ValueError for a table of another format, before any work."""
    _measure(task, f"evaluate-{task}", given, tables, beside, root, settings)


def run_probe(
    given: Sequence[str], tables: Sequence[str], beside: Sequence[str], root: str, settings: Settings
) -> None:
    """Probe a backbone, then write the tables. Raises ValueError for a table of another format, before any work."""
    _measure(PROBE, PROBE, given, tables, beside, root, settings)


def _measure(
    what: str,
    step: str,
    given: Sequence[str],
    tables: Sequence[str],
    beside: Sequence[str],
    root: str,
    settings: Settings,
) -> None:
    for name in tables:
        if Path(name).suffix not in FORMATS:
            raise ValueError(f"a table is written as {' or '.join(FORMATS)}, not as {name}: choose another name")
    others = [_evaluation(reference, what, Store(root)) for reference in beside]
    made = run_one(step, None, given, root, settings, dry_run=False)
    if tables:
        write_tables(what, [*others, *made], tables)


def _evaluation(reference: str, what: str, store: Store) -> Artifact:
    found = store.find(reference)
    of = PROBE if found.manifest.step == PROBE else found.manifest.metrics.get("task")
    if found.kind != "evaluation" or of != what:
        raise ValueError(f"{reference} is {found}, no evaluation of {what}: name evaluation=VERSION")
    return found


def write_tables(task: str, evaluations: Sequence[Artifact], tables: Sequence[str]) -> None:
    """The published rows and one for each evaluation, as CSV or LaTeX by the ending of each name."""
    from sapiens2.evaluation.run import row_of
    from sapiens2.evaluation.tables import paper_table, probe_rows

    rows = []
    for evaluation in evaluations:
        metrics, mark = evaluation.manifest.metrics, f" ({evaluation.version[:8]})"
        rows += probe_rows(metrics, mark) if task == PROBE else [row_of(metrics, metrics.get("model", "ours") + mark)]
    table = paper_table(task, rows)
    for name in tables:
        Path(name).write_text(table.csv() if name.endswith(".csv") else table.latex(), encoding="utf-8")
        console.print(f"wrote {name}: {len(table.rows)} rows, {len(rows)} measured here", soft_wrap=True)
