"""Bad input: exit code 2 and one line that names the thing and the mend, before any work."""

import pytest
from micro_runs import sapiens2, sapiens2_here

CASES = {
    "missing pool": (["run", "--pool", "/no/such/pool"], ["/no/such/pool does not exist", "give an existing folder"]),
    "empty pool": (["run", "--pool", "{empty}"], ["is empty", "give a folder with pictures"]),
    "unknown profile": (["run", "--profile", "huge"], ["unknown profile 'huge'", "builtin, small, full"]),
    "unknown key": (["run", "--set", "filter.min_persn_px=3"], ["filter.min_persn_px", "did you mean 'min_person_px'"]),
    "negative target": (["run", "--set", "balance.target_size=-5"], ["balance", "target_size=-5", "positive"]),
    "missing weights": (["run", "--pool", "{pool}", "--profile", "small"], ["yolox_nano", "SAPIENS2_MODELS"]),
    "unknown step": (["step", "filterr"], ["unknown step 'filterr'", "filter"]),
    "nothing to read": (["step", "detect"], ["detect needs images", "sapiens2 step ingest"]),
    "no such artifact": (["artifacts", "show", "nothing"], ["no artifact, tag or version 'nothing'"]),
    "unknown key of a step outside the run": (
        ["run", "--only", "curation", "--pool", "{pool}", "--set", "pretrain.bogus=1"],
        ["pretrain.bogus"],
    ),
    "bad --set": (["run", "--set", "filter"], ["step.field=value"]),
    "bad yaml": (["run", "--config", "{yaml}"], ["must map steps to fields"]),
    "a folder as --config": (["run", "--config", "{empty}"], ["{empty}: that is a folder"]),
    "a picture as --config": (["run", "--config", "{jpeg}"], ["photo.jpg is no text", "YAML"]),
    "a picture as labels of an audit": (["audit", "calibrate", "{jpeg}"], ["photo.jpg holds no labels of an audit"]),
    "nothing to label": (
        ["annotate", "export", "--to", "cvat", "--task", "pose", "--out", "{empty}/b"],
        ["no artifact, tag or version 'selection'"],
    ),
    "labels without their batch": (
        ["annotate", "import", "{yaml}", "--batch", "{empty}"],
        ["batch.json: is not there; give the folder that `sapiens2 annotate export` has written"],
    ),
    "unknown transform": (
        ["step", "finetune-pose", "--set", 'finetune.augment={{"rotat": 0.5}}'],
        ["no transform is called 'rotat'; use background"],
    ),
    "unknown task": (["train", "finetune", "--task", "poes"], ["'poes' is not one of 'pose', 'segmentation'"]),
    "task without finetune": (["train", "pretrain", "--task", "pose"], ["finetune needs --task"]),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_names_the_thing_and_the_mend(case, tmp_path, micro_pool):
    arguments, expected = CASES[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("filter\n")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 no text")
    places = {"empty": tmp_path / "empty", "pool": micro_pool, "yaml": tmp_path / "bad.yaml"}
    places["jpeg"] = tmp_path / "photo.jpg"
    filled = [argument.format(**places) for argument in arguments]
    done = sapiens2_here(*filled, root=tmp_path / "root", cwd=tmp_path, check=False, SAPIENS2_MODELS="")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for text in expected:
        assert text.format(**places) in done.stderr
    assert not (tmp_path / "root").exists()  # what is refused leaves nothing behind


def test_an_unwritable_root(tmp_path, micro_pool):
    (tmp_path / "file").write_text("in the way")
    done = sapiens2("run", "--pool", micro_pool, root=tmp_path / "file" / "root", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "cannot be written" in done.stderr and "--root" in done.stderr


def test_a_damaged_manifest_is_named(tmp_path, micro_run, micro_pool):
    import shutil

    root = tmp_path / "root"
    shutil.copytree(micro_run[0], root)
    (damaged,) = root.glob("detections/*/manifest.json")
    damaged.write_text(damaged.read_text()[:200])
    done = sapiens2("run", "--pool", micro_pool, "--preset", "micro", root=root, cwd=tmp_path, check=False)
    assert done.returncode == 2 and str(damaged) in done.stderr and "damaged" in done.stderr
    waiting = sapiens2_here(  # also when other steps have yet to run
        *("run", "--pool", micro_pool, "--preset", "micro", "--set", "filter.min_person_px=500"),
        root=root,
        cwd=tmp_path,
        check=False,
    )
    assert waiting.returncode == 2 and str(damaged) in waiting.stderr and "Traceback" not in waiting.stderr
    verified = sapiens2_here("artifacts", "verify", root=root, cwd=tmp_path, check=False)
    assert verified.returncode == 1 and "damaged" in verified.stdout and "selection=" in verified.stdout


def test_too_little_disk_is_said_before_the_work(tmp_path, monkeypatch):
    import collections
    import shutil

    from components.artifacts import Store
    from components.run_step import check_disk

    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**7, 10**7))
    with pytest.raises(ValueError, match=r"too little disk under .*: 0\.01 GB free.*--root"):
        check_disk(Store(str(tmp_path)))


def test_a_folder_that_shadows_our_packages_is_refused(tmp_path):
    (tmp_path / "curation").mkdir()
    done = sapiens2("run", root=tmp_path / "root", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "has the name of one of our packages" in done.stderr


def test_a_package_that_shadows_ours_is_refused_under_python_m(tmp_path):
    import os
    import subprocess
    import sys
    from pathlib import Path

    (tmp_path / "curation").mkdir()
    (tmp_path / "curation" / "__init__.py").write_text("")
    command = [sys.executable, "-m", "pipelines.cli", "artifacts", "list"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "has the name of one of our packages" in done.stderr


def test_an_object_store_out_of_reach_is_one_line(tmp_path):
    pool = "s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http"
    done = sapiens2("run", "--preset", "micro", "--pool", pool, root=tmp_path / "root", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "the object store failed" in done.stderr and "AWS_ENDPOINT_URL" in done.stderr


def test_a_pool_of_which_nothing_is_left_says_where_to_look(tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.txt").write_text("no picture")
    command = ("run", "--preset", "micro", "--pool", tmp_path / "pool")
    done = sapiens2(*command, root=tmp_path / "root", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "no picture of the pool is left to train on" in done.stdout + done.stderr


def test_a_target_beyond_the_supply_takes_all_and_says_so(tmp_path, micro_run):
    import shutil

    from components.artifacts import Store

    root = tmp_path / "root"
    shutil.copytree(micro_run[0], root)
    sapiens2_here("step", "balance", "--preset", "micro", "--set", "balance.target_size=1000", root=root, cwd=tmp_path)
    manifest = Store(str(root)).latest("selection").manifest
    assert manifest.metrics["kept"] == manifest.metrics["rows_in"]
    assert any("1000" in text for text in manifest.metrics["notes"])
