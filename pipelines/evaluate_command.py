"""`sapiens2 evaluate` and `probe`: measure a model or a backbone, and put it into a table in the paper's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts import Artifact, Store
from components.settings import Settings
from components.steps import STEPS, TASKS
from pipelines import display
from pipelines.run_command import run_one

if TYPE_CHECKING:
    from sapiens2.evaluation.provenance import Provenance

console = display.console()
FORMATS = (".csv", ".tex")
PROBE = "probe"
"""The step, and the table of the paper that it fills."""


def run_evaluate(
    task: str, given: Sequence[str], tables: Sequence[str], beside: Sequence[str], root: str, settings: Settings
) -> None:
    """Evaluate, then write the tables.

    Raises ValueError for what is no task, a checkpoint of another one and a table of another format, before any work.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; the tasks are {', '.join(TASKS)}")
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
    store = Store(root)
    for reference in given:
        _refuse_of_another_kind(reference, what, step, store)
    others = [_evaluation(reference, what, store) for reference in beside]
    made = run_one(step, None, given, root, settings, dry_run=False)
    if tables:
        write_tables(what, [*others, *made], tables)


def _refuse_of_another_kind(reference: str, what: str, step: str, store: Store) -> None:
    """Raises ValueError for an input that the step does not read; without it the step would look for another."""
    (needed,) = (STEPS[read.producer].kind for read in STEPS[step].inputs)
    found = store.find(reference)
    if found.kind != needed:
        kind = f"{'an' if needed.startswith('a') else 'a'} {needed}{' checkpoint' if needed in TASKS else ''}"
        asked = f"{what} is evaluated on {kind}" if needed in TASKS else f"{what} reads {kind}"
        raise ValueError(f"{asked}, and {found} was given: name {needed}=VERSION")


def _evaluation(reference: str, what: str, store: Store) -> Artifact:
    found = store.find(reference)
    of = PROBE if found.manifest.step == PROBE else found.manifest.metrics.get("task")
    if found.kind != "evaluation" or of != what:
        raise ValueError(f"{reference} is {found}, no evaluation of {what}: name evaluation=VERSION")
    return found


def write_tables(task: str, evaluations: Sequence[Artifact], tables: Sequence[str]) -> None:
    """The published rows and those of each evaluation, as CSV or LaTeX by the ending of each name."""
    from sapiens2.evaluation.run import rows_of
    from sapiens2.evaluation.tables import OURS, paper_table, probe_rows

    rows = []
    for evaluation in evaluations:
        metrics, about = evaluation.manifest.metrics, _about(evaluation)
        rows += probe_rows(metrics, about) if task == PROBE else rows_of(metrics, about)
    table = paper_table(task, rows)
    for name in tables:
        Path(name).write_text(table.csv() if name.endswith(".csv") else table.latex(), encoding="utf-8")
        console.print(f"wrote {name}: {len(table.rows)} rows, {len(rows)} measured here", soft_wrap=True)
    if len(tests := dict.fromkeys(row.about.test for row in table.rows if row.origin == OURS)) > 1:
        console.print(f"[yellow]note:[/] these rows are of {len(tests)} test sets: {'; '.join(tests)}", soft_wrap=True)


def _about(evaluation: Artifact) -> Provenance:
    """On which test set and of which checkpoint an evaluation is, by its manifest."""
    from sapiens2.evaluation.provenance import provenance

    manifest = evaluation.manifest
    read = {one.role: f"{one.kind}={one.version}" for one in manifest.inputs}
    checkpoint = read.get("backbone" if manifest.step == PROBE else "checkpoint", "")
    digest, of = manifest.source, {"checkpoint": checkpoint, "evaluation": str(evaluation)}
    return provenance(manifest.config, manifest.metrics, digest=digest, **of)
