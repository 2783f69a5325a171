"""Evaluations of the store in a table in the paper's layout."""

import csv

import pytest

from components.artifacts import Artifact, Store
from components.manifest import CodeRef, Manifest
from components.settings import Settings
from pipelines.evaluate_command import run_evaluate, run_probe, write_tables


def evaluation(store, version, step="evaluate-normal", **metrics):
    told = {"task": "normal", "model": "tiny", "image_size": [128, 96], **metrics}
    told["metrics"] = {"mean_deg": {"value": 20.0, "low": 19.0, "high": 21.0}}
    manifest = Manifest(
        kind="evaluation",
        version=version,
        step=step,
        config={},
        metrics=told,
        code=CodeRef(package_version="0"),
        start="2026-01-01",
        end="2026-01-01",
    )
    store.storage.write(f"evaluation/{version}/manifest.json", manifest.dump())
    return Artifact(store.storage, manifest)


def test_rows_of_several_evaluations(tmp_path):
    store = Store(str(tmp_path / "root"))
    made = [evaluation(store, "a" * 16), evaluation(store, "b" * 16, model="timm:vit")]
    write_tables("normal", made, [str(tmp_path / "t.csv"), str(tmp_path / "t.tex")])
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row[:2] for row in rows[-2:]] == [["tiny (aaaaaaaa)", "20.00"], ["timm:vit (bbbbbbbb)", "20.00"]]
    assert "tiny (aaaaaaaa) & \\textbf{20.00} & -- " in (tmp_path / "t.tex").read_text()


def probed(store, version, **printed):
    chosen, other = {"name": "step 400"}, {"name": "timm:vit", "printed": {"pose.AP": 0.5}}
    return evaluation(store, version, "probe", size="tiny", chosen=chosen, printed=printed, others=[other])


def test_rows_of_several_probes(tmp_path):
    """Each probe gives the row of its chosen checkpoint and those of what it was beside, in table 2."""
    store = Store(str(tmp_path / "root"))
    made = [probed(store, "a" * 16, **{"albedo.mae": 0.0412}), probed(store, "b" * 16, **{"normal.within_22.5": 0.75})]
    write_tables("probe", made, [str(tmp_path / "t.csv"), str(tmp_path / "t.tex")])
    head, *rows = csv.reader((tmp_path / "t.csv").read_text().splitlines())
    assert (
        len(rows) == 13 + 4
        and rows[-4][0] == "tiny step 400 (aaaaaaaa)"
        and rows[-1][:2] == ["timm:vit (bbbbbbbb)", "50.0"]
    )
    assert rows[-4][head.index("albedo MAE (e-2)")] == "4.12"
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
