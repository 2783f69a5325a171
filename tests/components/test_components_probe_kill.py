"""The probe step killed between backbones, on disk and on S3: the plan says what is left, the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from components.artifacts import Artifact, Store
from components.manifest import CodeRef, FileEntry, Manifest
from components.plan import plan
from components.progress import Progress
from components.run_step import run_step
from components.settings import Settings
from components.steps import STEPS
from sapiens2 import build_backbone, save_weights
from sapiens2.pretrain.recipes import micro

BACKBONE, STEP = "a" * 16, STEPS["probe"]
SETTINGS = Settings(preset="micro", overrides={"probe.pictures": 1})
RUN = """
import sys
from components.artifacts import Store
from components.run_step import run_step
from components.settings import Settings
from components.steps import STEPS
step, root = STEPS["probe"], sys.argv[1]
config = Settings(preset="micro", overrides={"probe.pictures": 1}).config(step)
run_step(step, config, {"backbone": Store(root).get("backbone", "a" * 16)}, root)
"""


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a pretraining run of two steps has written, with a checkpoint between them."""
    folder = tmp_path_factory.mktemp("run")
    written = {"config.json": json.dumps({"config": micro().model_dump(mode="json")}).encode()}
    for seed, name in enumerate(("model.safetensors", "checkpoints/step_1.safetensors")):
        torch.manual_seed(seed)
        save_weights(build_backbone("tiny"), folder / name)
        written[name] = (folder / name).read_bytes()
    return written


def backbone_in(store: Store, files: dict[str, bytes]) -> Artifact:
    entries = []
    for name, data in files.items():
        path = f"backbone/{BACKBONE}/out/{name}"
        store.storage.write(path, data)
        entries.append(FileEntry(path=path, bytes=len(data), sha256="0" * 64))
    about: dict[str, Any] = {"kind": "backbone", "version": BACKBONE, "step": "pretrain", "config": {}, "metrics": {}}
    more = {"code": CodeRef(package_version="0"), "start": "2026-01-01", "end": "2026-01-01", "inputs": []}
    manifest = Manifest(digest=None, files=entries, **about, **more)
    store.storage.write(f"backbone/{BACKBONE}/manifest.json", manifest.dump())
    return store.get("backbone", BACKBONE)


def probed(store: Store) -> dict[str, Any]:
    """What the step wrote, by name, without the time it took."""
    backbone = store.get("backbone", BACKBONE)
    made = run_step(STEP, SETTINGS.config(STEP), {"backbone": backbone}, store.root).artifact
    wrote: dict[str, Any] = {e.path: store.storage.read(e.path) for e in made.manifest.files}
    measured = next(path for path in wrote if path.endswith("/metrics.json"))
    metrics, manifest = json.loads(wrote[measured]), dict(made.manifest.metrics)
    del metrics["seconds"], manifest["seconds"]
    return wrote | {measured: metrics, "manifest": manifest}


def why(store: Store) -> str:
    (planned,) = plan((STEP,), SETTINGS, store, given={"backbone": store.get("backbone", BACKBONE)})
    return planned.why


def left(store: Store) -> list[str]:
    return [path for path, *_ in store.storage.list("evaluation", recursive=True) if "/work" in path]


@pytest.fixture(scope="module")
def calm(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        store = Store(str(tmp_path_factory.mktemp("calm")))
        backbone_in(store, files)
        yield probed(store)


class Killed(BaseException):
    """What no code catches."""


def test_a_killed_probe_goes_on(
    any_root: str,
    files: dict[str, bytes],
    calm: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = Store(any_root)
    backbone_in(store, files)
    assert why(store) == "not run yet"

    def dies(self: Progress, done: int, total: int, unit: str, note: str = "") -> None:
        if (done, total, unit) == (2, 3, "backbones"):
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Progress, "update", dies)
        probed(store)
    assert why(store) == "interrupted: 2 parts are done and stay"
    capsys.readouterr()
    again = probed(store)
    assert again == calm and "/3 backbones (2 measured before)" in capsys.readouterr().out
    assert not left(store)  # the commit sweeps them away
    assert [each["step"] for each in again["manifest"]["candidates"]] == [1, 2]


def test_kill_9_of_a_probe(tmp_path: Path, files: dict[str, bytes], calm: dict[str, Any]) -> None:
    store = Store(str(tmp_path))
    backbone_in(store, files)
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("evaluation/*/work/checkpoint_0.measured")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert why(store).startswith("interrupted: ")
    assert probed(store) == calm and not left(store)
