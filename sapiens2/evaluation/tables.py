"""Results in the layout of the paper's tables, with its rows beside ours: CSV and LaTeX.

The published rows are those of arXiv 2604.21681v1, tables 2 to 7, as printed there. They were measured on test sets
that are not public, so a row of ours is comparable with them in layout alone.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, TypeVar

from sapiens2.evaluation.provenance import SHOWN, UNKNOWN, Provenance
from sapiens2.tasks.head_specs import TASKS

PUBLISHED, OURS = "published", "measured here"
THEIRS = "the paper's own"
"""The test set of the published rows."""
NOTE = (
    "Rows marked as published are those of arXiv 2604.21681v1, table {table}, on its own test set, which is not "
    "public: they give the layout and the scale, not a comparison."
)
FOOTNOTE = "Published (arXiv 2604.21681v1, table {table}); on the paper's own test sets, not measured here."
READING = (
    "In brackets: 95 % bootstrap intervals over the test set. Bold: the best of the published rows, and of our rows on "
    "one test set."
)


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, the metric, what that is multiplied by, and whether more is better."""

    heading: str
    metric: str
    factor: float
    digits: int
    higher: bool


@dataclass(frozen=True)
class Layout:
    """A table of the paper; `text` are columns that hold no metric, `convention` says how ours are measured."""

    number: int
    columns: tuple[Column, ...]
    text: tuple[str, ...] = ()
    convention: str = ""


def _percent(heading: str, metric: str, digits: int = 1) -> Column:
    return Column(f"{heading} (%)", metric, 100, digits, True)


def _error(heading: str, metric: str, factor: float, digits: int) -> Column:
    return Column(heading, metric, factor, digits, False)


_CLASSES = "mIoU and mAcc of our rows are means over all 29 classes, absent ones counted as 0, as in the release."

LAYOUTS: dict[str, Layout] = {
    "pose": Layout(3, (_percent("mAP", "AP"), _percent("mAR", "AR")), ("input",)),
    "segmentation": Layout(
        4,
        (_percent("mIoU of all classes", "mIoU_all"), _percent("mAcc of all classes", "mAcc_all")),
        convention=_CLASSES,
    ),
    "pointmap": Layout(
        5,
        (
            _error("L2 (e-1)", "l2_scaled", 1e1, 3),
            _error("RMSE", "rmse_scaled", 1, 3),
            _error("X (e-3)", "mae_x_scaled", 1e3, 2),
            _error("Y (e-3)", "mae_y_scaled", 1e3, 2),
            _error("Z (e-2)", "mae_z_scaled", 1e2, 2),
        ),
    ),
    "normal": Layout(
        6,
        (
            _error("mean (deg)", "mean_deg", 1, 2),
            _error("median (deg)", "median_deg", 1, 2),
            _percent("within 5 deg", "within_5", 2),
            _percent("within 11.25 deg", "within_11.25", 2),
            _percent("within 30 deg", "within_30", 2),
        ),
    ),
    "albedo": Layout(
        7,
        (
            _error("MAE", "mae", 1, 5),
            _error("RMSE", "rmse", 1, 5),
            Column("PSNR (dB)", "psnr", 1, 2, True),
            Column("SSIM", "ssim", 1, 3, True),
            _error("Grad-L1", "gradient_l1", 1, 5),
        ),
    ),
    "probe": Layout(
        2,
        (
            _percent("pose mAP", "pose.AP"),
            _percent("pose mAR", "pose.AR"),
            _percent("seg. mIoU", "segmentation.mIoU"),
            _percent("seg. mAcc", "segmentation.mAcc_all"),
            _error("pointmap L2", "pointmap.l2", 1, 3),
            _error("normal mean (deg)", "normal.mean_deg", 1, 1),
            _percent("normal within 22.5 deg", "normal.within_22.5"),
            _error("albedo MAE (e-2)", "albedo.mae", 1e2, 2),
        ),
        convention=_CLASSES,
    ),
}

_PROBED = {
    "pose": {"AP": "AP", "AR": "AR"},
    "segmentation": {"mIoU_all": "mIoU", "mAcc_all": "mAcc_all"},
    "pointmap": {"l2_scaled": "l2"},
    "normal": {"mean_deg": "mean_deg", "within_22.5": "within_22.5"},
    "albedo": {"mae": "mae"},
}
"""Metrics of a dense probe -> their names in the columns of table 2: over all classes, points at the best scale."""

Metric = TypeVar("Metric")


def in_columns(task: str, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics of a task's dense probe that table 2 prints, under the names of its columns."""
    return {f"{task}.{column}": metrics[name] for name, column in _PROBED[task].items()}


@dataclass(frozen=True)
class Row:
    """A model's row: texts as printed, one a column after the first; None where a metric was not measured.

    intervals: low and high of each metric, as printed; None, or nothing at all, where they are not known. boxes: which
    ones people were looked for in, where those were not the labelled ones.
    """

    model: str
    cells: tuple[str | None, ...]
    origin: str
    intervals: tuple[tuple[str, str] | None, ...] = ()
    about: Provenance = UNKNOWN
    boxes: str = ""

    def interval(self, k: int) -> tuple[str, str] | None:
        """Of the k-th metric."""
        return self.intervals[k] if self.intervals else None

    def comparable(self, other: Row) -> bool:
        """Whether the better of the two says something: of one test set, with people found in one way."""
        return (self.origin, self.about.alike, self.boxes) == (other.origin, other.about.alike, other.boxes)


@dataclass(frozen=True)
class PaperTable:
    """A table in the paper's layout."""

    name: str
    layout: Layout
    rows: tuple[Row, ...]

    @property
    def headings(self) -> list[str]:
        """Of the columns of a report."""
        return ["model", *self.layout.text, *self._metrics, "test set", "origin"]

    @property
    def _metrics(self) -> list[str]:
        return [column.heading for column in self.layout.columns]

    @property
    def note(self) -> str:
        """What the published rows are, and the convention of ours."""
        return " ".join(filter(None, (NOTE.format(table=self.layout.number), self.layout.convention)))

    def csv(self) -> str:
        """Comma-separated values, one heading line: the paper's columns, then intervals and what was measured."""
        out, ends = io.StringIO(), [f"{heading}_{end}" for heading in self._metrics for end in ("low", "high")]
        about = ["test set", "checkpoint", "evaluation", "origin"]
        lines = [["model", *self.layout.text, *self._metrics, *ends, *about]]
        for row in self.rows:
            found = [end for k in range(len(self._metrics)) for end in row.interval(k) or ("", "")]
            cells = [row.model, *(cell or "" for cell in row.cells), *found]
            lines.append([*cells, row.about.test, row.about.checkpoint, row.about.evaluation, row.origin])
        csv.writer(out, lineterminator="\n").writerows(lines)
        return out.getvalue()

    def latex(self) -> str:
        """A tabular between booktabs rules and its notes; published rows above, with a dagger, ours below a line.

        Intervals stand in small letters below their numbers. The best of the rows of one test set are in bold.
        """
        columns = self.layout.columns
        heads = [_on_two_lines(column) for column in columns]
        lines = [
            f"% {self.note}",
            *(f"% {self._told(row)}" for row in self.rows if row.origin == OURS),
            r"\begin{tabular}{l" + "l" * len(self.layout.text) + "r" * len(columns) + "l}",
            r"\toprule",
            " & ".join(["Model", *map(_escaped, self.layout.text), *heads, "Test set"]) + r" \\",
        ]
        for origin in (PUBLISHED, OURS):
            rows = [row for row in self.rows if row.origin == origin]
            if rows:
                lines += [r"\midrule", *(line for row in rows for line in self._lines(row))]
        notes = rf"$^\dagger$ {_escaped(FOOTNOTE.format(table=self.layout.number))} {_escaped(READING)}"
        notes += f" {_escaped(self.layout.convention)}" if self.layout.convention else ""
        below = ["", r"\smallskip", rf"{{\footnotesize {notes}\par}}", ""]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *below])

    @staticmethod
    def _told(row: Row) -> str:
        about = row.about
        known = (
            about.test,
            about.checkpoint and f"of {about.checkpoint}",
            about.evaluation and f"in {about.evaluation}",
        )
        return f"{row.model}: {', '.join(filter(None, known)) or 'measured here'}"

    def _lines(self, row: Row) -> list[str]:
        """A row, and its intervals on a line of their own."""
        texts = len(self.layout.text)
        cells = [_escaped(row.model) + (r"$^\dagger$" if row.origin == PUBLISHED else "")]
        for k, cell in enumerate(row.cells):
            shown = "--" if cell is None else _escaped(cell)
            cells.append(rf"\textbf{{{shown}}}" if cell is not None and self._best(k, cell, row) else shown)
        lines = [" & ".join([*cells, _escaped(row.about.test)]) + r" \\"]
        ends = [row.interval(k) for k in range(len(self.layout.columns))]
        if any(ends):
            small = [rf"{{\scriptsize [{end[0]}, {end[1]}]}}" if end else "" for end in ends]
            lines.append(" & ".join([""] * (1 + texts) + [*small, ""]).strip() + r" \\")
        return lines

    def _best(self, k: int, cell: str, row: Row) -> bool:
        group = [other for other in self.rows if other.comparable(row)]
        if k < len(self.layout.text) or len(group) < 2:
            return False
        values = [float(other.cells[k]) for other in group if other.cells[k] is not None]  # type: ignore[arg-type]
        wanted = max(values) if self.layout.columns[k - len(self.layout.text)].higher else min(values)
        return float(cell) == wanted

    def section(self) -> dict[str, Any]:
        """As a section of a report."""
        title, texts, rows = f"In the layout of the paper's table {self.layout.number}", len(self.layout.text), []
        for row in self.rows:
            cells = [cell or "" for cell in row.cells]
            for k in range(len(self._metrics)):
                ends = row.interval(k)
                cells[texts + k] += f" ({ends[0]} to {ends[1]})" if ends else ""
            rows.append([row.model, *cells, row.about.test, row.origin])
        return {"type": "table", "title": title, "columns": self.headings, "rows": rows, "note": self.note}


_LETTERS: dict[str, str | int | None] = {letter: f"\\{letter}" for letter in "&%$#_{}"}
_LETTERS |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LETTERS |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_LETTERS |= {letter: f"{{{letter}}}" for letter in "[*"}  # first in a row, they are options of the row before


def _on_two_lines(column: Column) -> str:
    """A heading and its arrow, broken at the space nearest the middle, so that a table of eight columns fits a page."""
    whole = _escaped(column.heading) + (r" $\uparrow$" if column.higher else r" $\downarrow$")
    spaces = [k for k, letter in enumerate(whole) if letter == " " and whole[k + 1] != "$"]
    if not spaces:
        return whole
    middle = min(spaces, key=lambda k: abs(k - len(whole.rsplit(" ", 1)[0]) / 2))
    return rf"\shortstack[r]{{{whole[:middle]}\\{whole[middle + 1 :]}}}"


def _escaped(text: str) -> str:
    return text.translate(str.maketrans(_LETTERS))


def layout(name: str) -> Layout:
    """The layout of a task's table, or of `probe`; ValueError listing the names."""
    if name not in LAYOUTS:
        raise ValueError(f"the paper has no table of {name!r}; use one of {', '.join((*TASKS, 'probe'))}")
    return LAYOUTS[name]


def published(name: str) -> list[Row]:
    """The rows that the paper prints for a task, or for `probe`; the files have the columns in the layout's order."""
    layout(name)
    text = files("sapiens2.evaluation").joinpath("published", f"{name}.tsv").read_text(encoding="utf-8")
    _, *lines = csv.reader(text.splitlines(), delimiter="\t")
    about = Provenance(test=THEIRS, alike=THEIRS)
    return [Row(line[0], tuple(line[1:]), PUBLISHED, about=about) for line in lines]


Figure = float | Mapping[str, float | None] | None
"""A metric, alone or as its value, low and high; None where it is not known."""


def measured(name: str, model: str, metrics: Mapping[str, Figure], **text: str) -> Row:
    """A row of ours from metrics in their own units; what is missing or not finite stays empty."""
    which, cells, intervals = layout(name), [], []
    for column in which.columns:
        figure = metrics.get(column.metric)
        figure = figure if isinstance(figure, Mapping) else {"value": figure}
        value, low, high = (_printed(column, figure.get(part)) for part in ("value", "low", "high"))
        cells.append(value)
        intervals.append((low, high) if low is not None and high is not None else None)
    return Row(model, (*(text.get(key, "") for key in which.text), *cells), OURS, tuple(intervals))


def _printed(column: Column, value: float | None) -> str | None:
    known = value is not None and math.isfinite(value)
    return f"{float(value) * column.factor:.{column.digits}f}" if known else None  # type: ignore[arg-type]


def paper_table(name: str, ours: Sequence[Row]) -> PaperTable:
    """The published rows, and ours after them. Test sets that are not alike but look so are told apart."""
    shown: dict[str, set[str]] = {}
    for row in ours:
        shown.setdefault(row.about.test, set()).add(row.about.alike)
    rows = [_told_apart(row) if len(shown[row.about.test]) > 1 else row for row in ours]
    return PaperTable(name, layout(name), (*published(name), *rows))


def _told_apart(row: Row) -> Row:
    kind, _, version = row.about.evaluation.partition("=")
    where = f", as in {kind}={version[:SHOWN]}" if version else ""
    return replace(row, about=replace(row.about, test=row.about.test + where))


def probe_rows(metrics: Mapping[str, Any], about: Provenance = UNKNOWN) -> list[Row]:
    """The rows of a probe step in table 2, from its metrics.json: the chosen checkpoint, then what it was beside.

    about: of the chosen checkpoint. Raises ValueError for the metrics of a version that did not keep what table 2
    prints.
    """
    if "printed" not in metrics:
        raise ValueError("this probe was made before table 2 was written: run `sapiens2 probe` again")
    ours = {"name": f"{metrics['size']} {metrics['chosen']['name']}{about.mark}", "printed": metrics["printed"]}
    rows = [measured("probe", row["name"], row["printed"]) for row in (ours, *metrics["others"])]
    marks = (about.checkpoint, *(other.get("checkpoint", "") for other in metrics["others"]))
    return [replace(row, about=replace(about, checkpoint=mark)) for row, mark in zip(rows, marks, strict=True)]
