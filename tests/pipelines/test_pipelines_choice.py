"""Fine-tuning starts from what was chosen, whatever was probed since."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from micro_runs import sapiens2_here

from components.artifacts import ArtifactError, Store
from components.plan import plan
from components.settings import Settings
from components.steps import STEPS
from pipelines.compile import compile_pipeline
from pipelines.submission import arguments_for

STEP = STEPS["finetune-pose"]


def test_a_probe_of_the_last_checkpoint_takes_nothing_from_the_choice(micro_run, tmp_path: Path) -> None:
    root = Path(shutil.copytree(micro_run[0], tmp_path / "root"))
    store, settings = Store(str(root)), Settings(preset="micro")
    (before,) = plan((STEP,), settings, store)
    sapiens2_here("probe", "--preset", "micro", "--set", "probe.n_val=2", root=root, cwd=tmp_path)
    looked = store.latest(STEPS["probe"].latest_name)
    assert looked is not None and looked.version != before.inputs["probe"]
    (after,) = plan((STEP,), settings, store)
    assert before.reused and after.reused and after.inputs == before.inputs
    package = compile_pipeline("stage:finetune-pose", tmp_path / "stage.yaml")
    more = {"pool": None, "given": {}, "code_version": "test", "steps": (STEP,)}
    sent = arguments_for(package, settings, str(root), explicit={}, **more)
    assert sent["probe_manifest"].endswith(f"{before.inputs['probe']}/manifest.json")
    with pytest.raises(ArtifactError, match="looked at the last checkpoint only and chose none"):
        plan((STEP,), settings, store, given={"probe": looked})  # said before anything runs
    chosen = store.get("evaluation", before.inputs["probe"])
    shutil.rmtree(root / chosen.folder)
    with pytest.raises(ArtifactError, match="looked at the last checkpoint only and chose none"):
        plan((STEP,), settings, store)


def test_a_batch_of_labels_without_a_test_picture_says_so(micro_run, tmp_path: Path) -> None:
    """Of few groups a draw can leave none on one side."""
    export = ("annotate", "export", "--to", "coco", "--task", "pose", "--test-share", "0.000001")
    told = sapiens2_here(*export, "--out", "a", root=micro_run[0], cwd=tmp_path).stdout
    assert "none is for test: each group" in told
    told = sapiens2_here(*export[:-1], "0", "--out", "b", root=micro_run[0], cwd=tmp_path).stdout
    assert "none is for" not in told  # as asked
