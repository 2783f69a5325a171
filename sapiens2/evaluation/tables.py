"""Results in the layout of the paper's tables, with its rows beside ours: CSV and LaTeX.

The published rows are those of arXiv 2604.21681v1, tables 2 to 7, as printed there. They were measured on test sets
that are not public, so a row of ours is comparable with them in layout alone.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from sapiens2.tasks.head_specs import TASKS

PUBLISHED, OURS = "published", "measured here"
NOTE = (
    "Rows marked as published are those of arXiv 2604.21681v1, table {table}, on its own test set, which is not "
    "public: they give the layout and the scale, not a comparison."
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


def in_columns(task: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a task's dense probe that table 2 prints, under the names of its columns."""
    return {f"{task}.{column}": float(metrics[name]) for name, column in _PROBED[task].items()}


@dataclass(frozen=True)
class Row:
    """A model's row: texts as printed, one a column after the first; None where a metric was not measured."""

    model: str
    cells: tuple[str | None, ...]
    origin: str


@dataclass(frozen=True)
class PaperTable:
    """A table in the paper's layout."""

    name: str
    layout: Layout
    rows: tuple[Row, ...]

    @property
    def headings(self) -> list[str]:
        """Of all columns."""
        return ["model", *self.layout.text, *(column.heading for column in self.layout.columns), "origin"]

    @property
    def note(self) -> str:
        """What the published rows are, and the convention of ours."""
        return " ".join(filter(None, (NOTE.format(table=self.layout.number), self.layout.convention)))

    def cells(self) -> list[list[str]]:
        """Every row as texts."""
        return [[row.model, *(cell or "" for cell in row.cells), row.origin] for row in self.rows]

    def csv(self) -> str:
        """Comma-separated values, one heading line."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.headings, *self.cells()])
        return out.getvalue()

    def latex(self) -> str:
        """A tabular between booktabs rules; published rows above, ours below a line, the best of each in bold."""
        columns = self.layout.columns
        heads = [column.heading + (r" $\uparrow$" if column.higher else r" $\downarrow$") for column in columns]
        heads = [_escaped(head.rsplit(" $", 1)[0]) + " $" + head.rsplit(" $", 1)[1] for head in heads]
        lines = [
            f"% {self.note}",
            r"\begin{tabular}{l" + "l" * len(self.layout.text) + "r" * len(columns) + "}",
            r"\toprule",
            " & ".join(["Model", *map(_escaped, self.layout.text), *heads]) + r" \\",
        ]
        for origin in (PUBLISHED, OURS):
            rows = [row for row in self.rows if row.origin == origin]
            if rows:
                lines += [r"\midrule", *(self._line(row, rows) for row in rows)]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def _line(self, row: Row, group: Sequence[Row]) -> str:
        cells = [_escaped(row.model)]
        for k, cell in enumerate(row.cells):
            shown = "--" if cell is None else _escaped(cell)
            cells.append(rf"\textbf{{{shown}}}" if cell is not None and self._best(k, cell, group) else shown)
        return " & ".join(cells) + r" \\"

    def _best(self, k: int, cell: str, group: Sequence[Row]) -> bool:
        if k < len(self.layout.text) or len(group) < 2:
            return False
        values = [float(row.cells[k]) for row in group if row.cells[k] is not None]  # type: ignore[arg-type]
        wanted = max(values) if self.layout.columns[k - len(self.layout.text)].higher else min(values)
        return float(cell) == wanted

    def section(self) -> dict[str, Any]:
        """As a section of a report."""
        title = f"In the layout of the paper's table {self.layout.number}"
        return {"type": "table", "title": title, "columns": self.headings, "rows": self.cells(), "note": self.note}


def _escaped(text: str) -> str:
    for letter in "\\&%$#_{}":
        text = text.replace(letter, r"\textbackslash{}" if letter == "\\" else f"\\{letter}")
    return text


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
    return [Row(line[0], tuple(line[1:]), PUBLISHED) for line in lines]


def measured(name: str, model: str, metrics: Mapping[str, float | None], **text: str) -> Row:
    """A row of ours from metrics in their own units; what is missing or not finite stays empty."""
    which, cells = layout(name), []
    for column in which.columns:
        value = metrics.get(column.metric)
        known = value is not None and math.isfinite(value)
        cells.append(f"{float(value) * column.factor:.{column.digits}f}" if known else None)  # type: ignore[arg-type]
    return Row(model, (*(text.get(key, "") for key in which.text), *cells), OURS)


def paper_table(name: str, ours: Sequence[Row]) -> PaperTable:
    """The published rows, and ours after them."""
    return PaperTable(name, layout(name), (*published(name), *ours))


def probe_rows(metrics: Mapping[str, Any], mark: str = "") -> list[Row]:
    """The rows of a probe step in table 2, from its metrics.json: the chosen checkpoint, then what it was beside.

    mark: added to the names. Raises ValueError for the metrics of a version that did not keep what table 2 prints.
    """
    if "printed" not in metrics:
        raise ValueError("this probe was made before table 2 was written: run `sapiens2 probe` again")
    ours = {"name": f"{metrics['size']} {metrics['chosen']['name']}", "printed": metrics["printed"]}
    return [measured("probe", f"{row['name']}{mark}", row["printed"]) for row in (ours, *metrics["others"])]
