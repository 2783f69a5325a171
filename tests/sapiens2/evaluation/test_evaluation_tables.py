"""Tables in the paper's layout: its rows as printed, ours in its units, CSV and LaTeX; results by what is hard."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sapiens2.data.labelled.layout import Row
from sapiens2.data.synthetic import render
from sapiens2.evaluation.headline import Headline
from sapiens2.evaluation.metrics import pool_segmentation
from sapiens2.evaluation.provenance import Provenance, provenance
from sapiens2.evaluation.run import rows_of
from sapiens2.evaluation.strata import by_stratum, hidden_share, row_bins, scene_bins
from sapiens2.evaluation.tables import LAYOUTS, in_columns, layout, measured, paper_table, published
from sapiens2.evaluation.tables import Row as TableRow
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.vocabulary import keypoints

# Read off tables 3 to 7 of the paper, by hand.
PRINTED = {
    "pose": ("Sapiens2-5B", ("1024 x 768", "82.3", "85.3")),
    "segmentation": ("Sapiens2-1B-4K", ("81.9", "92.0")),
    "pointmap": ("MoGe", ("0.202", "0.486", "3.21", "4.41", "1.89")),
    "normal": ("Sapiens2-0.4B", ("8.63", "5.25", "49.13", "76.89", "94.76")),
    "albedo": ("Sapiens2-5B", ("0.01191", "0.02341", "32.61", "0.915", "0.00610")),
    "probe": ("DINOv3-7B", ("68.2", "71.6", "67.6", "83.3", "0.398", "14.2", "82.5", "3.48")),
}
COUNTS = {"pose": 12, "segmentation": 11, "pointmap": 8, "normal": 10, "albedo": 4, "probe": 13}


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_rows_are_as_printed(name: str) -> None:
    rows = {row.model: row for row in published(name)}
    model, cells = PRINTED[name]
    assert rows[model].cells == cells and rows[model].origin == "published" and len(rows) == COUNTS[name]
    for row in rows.values():
        numbers = row.cells[len(layout(name).text) :]
        assert all(float(cell or "nan") > 0 for cell in numbers)
    # Larger of the paper's own models are better in the first metric: a swapped digit would show.
    own = [float(r.cells[len(layout(name).text)] or 0) for m, r in rows.items() if m.startswith("Sapiens2-")]
    higher = layout(name).columns[0].higher
    assert own == sorted(own, reverse=not higher)


def test_our_row_is_in_the_units_of_the_paper() -> None:
    row = measured("normal", "mine", {"mean_deg": 12.345, "median_deg": float("nan"), "within_5": 0.25})
    assert row.cells == ("12.35", None, "25.00", None, None) or row.cells == ("12.34", None, "25.00", None, None)
    assert measured("pose", "mine", {"AP": 0.5, "AR": 0.625}, input="256 x 192").cells == ("256 x 192", "50.0", "62.5")
    assert measured("pointmap", "mine", {"l2_scaled": 0.0167, "mae_x_scaled": 0.00285}).cells[:3:2] == ("0.167", "2.85")
    with pytest.raises(ValueError, match="the paper has no table of 'depth'; use one of pose"):
        layout("depth")


def test_csv_and_latex_say_the_same() -> None:
    ours = [measured("segmentation", f"mine_{k}", {"mIoU_all": 0.1 * k, "mAcc_all": 0.9 - 0.1 * k}) for k in (1, 2)]
    table = paper_table("segmentation", ours)
    head, *rows = csv.reader(table.csv().splitlines())
    assert head[:3] == ["model", "mIoU of all classes (%)", "mAcc of all classes (%)"] and len(rows) == 13
    assert rows[-1][:3] == ["mine_2", "20.0", "70.0"] and head[-1] == "origin" and rows[-1][-1] == "measured here"
    latex = table.latex()
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in body} == {3} and len(body) == 14
    assert latex.count(r"\midrule") == 2 and latex.startswith("% Rows marked as published")
    assert r"Sapiens2-5B$^\dagger$ & \textbf{82.5} & 91.1 & the paper's own \\" in latex
    assert r"Sapiens2-1B-4K$^\dagger$ & 81.9 & \textbf{92.0} & the paper's own \\" in latex
    assert r"mine\_1 & 10.0 & \textbf{80.0} &  \\" in latex and r"mIoU of all\\classes (\%) $\uparrow$}" in latex
    assert "not a comparison" in table.section()["note"]
    for each in (table, paper_table("probe", [])):
        assert "over all 29 classes, absent ones counted as 0" in each.note and each.note in each.latex()
    assert "classes" not in paper_table("normal", []).note


def test_rows_of_segmentation_hold_to_one_convention() -> None:
    """A perfect answer of two classes of four is half of all, in either number, in tables 4 and 2."""
    found = pool_segmentation(np.diag([3, 5, 0, 0]))
    assert (found["mIoU"], found["mAcc"], found["mIoU_all"], found["mAcc_all"]) == (1, 1, 0.5, 0.5)
    assert measured("segmentation", "mine", found).cells == ("50.0", "50.0")
    columns = dict(
        zip(paper_table("probe", []).headings[1:], measured("probe", "", in_columns("segmentation", found)).cells)
    )
    assert columns["seg. mIoU (%)"] == columns["seg. mAcc (%)"] == "50.0"
    older = {"mIoU_all": 0.5, "mAcc": 1.0}  # an evaluation that did not keep the recall of all classes
    assert measured("segmentation", "mine", older).cells == ("50.0", None)


@pytest.mark.parametrize("task", TASKS)
def test_a_row_with_flip_test_says_so(task: str) -> None:
    metrics = {"task": task, "model": "tiny", "image_size": [64, 48], "metrics": {}}
    assert named(metrics) == named(metrics | {"flip": False}) == ["tiny"]
    assert named(metrics | {"flip": True}) == ["tiny, flip test"]
    about = Provenance(checkpoint=f"{task}=3fd2")
    assert [row.model for row in rows_of(metrics | {"flip": True}, about)] == ["tiny (3fd2), flip test"]
    both = metrics | {"boxes": {"given": {"AP": {"value": 0.5}}, "labelled": {}}}
    assert named(both) == ["tiny", "tiny, given boxes"]


def named(metrics: dict[str, Any]) -> list[str]:
    return [row.model for row in rows_of(metrics)]


def figure(value: float) -> dict[str, float | None]:
    return {"value": value, "low": value - 2, "high": value + 2}


def on(scenes: int, **more: Any) -> Provenance:
    return provenance({"scene_seed": 0}, {"n_test": scenes, "image_size": [128, 96]}, **more)


def normals(name: str, mean: float, about: Provenance, boxes: str = "") -> TableRow:
    return replace(measured("normal", name, {"mean_deg": figure(mean), "median_deg": None}), about=about, boxes=boxes)


def test_the_best_is_sought_on_one_test_set() -> None:
    """Of four rows two are of one test set; the best of all was measured on another, and stands alone there."""
    rows = [normals("a", 30, on(48)), normals("b", 20, on(48)), normals("c", 10, on(8))]
    latex = paper_table("normal", [*rows, normals("d", 15, on(48), "given boxes")]).latex()
    lines = {line[0]: line for line in latex.splitlines() if line[1:2] == " " and line[0] in "abcd"}
    assert {name for name, line in lines.items() if "textbf" in line} == {"b"}
    assert lines["a"].endswith(r"& 48 synthetic scenes, 128 x 96 \\") and "& 8 synthetic scenes" in lines["c"]
    assert "% c: 8 synthetic scenes, 128 x 96\n" in latex


def test_intervals_are_in_both_formats() -> None:
    about = on(48, checkpoint="normal=9021818f5eda300e", evaluation="evaluation=935c3ac5898d2597")
    table = paper_table("normal", [normals("tiny", 30, about)])
    ours = list(csv.DictReader(table.csv().splitlines()))[-1]
    assert (ours["mean (deg)"], ours["mean (deg)_low"], ours["mean (deg)_high"]) == ("30.00", "28.00", "32.00")
    assert ours["median (deg)"] == ours["median (deg)_low"] == "" and ours["test set"].startswith("48 synthetic scenes")
    assert (ours["checkpoint"], ours["evaluation"]) == (about.checkpoint, about.evaluation)
    lines = table.latex().splitlines()
    below = lines[next(k for k, line in enumerate(lines) if line.startswith("tiny &")) + 1]
    assert below == r"& {\scriptsize [28.00, 32.00]} &  &  &  &  & \\"
    assert table.section()["rows"][-1][1] == "30.00 (28.00 to 32.00)"


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_rows_are_marked_in_print(name: str) -> None:
    """What LaTeX prints, comments apart, has a dagger at every published row and says what it means."""
    latex = paper_table(name, [measured(name, "mine", {})]).latex()
    printed = [line for line in latex.splitlines() if not line.startswith("%")]
    marked = [line.split(" & ")[0] for line in printed if line.endswith(r"\\") and "dagger" in line]
    assert len(marked) == COUNTS[name] and not any("mine" in model for model in marked)
    (said,) = (line for line in printed if r"$^\dagger$ Published" in line)
    assert "on the paper's own test sets, not measured here" in said


def test_test_sets_are_told_apart() -> None:
    data = {"labelled": {"path": "/data/mine", "split": "test"}}
    mine = provenance(data, {"n_test": 2, "image_size": [128, 96]}, digest="aa", evaluation="evaluation=11")
    assert mine.test == "mine, split test, 2 labelled samples"
    moved = provenance({"labelled": {"path": "/old/mine", "split": "test"}}, {"n_test": 2}, digest="aa")
    other = provenance(data, {"n_test": 2}, digest="bb", evaluation="evaluation=2222222222")
    assert mine.alike == moved.alike != other.alike and other.test == mine.test
    rows = paper_table("normal", [normals("a", 1, mine), normals("b", 2, other), normals("c", 2, on(8))]).rows[-3:]
    assert [row.about.test for row in rows[:2]] == [f"{mine.test}, as in evaluation={v}" for v in ("11", "22222222")]
    assert rows[2].about.test == "8 synthetic scenes, 128 x 96"
    labels = provenance({"labelled": {"path": "labels=027aba8de0af59fe", "split": "val"}}, {"n_test": 1})
    assert labels.test == "labels=027aba8d, split val, 1 labelled sample"
    seeded = provenance({"scene_seed": 9}, {"n_test": 8, "image_size": [128, 96]})
    assert seeded.test.endswith(", from seed 9") and seeded.alike != on(8).alike
    probes = [provenance({"image_size": [64, 48], "n_train": n, "pictures": n}, {"n_test": 8}) for n in (16, 32)]
    assert probes[0].test == probes[1].test == "8 synthetic scenes, 64 x 48" and probes[0].alike != probes[1].alike


def test_letters_of_latex_are_escaped() -> None:
    latex = paper_table("normal", [measured("normal", r"a\b_{c}~", {})]).latex()
    assert r"a\textbackslash{}b\_\{c\}\textasciitilde{} & --" in latex
    names = ("[x] best", "*star", "<a>|b")  # the first two would be options of the row's end before them
    latex = paper_table("normal", [measured("normal", name, {}) for name in names]).latex()
    assert "\n{[}x] best & --" in latex and "\n{*}star & --" in latex
    assert r"\textless{}a\textgreater{}\textbar{}b & --" in latex


def person(image: str, visible: int, hidden: int, *, boxed: bool = True) -> Row:
    points = np.zeros((308, 3))
    body = keypoints().group("body")
    points[body[:visible], 2] = 2
    points[body[visible : visible + hidden], 2] = 1
    return Row(image=image, keypoints=points, box=(0, 0, 9, 9) if boxed else None)


def test_people_and_hidden_points_are_counted() -> None:
    rows = [person("a", 10, 0), person("a", 6, 6), *(person("b", 5, 1) for _ in range(4)), person("c", 2, 8)]
    bins = row_bins(rows, rows, "pose")
    assert bins["people"] == ["2", "2", *["3 to 5"] * 4, "1"]
    assert bins["occlusion"][:3] == ["nothing hidden", "25 to 50 % hidden", "up to 25 % hidden"]
    assert bins["occlusion"][-1] == "over 50 % hidden"
    masks = [Row(image="a", mask="a.png"), Row(image="d", mask="d.png")]
    bins = row_bins(masks, [*rows, *masks], "segmentation")
    assert bins == {"people": ["2", None], "occlusion": ["25 to 50 % hidden", None]}  # 6 of 22 are hidden
    assert hidden_share([]) is None
    scenes = [render(k, 64, 48) for k in range(6)]
    share = [(s.visibility[keypoints().group("body")] == 1).mean() > 0 for s in scenes]
    assert [b != "nothing hidden" for b in scene_bins(scenes)["occlusion"]] == share


def test_strata_are_the_metric_on_their_samples() -> None:
    """Errors 1, 1, 1 in the one bin and 5, 7 in the other; an axis with a single bin tells nothing."""
    sums = np.array([[1, 1], [1, 1], [5, 1], [1, 1], [7, 1]], float)
    ours, theirs = Headline("normal", sums), Headline("normal", 2 * sums * [1, 0.5])
    bins = {
        "people": ["1"] * 5,
        "occlusion": ["nothing hidden", "nothing hidden", "over 50 % hidden", "nothing hidden", "over 50 % hidden"],
    }
    easy, hard = by_stratum(bins, ours, theirs, rounds=50, seed=0)
    assert (easy.axis, easy.name, easy.samples, easy.model.value) == ("occlusion", "nothing hidden", 3, 1.0)
    assert (hard.name, hard.samples, hard.model.value, hard.baseline.value) == ("over 50 % hidden", 2, 6.0, 12.0)
    assert easy.picture is None
    easy, _ = by_stratum(bins, ours, theirs, Headline("normal", 3 * sums * [1, 1 / 3]), rounds=50, seed=0)
    assert easy.picture is not None and easy.picture.value == 3
    assert hard.model.low == 5 and hard.model.high == 7 and easy.model.low == easy.model.high == 1
