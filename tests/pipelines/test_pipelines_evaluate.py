"""Evaluations of the store in a table in the paper's layout."""

import csv

import pytest

from components.artifacts import Artifact, Store
from components.manifest import CodeRef, InputRef, Manifest
from components.settings import Settings
from components.training_steps import _headline
from pipelines.evaluate_command import run_evaluate, run_probe, write_tables

FIGURES = {"mean_deg": {"value": 20.0, "low": 19.0, "high": 21.0}}


def evaluation(store, version, step="evaluate-normal", of="normal=cccccccccccc", labelled=None, **metrics):
    told = {"task": "normal", "model": "tiny", "image_size": [128, 96], "n_test": 48, "metrics": FIGURES, **metrics}
    kind, _, checkpoint = of.partition("=")
    role = "backbone" if step == "probe" else "checkpoint"
    return artifact(
        store,
        "evaluation",
        version,
        step=step,
        config={"labelled": labelled, "scene_seed": 0},
        metrics=told,
        inputs=[InputRef(role=role, kind=kind, version=checkpoint)],
    )


def artifact(store, kind, version, step, **more):
    manifest = Manifest(
        kind=kind,
        version=version,
        step=step,
        **more,
        code=CodeRef(package_version="0"),
        start="2026-01-01",
        end="2026-01-01",
    )
    store.storage.write(f"{kind}/{version}/manifest.json", manifest.dump())
    return Artifact(store.storage, manifest)


def test_rows_of_several_evaluations(tmp_path):
    store = Store(str(tmp_path / "root"))
    made = [evaluation(store, "a" * 16), evaluation(store, "b" * 16, model="timm:vit")]
    write_tables("normal", made, [str(tmp_path / "t.csv"), str(tmp_path / "t.tex")])
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row[:2] for row in rows[-2:]] == [["tiny (cccccccc)", "20.00"], ["timm:vit (cccccccc)", "20.00"]]
    assert "tiny (cccccccc) & \\textbf{20.00} & -- " in (tmp_path / "t.tex").read_text()


def test_rows_of_unlike_test_sets_say_which(tmp_path, capsys):
    """One checkpoint on three test sets: every row names its own and the checkpoint, and none is best of all."""
    store = Store(str(tmp_path / "root"))
    best = {"mean_deg": {"value": 10.0, "low": 9.0, "high": 11.0}}
    made = [
        evaluation(store, "a" * 16),
        evaluation(store, "b" * 16, n_test=8, metrics=best),
        evaluation(store, "d" * 16, n_test=2, labelled={"path": "/data/mine", "split": "test"}),
    ]
    write_tables("normal", made, [str(tmp_path / "t.csv"), str(tmp_path / "t.tex")])
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))[-3:]
    tests = ["48 synthetic scenes, 128 x 96", "8 synthetic scenes, 128 x 96", "mine, split test, 2 labelled samples"]
    assert [row["test set"] for row in rows] == tests and {row["checkpoint"] for row in rows} == {"normal=cccccccccccc"}
    assert [row["evaluation"] for row in rows] == [f"evaluation={letter * 16}" for letter in "abd"]
    assert (rows[1]["mean (deg)_low"], rows[1]["mean (deg)_high"]) == ("9.00", "11.00")
    ours = (tmp_path / "t.tex").read_text().split("\\midrule")[-1].split("\\bottomrule")[0]
    assert "textbf" not in ours and all(f"& {test} \\\\" in ours for test in tests)
    assert "[9.00, 11.00]" in ours and ours.count("tiny (cccccccc)") == 3
    assert f"these rows are of 3 test sets: {'; '.join(tests)}" in capsys.readouterr().out


def test_given_boxes_have_their_row(tmp_path):
    """As in the table that the evaluation itself holds."""
    store = Store(str(tmp_path / "root"))
    boxes = {
        name: {"AP": {"value": value, "low": 0, "high": 1}} for name, value in (("given", 0.25), ("labelled", 0.5))
    }
    told = {"task": "pose", "metrics": boxes["labelled"], "boxes": boxes}
    write_tables(
        "pose", [evaluation(store, "a" * 16, "evaluate-pose", "pose=cccccccccccc", **told)], [str(tmp_path / "t.csv")]
    )
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))[-2:]
    assert [row[:3] for row in rows] == [
        ["tiny (cccccccc)", "128 x 96", "50.0"],
        ["tiny (cccccccc), given boxes", "128 x 96", "25.0"],
    ]


def test_albedo_is_told_beside_the_picture_itself():
    figures = {name: {"mae": {"value": value}} for name, value in (("baseline", 0.19), ("picture", 0.095))}
    told = _headline({"main": "mae", "value": 0.081, **figures})
    assert told == "mae 0.081, mean map 0.190, the picture itself 0.095"
    assert _headline({"main": "mae", "value": 0.081, "baseline": figures["baseline"]}) == "mae 0.081, mean map 0.190"
    nothing = {"main": "mae", "value": None, "baseline": {"mae": {"value": None}}}
    assert _headline(nothing) == "mae not measured, mean map not measured"


def probed(store, version, **printed):
    chosen, other = {"name": "step 400"}, {"name": "timm:vit", "printed": {"pose.AP": 0.5}}
    return evaluation(
        store,
        version,
        "probe",
        f"backbone={version[::-1]}",
        size="tiny",
        chosen=chosen,
        printed=printed,
        others=[other],
    )


def test_rows_of_several_probes(tmp_path):
    """Each probe gives the row of its chosen checkpoint and those of what it was beside, in table 2."""
    store = Store(str(tmp_path / "root"))
    made = [probed(store, "a" * 16, **{"albedo.mae": 0.0412}), probed(store, "b" * 16, **{"normal.within_22.5": 0.75})]
    write_tables("probe", made, [str(tmp_path / "t.csv"), str(tmp_path / "t.tex")])
    head, *rows = csv.reader((tmp_path / "t.csv").read_text().splitlines())
    assert len(rows) == 13 + 4 and rows[-4][0] == "tiny step 400 (aaaaaaaa)" and rows[-1][:2] == ["timm:vit", "50.0"]
    assert (tmp_path / "t.tex").read_text().count("$^\\dagger$ &") == 13
    assert rows[-4][head.index("albedo MAE (e-2)")] == "4.12"
    assert rows[-1][head.index("evaluation")] == f"evaluation={'b' * 16}"
    assert rows[-2][head.index("normal within 22.5 deg (%)")] == "75.0"
    with pytest.raises(ValueError, match="no evaluation of normal: name evaluation=VERSION"):
        run_evaluate("normal", (), ("t.csv",), ("evaluation=aaaa",), str(tmp_path / "root"), Settings())
    evaluation(store, "c" * 16)
    with pytest.raises(ValueError, match="no evaluation of probe: name evaluation=VERSION"):
        run_probe((), ("t.csv",), ("evaluation=cccc",), str(tmp_path / "root"), Settings())
    with pytest.raises(ValueError, match=r"written as \.csv or \.tex, not as t\.md"):
        run_probe((), ("t.md",), (), str(tmp_path / "root"), Settings())


def test_what_is_no_table_or_no_evaluation_is_refused_before_any_work(tmp_path):
    root = str(tmp_path / "root")
    evaluation(Store(root), "a" * 16)
    with pytest.raises(ValueError, match=r"written as \.csv or \.tex, not as t\.xlsx"):
        run_evaluate("normal", (), ("t.xlsx",), (), root, Settings())
    with pytest.raises(ValueError, match="no evaluation of pose: name evaluation=VERSION"):
        run_evaluate("pose", (), ("t.csv",), ("evaluation=aaaa",), root, Settings())


def test_what_is_no_task_is_told_the_tasks(tmp_path):
    with pytest.raises(
        ValueError, match="unknown task 'nosuch'; the tasks are pose, segmentation, normal, pointmap, alb"
    ):
        run_evaluate("nosuch", (), (), (), str(tmp_path / "root"), Settings())


def test_a_checkpoint_of_another_task_is_refused_by_its_name(tmp_path):
    root, version = str(tmp_path / "root"), "9021818f5eda300e"
    artifact(Store(root), "normal", version, "finetune-normal", config={})
    for given in ("normal=9021818f", "9021"):
        with pytest.raises(ValueError, match=f"pose is evaluated on a pose checkpoint, and normal={version} was given"):
            run_evaluate("pose", (given,), (), (), root, Settings())
    with pytest.raises(ValueError, match=f"probe reads a backbone, and normal={version} was given: name backbone=VER"):
        run_probe(("normal=9021",), (), (), root, Settings())
    with pytest.raises(ValueError, match="albedo is evaluated on an albedo checkpoint"):
        run_evaluate("albedo", ("normal=9021",), (), (), root, Settings())
