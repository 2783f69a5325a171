"""`sapiens2 evaluate`: measure a model, and put it into a table in the paper's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.artifacts import Artifact, Store
from components.settings import Settings
from pipelines import display
from pipelines.run_command import run_one

console = display.console()
FORMATS = (".csv", ".tex")


def run_evaluate(
    task: str, given: Sequence[str], tables: Sequence[str], beside: Sequence[str], root: str, settings: Settings
) -> None:
    """Evaluate, then write the tables. Raises ValueError for a table of another format, before any work."""
    for name in tables:
        if Path(name).suffix not in FORMATS:
            raise ValueError(f"a table is written as {' or '.join(FORMATS)}, not as {name}: choose another name")
    others = [_evaluation(reference, task, Store(root)) for reference in beside]
    made = run_one(f"evaluate-{task}", None, given, root, settings, dry_run=False)
    if tables:
        write_tables(task, [*others, *made], tables)


def _evaluation(reference: str, task: str, store: Store) -> Artifact:
    found = store.find(reference)
    if found.kind != "evaluation" or found.manifest.metrics.get("task") != task:
        raise ValueError(f"{reference} is {found}, no evaluation of {task}: name evaluation=VERSION")
    return found


def write_tables(task: str, evaluations: Sequence[Artifact], tables: Sequence[str]) -> None:
    """The published rows and one for each evaluation, as CSV or LaTeX by the ending of each name."""
    from sapiens2.evaluation.run import row_of
    from sapiens2.evaluation.tables import paper_table

    rows = []
    for evaluation in evaluations:
        metrics = evaluation.manifest.metrics
        rows.append(row_of(metrics, f"{metrics.get('model', 'ours')} ({evaluation.version[:8]})"))
    table = paper_table(task, rows)
    for name in tables:
        Path(name).write_text(table.csv() if name.endswith(".csv") else table.latex(), encoding="utf-8")
        console.print(f"wrote {name}: {len(table.rows)} rows, {len(rows)} measured here", soft_wrap=True)
