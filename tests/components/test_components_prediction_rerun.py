"""Runs that are killed and run again, with other settings or the same: no file of one is taken for another's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from components.prediction import worker as module
from components.prediction.boxes import choose_detector, read_boxes
from components.prediction.inputs import ANSWERS, list_inputs
from components.prediction.run import make_job, predict_all
from components.prediction.worker import PredictWorker
from components.storage import Storage
from pipelines.cli import cli
from sapiens2.data.synthetic import render
from sapiens2.model.weights import save_weights
from sapiens2.tasks.build import build_task
from sapiens2.tasks.head_specs import TaskName


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of two untrained models of normals that answer differently, and of one of points."""
    root = tmp_path_factory.mktemp("models")
    kinds: list[tuple[str, TaskName, int]] = [("one", "normal", 1), ("other", "normal", 2), ("pointmap", "pointmap", 1)]
    for name, task, seed in kinds:
        torch.manual_seed(seed)
        save_weights(build_task(task, "tiny"), root / name / "model.safetensors")
        about = {"task": task, "size": "tiny", "image_size": [64, 48]}
        (root / name / "config.json").write_text(json.dumps(about))
    return {name: str(root / name) for name in ("one", "other", "pointmap")}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three pictures."""
    here = tmp_path / "pictures"
    here.mkdir()
    for k, name in enumerate("abc"):
        Image.fromarray(render(k, 96, 72).image).save(here / f"{name}.png")
    return here


def run(model: str, pictures: Path, out: Path, task: str = "normal", **options: Any) -> dict[str, Any]:
    job = make_job(task, model, str(out), device="cpu", **options)
    return predict_all(job, list_inputs(str(pictures), str(out)))


def normals(out: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted((out / "data").glob("*.npz")):
        with np.load(path) as arrays:
            found[path.stem] = arrays["normals"]
    return found


def files(out: Path) -> set[str]:
    return {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}


def dying(at: int, die: Callable[[], None]) -> Callable[[Storage, str, bytes], None]:
    """`Storage.write` that dies in place of write number `at`."""
    left, write = [at], Storage.write

    def until_then(self: Storage, relative: str, data: bytes) -> None:
        left[0] -= 1
        if not left[0]:
            die()
        write(self, relative, data)

    return until_then


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("at", range(1, 7))
def test_a_kill_at_any_write_leaves_no_record_for_another_runs_files(
    at: int, models: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with another checkpoint dies after 0 to 5 writes: begun, npz, png, overlay, done."""
    out = tmp_path / "out"
    (pictures / "c.png").unlink()
    run(models["one"], pictures, out)
    first = normals(out)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", dying(at, interrupted))
        with pytest.raises(KeyboardInterrupt):
            run(models["other"], pictures, out)
    kept = run(models["one"], pictures, out)["counts"]["kept"]
    assert kept == (2 if at == 1 else 1)
    again = normals(out)
    assert set(again) == {"a", "b"}
    for name in again:  # but for what a batch of another size changes
        np.testing.assert_allclose(first[name], again[name], atol=2e-3)
    run(models["other"], pictures, tmp_path / "other")
    assert all(np.abs(first[name] - other).max() > 0.1 for name, other in normals(tmp_path / "other").items())


def test_files_of_an_earlier_run_go_when_the_picture_has_others(
    models: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, given = tmp_path / "out", tmp_path / "boxes.json"
    run(models["one"], pictures, out)
    given.write_text(json.dumps({"b.png": [[10, 5, 60, 90]]}))
    summary = run(models["one"], pictures, out, boxes=read_boxes(str(given)))
    assert summary["counts"]["no_person"] == 2
    tops = {"predictions.json", "predictions.parquet"}
    records = {f"records/{name}.json" for name in "abc"}
    of_b = {"data/b.npz", "data/b.png", "overlays/b.jpg"}
    assert files(out) == tops | records | of_b and {name.split("/")[0] for name in files(out)} <= set(ANSWERS)
    (out / "data" / "b.txt").write_text("the user's own")
    with monkeypatch.context() as patch:  # dies before the last file of another task, whose files it then finds
        patch.setattr(Storage, "write", dying(4, interrupted))
        with pytest.raises(KeyboardInterrupt):
            run(models["pointmap"], pictures, out, "pointmap", boxes=read_boxes(str(given)))
    run(models["pointmap"], pictures, out, "pointmap", boxes=read_boxes(str(given)))
    assert files(out) == tops | records | {"data/b.npz", "data/b.ply", "overlays/b.jpg", "data/b.txt"}
    run(models["pointmap"], pictures, out, "pointmap", boxes=read_boxes(str(given)), overlays=False)
    assert files(out) == tops | records | {"data/b.npz", "data/b.ply", "data/b.txt"}
    (pictures / "b.png").write_bytes((pictures / "b.png").read_bytes()[:600])
    assert run(models["one"], pictures, out)["counts"]["unreadable"] == 1
    assert "data/b.txt" in files(out) and not {"data/b.npz", "data/b.ply"} & files(out)


def test_the_same_on_an_object_store(models: Any, pictures: Path, tmp_path: Path, s3_root: str) -> None:
    given = tmp_path / "boxes.json"
    predict_all(make_job("normal", models["one"], s3_root), list_inputs(str(pictures), s3_root))
    given.write_text("{}")
    job = make_job("normal", models["one"], s3_root, boxes=read_boxes(str(given)))
    assert predict_all(job, list_inputs(str(pictures), s3_root))["counts"]["no_person"] == 3
    left = {path for path, is_file, *_ in Storage(s3_root).list("", recursive=True) if is_file}
    assert left == {"predictions.json", "predictions.parquet", *(f"records/{name}.json" for name in "abc")}


KILLED = """
import os, signal, sys
from components.storage import Storage
write, left = Storage.write, [int(sys.argv.pop(1))]
def until_then(self, relative, data):
    left[0] -= relative.startswith("data/")
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, relative, data)
Storage.write = until_then
from pipelines.cli import main
main()
"""


def test_a_killed_process_is_gone_on_with(models: Any, pictures: Path, tmp_path: Path) -> None:
    """`sapiens2 predict` gets a SIGKILL before the second of the two data files of the second picture."""
    out = tmp_path / "out"
    command = ["predict", "normal", "--images", str(pictures), "--out", str(out), "--checkpoint", models["one"]]
    options = ["--boxes", "none", "--device", "cpu", "--batch", "1"]
    here = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    dead = subprocess.run([sys.executable, "-c", KILLED, "4", *command, *options], env=here, capture_output=True)
    assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
    assert not (out / "predictions.json").exists()
    before = {p: p.stat().st_mtime_ns for p in (out / "data").glob("a.*")}
    counts = run(models["one"], pictures, out)["counts"]
    assert (counts["kept"], counts["done"], counts["pictures"]) == (1, 3, 3)
    assert len(before) == 2 and {p: p.stat().st_mtime_ns for p in before} == before
    data = {f"data/{name}.{end}" for name in "abc" for end in ("npz", "png")}
    shown = {f"overlays/{name}.jpg" for name in "abc"} | {f"records/{name}.json" for name in "abc"}
    assert files(out) == data | shown | {"predictions.json", "predictions.parquet"}
    assert run(models["one"], pictures, out)["counts"]["kept"] == 3


def test_answers_below_the_pictures_are_no_pictures(models: Any, pictures: Path) -> None:
    out = pictures / "answers"
    for kept in (0, 3):
        counts = run(models["one"], pictures, out)["counts"]
        assert (counts["pictures"], counts["done"], counts["kept"]) == (3, 3, kept)
    command = ["predict", "normal", "--images", str(pictures), "--out", str(out), "--checkpoint", models["one"]]
    assert CliRunner().invoke(cli, [*command, "--boxes", "none", "--device", "cpu"]).exit_code == 0
    assert json.loads((out / "predictions.json").read_text())["counts"]["pictures"] == 3
    beside = pictures / "answers-2"
    beside.mkdir()
    Image.fromarray(render(5, 96, 72).image).save(beside / "d.png")
    assert list_inputs(str(pictures), str(out)).names == ["a.png", "answers-2/d.png", "b.png", "c.png"]
    (pictures / "link").symlink_to(out)
    assert "answers/data/a.png" not in list_inputs(str(pictures), str(pictures / "link")).names
    for wrong, where in ((out, out), (out / "data", out), (out / "data" / "a.png", out), (pictures, pictures)):
        with pytest.raises(ValueError, match="lie where the answers are written"):
            list_inputs(str(wrong), str(where))
    for path in pictures.glob("?.png"):
        path.unlink()
    (beside / "d.png").unlink()
    (pictures / "link").unlink()
    with pytest.raises(ValueError, match=r"lies in .*, where the answers go"):
        list_inputs(str(pictures), str(out))


def test_answers_below_the_pictures_of_an_object_store(s3_root: str) -> None:
    store = Storage(s3_root)
    for name in ("a.png", "answers/data/a.png", "answers.png"):
        store.write(name, b"x")
    assert list_inputs(s3_root, f"{s3_root}/answers/").names == ["a.png", "answers.png"]
    with pytest.raises(ValueError, match="lie where the answers are written"):
        list_inputs(s3_root, f"{s3_root}/")


@pytest.mark.parametrize(("chosen", "expected"), [(None, "meta"), ("cuda:1", "cuda:1")])
def test_the_detector_works_where_the_model_does(
    chosen: str | None, expected: str, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sapiens2.tasks.load.load_task", lambda *_, **__: torch.nn.Linear(1, 1, device="meta"))
    monkeypatch.setattr(
        "curation.models.person_detector.build_person_detector", lambda *_, **options: asked.append(options["device"])
    )
    detector = choose_detector("builtin", None, *([chosen] if chosen else []))
    job = make_job("normal", models["one"], str(tmp_path / "out"), detector=detector)
    PredictWorker(job)
    assert asked == [expected]
    elsewhere = make_job("normal", models["one"], str(tmp_path), detector=choose_detector("builtin", None, "cuda"))
    assert job.settings() == elsewhere.settings()
