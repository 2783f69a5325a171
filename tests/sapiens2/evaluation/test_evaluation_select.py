"""Selection: every kept checkpoint is probed, the best on validation scenes is chosen and reported on others."""

from __future__ import annotations

import base64
import csv
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sapiens2 import build_backbone, save_weights
from sapiens2.evaluation.candidates import best, candidates
from sapiens2.evaluation.frozen import load_backbone
from sapiens2.evaluation.probe import probe_backbone
from sapiens2.evaluation.recipes import micro_probe
from sapiens2.evaluation.select import select
from sapiens2.evaluation.tables import probe_rows
from sapiens2.pretrain.recipes import micro

FILES = ["config.json", "model.safetensors", "checkpoints/step_1.safetensors"]


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """(run, what selection wrote, its metrics) of a run of two steps with a checkpoint between them."""
    run, out = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("selected")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        for seed, name in enumerate(FILES[1:]):
            torch.manual_seed(seed)
            save_weights(build_backbone("tiny"), run / name)
        (run / "config.json").write_text(json.dumps({"config": micro().model_dump(mode="json")}))
        config = micro_probe().model_copy(update={"compare": ("timm:vit_tiny_patch16_224:random",)})
        metrics = select(config, run=str(run), files=FILES, out=str(out))
    return run, out, metrics


def test_the_best_on_validation_scenes_is_chosen(selected: tuple[Path, Path, dict[str, Any]]) -> None:
    _, out, metrics = selected
    told = metrics["candidates"]
    assert [each["file"] for each in told] == ["checkpoints/step_1.safetensors", "model.safetensors"]
    assert told[0]["score"] != told[1]["score"]
    assert metrics["chosen"]["score"] == max(each["score"] for each in told)
    assert metrics["last"]["file"] == "model.safetensors" and metrics["last"]["step"] == 2
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert [other["name"] for other in metrics["others"]] == ["timm:vit_tiny_patch16_224:random"]


def test_the_chosen_one_is_reported_on_the_test_split(selected: tuple[Path, Path, dict[str, Any]]) -> None:
    run, _, metrics = selected
    found = load_backbone(str(run / metrics["chosen"]["file"]))
    alone = probe_backbone(found, micro_probe())
    assert {key: figure["value"] for key, figure in metrics["metrics"].items()} == alone.main
    assert metrics["score"] == alone.score


def test_the_table_of_dense_probes_is_the_papers(selected: tuple[Path, Path, dict[str, Any]]) -> None:
    """Published rows, then ours with the values of the metrics in the paper's units."""
    _, out, metrics = selected
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    names = [f"tiny {metrics['chosen']['name']}", metrics["others"][0]["name"]]
    assert len(rows) == 15 and [row["model"] for row in rows[-2:]] == names
    assert {row["origin"] for row in rows[:-2]} == {"published"} and rows[-1]["checkpoint"] == "random weights"
    for row, told in zip(rows[-2:], (metrics, metrics["others"][0]), strict=True):
        assert row["normal mean (deg)"] == f"{told['metrics']['normal']['value']:.1f}"
        assert row["albedo MAE (e-2)"] == f"{100 * told['metrics']['albedo']['value']:.2f}"
        assert row["pointmap L2"] == f"{told['metrics']['pointmap']['value']:.3f}"
        assert row["seg. mIoU (%)"] == f"{100 * told['printed']['segmentation.mIoU']['value']:.1f}"
        # Absent classes count as 0 there, so it is less than the mean over those that occur.
        assert told["printed"]["segmentation.mIoU"]["value"] < told["metrics"]["segmentation"]["value"]
        known = [key for key in row if not re.search(r"pose|seg|within.*_|checkpoint|evaluation", key)]
        assert all(row[key] for key in known) and row["test set"] == f"{metrics['n_test']} synthetic scenes, 64 x 48"
        low, high = (told["metrics"]["normal"][end] for end in ("low", "high"))
        assert (row["normal mean (deg)_low"], row["normal mean (deg)_high"]) == (f"{low:.1f}", f"{high:.1f}")
    latex = (out / "table.tex").read_text()
    assert (
        latex.count(r" \\") == 18
        and latex.count(r"$^\dagger$ &") == 13
        and "Sapiens2-5B" in latex
        and names[0] in latex
    )
    fragment = json.loads((out / "fragment.json").read_text())
    assert fragment["sections"][-1]["rows"][-1][0] == names[1]
    with pytest.raises(ValueError, match="run `sapiens2 probe` again"):
        probe_rows({key: value for key, value in metrics.items() if key != "printed"})


def picture(item: dict[str, Any]) -> np.ndarray:
    """An item of a section of pictures, decoded."""
    found = cv2.imdecode(np.frombuffer(base64.b64decode(item["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return np.asarray(found)


def test_the_fragment_says_which_and_why(selected: tuple[Path, Path, dict[str, Any]]) -> None:
    _, out, metrics = selected
    fragment = json.loads((out / "fragment.json").read_text())
    sections = {section["title"]: section for section in fragment["sections"]}
    assert metrics["chosen"]["name"] in sections["Choice"]["body"]
    for title in ("Checkpoints on validation scenes", "Test scenes"):
        found = re.search(r"The picture itself, taken as albedo, has mae (0\.\d+)", sections[title]["note"])
        assert found and float(found[1]) > 0.01
    rows = sections["Checkpoints on validation scenes"]["rows"]
    assert [("chosen" in str(row[0])) for row in rows].count(True) == 1
    score = sections["Dense probes along the run"]["series"][0]
    assert score["x"] == [1, 2] and score["y"] == [each["score"] for each in metrics["candidates"]]
    shown = sections["Nearest neighbours by the class vector"]
    names = [each["name"] for each in metrics["others"]]
    assert len(shown["items"]) == 2 and len(names) == 1
    for item in shown["items"]:
        height, width = picture(item).shape[:2]  # a row for each backbone, six scenes and a gap in it
        assert height == 2 * 64 + 4 and width == 6 * 48 + 4
        assert re.search(rf"of 5, share the pose: \S.* [0-5], {re.escape(names[0])} [0-5]$", item["caption"])
    assert len(sections["Synthetic people"]["items"]) == 16


def test_candidates_are_those_that_the_recipe_keeps() -> None:
    recipe = micro()
    assert [c.name for c in candidates(recipe, FILES, "each")] == ["step 1", "last"]
    assert [c.step for c in candidates(recipe, FILES, "last")] == [2]
    with pytest.raises(ValueError, match=r"has no checkpoints/step_1\.safetensors"):
        candidates(recipe, FILES[:2], "each")


def test_of_equals_the_longest_trained_is_best() -> None:
    assert best([0.1, 0.3, 0.3, 0.2]) == 2 and best([0.5]) == 0
