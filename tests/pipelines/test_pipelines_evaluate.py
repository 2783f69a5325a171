"""Evaluations of the store in a table in the paper's layout."""

import csv

import pytest

from components.artifacts import Artifact, Store
from components.manifest import CodeRef, Manifest
from components.settings import Settings
from pipelines.evaluate_command import run_evaluate, write_tables


def evaluation(store, version, **metrics):
    told = {"task": "normal", "model": "tiny", "image_size": [128, 96], **metrics}
    told["metrics"] = {"mean_deg": {"value": 20.0, "low": 19.0, "high": 21.0}}
    manifest = Manifest(
        kind="evaluation",
        version=version,
        step="evaluate-normal",
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


def test_what_is_no_table_or_no_evaluation_is_refused_before_any_work(tmp_path):
    root = str(tmp_path / "root")
    evaluation(Store(root), "a" * 16)
    with pytest.raises(ValueError, match=r"written as \.csv or \.tex, not as t\.xlsx"):
        run_evaluate("normal", (), ("t.xlsx",), (), root, Settings())
    with pytest.raises(ValueError, match="no evaluation of pose: name evaluation=VERSION"):
        run_evaluate("pose", (), ("t.csv",), ("evaluation=aaaa",), root, Settings())
