"""What is in a folder of labelled data, and everything that is wrong with it, each with its mend."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from sapiens2.data.labelled.layout import LABEL_OF, DatasetFacts, LabelError, Row, read_facts, scan_index
from sapiens2.data.labelled.read import read_sample
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import IGNORE, keypoints, parts

MIN_KEYPOINTS = 8  # fewer are too few to train on (specification 5)
NEAR_M, FAR_M = 0.2, 30.0  # a person's median depth outside is more likely another unit


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `error` makes the folder unfit; a warning does not."""

    where: str
    problem: str
    mend: str
    error: bool = True

    def __str__(self) -> str:
        return f"{'error' if self.error else 'warning'}: {self.where}: {self.problem}; {self.mend}"


@dataclass
class Report:
    """What a check found. `shown` are samples to draw, as (task, row, sample)."""

    folder: str
    facts: DatasetFacts
    rows: int = 0
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    shown: list[tuple[str, Row, Sample]] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """How many problems make the folder unfit."""
        return sum(problem.error for problem in self.problems)


def check(folder: str, tasks: Sequence[str] | None = None, *, show: int = 8, limit: int | None = None) -> Report:
    """Read every sample of every task (or of `tasks`), and judge it; `limit` reads the first rows only.

    show: samples per task kept for drawing, spread evenly. A row of the index that is malformed is a problem like any
    other, and named once however many tasks meet it. Raises LabelError only when there is no index to read.
    """
    report = Report(folder, read_facts(folder))
    found = list(islice(scan_index(folder), limit))
    rows = [row for row in found if isinstance(row, Row)]
    report.rows = len(found)
    report.problems += [Problem(e.where, e.problem, e.mend) for e in found if isinstance(e, LabelError)]
    report.problems += _splits(rows)
    for task in tasks or LABEL_OF:
        own = [row for row in rows if row.has(task)]
        if own:
            _check_task(report, task, own, show)
        elif tasks and (rows or not found):
            report.problems.append(
                Problem(folder, f"no row is labelled for {task}", f"fill {' or '.join(LABEL_OF[task])} in the index")
            )
    if not found:
        report.problems.append(Problem(folder, "the index is empty", "write one row a sample"))
    elif rows and not tasks:
        report.problems += _unlabelled(folder, rows)
    report.problems = list(dict.fromkeys(report.problems))  # one box or picture is read for several tasks and rows
    return report


def _unlabelled(folder: str, rows: Sequence[Row]) -> list[Problem]:
    """Rows that no task reads: all of them are an error, some a warning."""
    without = [row for row in rows if not any(row.has(task) for task in LABEL_OF)]
    mend = f"fill {', '.join(name for names in LABEL_OF.values() for name in names)} in the index"
    if len(without) == len(rows):
        return [Problem(folder, "no row has a label of any task", mend)]
    if without:
        where = f"{without[0].where} and {len(without) - 1} more" if without[1:] else without[0].where
        return [Problem(where, "has no label of any task", f"{mend}, or drop the row", error=False)]
    return []


def _check_task(report: Report, task: str, rows: Sequence[Row], show: int) -> None:
    tally = _Tally(task)
    wanted = set(np.linspace(0, len(rows) - 1, min(show, len(rows))).round().astype(int).tolist())
    bad = 0
    for index, row in enumerate(rows):
        try:
            sample = read_sample(report.folder, report.facts, row, task)
        except LabelError as error:
            bad += 1
            report.problems.append(Problem(error.where, error.problem, error.mend))
            continue
        report.problems += tally.add(row, sample)
        if index in wanted:
            report.shown.append((task, row, sample))
    splits = dict(Counter(row.split for row in rows))
    report.counts[task] = {"samples": len(rows), "unreadable": bad, "splits": splits, **tally.ranges()}


def _splits(rows: Sequence[Row]) -> list[Problem]:
    """A picture, or a group of pictures, in two splits lets a test be learned by heart."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for name in {f"the picture {row.image}", f"the group {row.group}" if row.group else f"the picture {row.image}"}:
            found[name].add(row.split)
    return [
        Problem(name, f"is in the splits {', '.join(sorted(splits))}", "keep a picture and its group in one split")
        for name, splits in found.items()
        if len(splits) > 1
    ]


class _Tally:
    """Ranges over the samples of a task, and what each sample makes one doubt."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.sides: list[tuple[int, int]] = []
        self.values: dict[str, list[float]] = defaultdict(list)
        self.classes = np.zeros(256, np.int64)
        self.labelled = np.zeros(len(keypoints()), np.int64)

    def add(self, row: Row, sample: Sample) -> list[Problem]:
        self.sides.append((sample.image.shape[1], sample.image.shape[0]))
        doubts: list[Problem] = list(getattr(self, f"_{self.task}")(row, sample))
        return doubts

    def _pose(self, row: Row, sample: Sample) -> list[Problem]:
        assert sample.labelled is not None and sample.keypoints is not None
        self.labelled += sample.labelled
        count = int(sample.labelled.sum())
        self.values["keypoints per person"].append(count)
        doubts = []
        if count < MIN_KEYPOINTS:
            doubts.append(_doubt(row, f"has {count} labelled keypoints", f"label {MIN_KEYPOINTS} or more, or drop it"))
        if sample.box is None:
            doubts.append(_doubt(row, "has no `box`", "give one; training takes the tight box of the keypoints"))
        elif count:
            x0, y0, x1, y1 = sample.box
            xy = sample.keypoints[sample.labelled]
            margin = 0.5 * max(x1 - x0, y1 - y0)
            away = ((xy < [x0 - margin, y0 - margin]) | (xy > [x1 + margin, y1 + margin])).any(1).mean()
            if away > 0.2:
                doubts.append(
                    _doubt(row, f"{away:.0%} of its keypoints lie far outside its box", "mend box or keypoints")
                )
        return doubts

    def _segmentation(self, row: Row, sample: Sample) -> list[Problem]:
        assert sample.mask is not None
        counts = np.bincount(sample.mask.ravel(), minlength=256)
        self.classes += counts
        person = counts[1 : len(parts())].sum() / sample.mask.size
        self.values["share of person pixels"].append(float(person))
        self.values["share of unknown pixels"].append(float(counts[IGNORE] / sample.mask.size))
        if person < 0.01:
            return [_doubt(row, f"only {person:.1%} of its pixels belong to a person", "crop the picture, or drop it")]
        return []

    def _normal(self, row: Row, sample: Sample) -> list[Problem]:
        assert sample.normals is not None and sample.valid is not None
        inside = sample.normals[sample.valid]
        if len(inside):
            self.values["mean z of normals"].append(float(inside[:, 2].mean()))
            away = float((inside[:, 2] > 0.2).mean())
            self.values["share facing away"].append(away)
        return self._covered(row, sample)

    def _pointmap(self, row: Row, sample: Sample) -> list[Problem]:
        assert sample.points is not None and sample.valid is not None and sample.intrinsics is not None
        doubts = self._covered(row, sample)
        if sample.valid.any():
            depth = float(np.median(sample.points[..., 2][sample.valid]))
            self.values["median depth, m"].append(depth)
            if not NEAR_M <= depth <= FAR_M:
                doubts.append(_doubt(row, f"its median depth is {depth:.3g}: in metres?", _in_metres(depth)))
        self.values["focal length over width"].append(float(sample.intrinsics[0, 0] / sample.image.shape[1]))
        return doubts

    def _albedo(self, row: Row, sample: Sample) -> list[Problem]:
        assert sample.albedo is not None and sample.valid is not None
        inside = sample.albedo[sample.valid]
        doubts = self._covered(row, sample)
        if len(inside):
            self.values["mean albedo"].append(float(inside.mean()))
            if inside.std(0).max() < 0.02:
                doubts.append(_doubt(row, "its albedo is one flat colour", "mend the label, or drop it"))
        return doubts

    def _covered(self, row: Row, sample: Sample) -> list[Problem]:
        assert sample.valid is not None
        self.values["share of labelled pixels"].append(float(sample.valid.mean()))
        if sample.valid.sum() < 16:
            return [_doubt(row, "fewer than 16 pixels are labelled", "drop it")]
        return []

    def ranges(self) -> dict[str, Any]:
        """Smallest, median and largest of what was counted."""
        out: dict[str, Any] = {}
        if self.sides:
            sides = np.array(self.sides)
            out["width, px"], out["height, px"] = (_range(sides[:, k].tolist()) for k in (0, 1))
        out |= {name: _range(values) for name, values in self.values.items()}
        if self.task == "segmentation":
            out["pixels per class"] = {n: int(c) for n, c in zip(parts().names, self.classes) if c}
        if self.task == "pose":
            out["labelled keypoints of the vocabulary"] = int((self.labelled > 0).sum())
        return out


def _range(values: list[float]) -> list[float]:
    return [round(float(v), 4) for v in (min(values), np.median(values), max(values))]


def _in_metres(depth: float) -> str:
    mend = "divide millimetres by 1000 and centimetres by 100"
    if depth < NEAR_M:
        mend = "multiply by 10, 100 or 1000 if it was divided as millimetres or centimetres too often"
    return f"{mend}; for a depth PNG set `depth_unit` in dataset.json"


def _doubt(row: Row, problem: str, mend: str) -> Problem:
    return Problem(row.where, problem, mend, error=False)
