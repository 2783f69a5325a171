"""The launcher: the same run in this process, on a Ray worker that dies once, and on two that meet an error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "engine"))  # the toy objective

sys.path.insert(0, str(Path(__file__).parent / "pretrain"))  # shards made by code

import shard_files
from toy_run import toy_config

from sapiens2 import launch as launcher
from sapiens2 import worker_errors
from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.engine.loop import Diverged
from sapiens2.launch import launch
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.recipes import micro


def run(folder: Path, workers: int, **options: Any) -> dict[str, Any]:
    places = {"storage": str(folder / "ray"), "out": str(folder / "out"), "state": str(folder / "state")}
    settings = {"cpus_per_worker": 0.5} | options
    return launch("toy_target:run", toy_config(), workers=workers, **places, **settings)


def test_no_workers_means_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows: list[dict[str, Any]] = []
    options = {"workers": 0, "storage": "ray", "out": "there/out", "state": "there/state"}
    metrics = launch("toy_target:run", toy_config(), control=Control(on_row=rows.append, shows=False), **options)
    assert metrics == json.loads((tmp_path / "there" / "out" / "metrics.json").read_text())
    written = (tmp_path / "there" / "out" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == rows and rows[-1]["step"] == 20


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown training target 'pretrian': use one of pretrain, finetune"):
        launch("pretrian", toy_config(), workers=0, storage=str(tmp_path), out="o", state="s")
    with pytest.raises(ValueError, match="workers=-1 is negative: use 0"):
        run(tmp_path, -1)
    with pytest.raises(ValueError, match="no people in the shards"):
        run(tmp_path, 0, refuse="no people in the shards")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("a mend"), ValueError),
        (FileNotFoundError(2, "gone", "weights"), FileNotFoundError),
        (Diverged("nan"), Diverged),
        (ZeroDivisionError("division"), worker_errors.WorkerFailed),
    ],
)
def test_errors_keep_their_kind_across_processes(tmp_path: Path, error: Exception, kind: type[Exception]) -> None:
    error.add_note("in step 3 of 9")
    worker_errors.record(str(tmp_path), error)
    with pytest.raises(kind) as caught:
        worker_errors.raise_recorded(str(tmp_path))
    assert type(caught.value) is kind and str(error) in str(caught.value)
    assert caught.value.__notes__ == ["in step 3 of 9"]


def test_an_interruption_keeps_its_step(tmp_path: Path) -> None:
    worker_errors.record(str(tmp_path), Interrupted(7, 20, "s3://runs/state"))
    with pytest.raises(
        Interrupted, match=r"stopped after step 7 of 20; the state is saved in s3://runs/state"
    ) as error:
        worker_errors.raise_recorded(str(tmp_path))
    assert error.value.step == 7


def test_only_errors_that_may_pass_are_tried_again() -> None:
    assert worker_errors.is_final(ValueError(), 2) and worker_errors.is_final(FileNotFoundError(), 1)
    assert worker_errors.is_final(RuntimeError(), 1) and worker_errors.is_final(Diverged(), 2)
    assert not worker_errors.is_final(RuntimeError("connection closed by peer"), 2)
    assert not worker_errors.is_final(OSError("timed out"), 1)


@pytest.fixture(scope="module")
def ray_with_two_cpus() -> Iterator[None]:
    here = Path(__file__).parent
    before = dict(os.environ)
    launcher.prepare_environment(starts=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here.parents[1]), str(here / "engine")])
    os.environ.pop("RAY_ADDRESS", None)
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=300_000_000,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.timeout(180)
def test_a_killed_worker_is_replaced_and_the_run_ends_as_if_it_had_not_been(
    tmp_path: Path, ray_with_two_cpus: None
) -> None:
    rows: list[dict[str, Any]] = []
    metrics = run(tmp_path / "ray", 1, kill_at=12, control=Control(on_row=rows.append))
    # The state of step 10 may still have been on its way when step 12 killed the worker.
    assert (tmp_path / "ray" / "killed").exists() and metrics["resumed_from"] in (5, 10)
    assert metrics["digest"] == run(tmp_path / "here", 0)["digest"]
    assert rows[-1]["step"] == 20


@pytest.mark.timeout(180)
def test_pretraining_survives_a_worker_that_dies_while_it_saves(tmp_path: Path, ray_with_two_cpus: None) -> None:
    """Its files of step 4 are there, their marker is not: the run goes on from step 2."""
    files = shard_files.shards(tmp_path, 8)
    fields = micro().model_dump()
    fields["engine"] |= {"steps": 6, "checkpoint_every": 2, "threads": 1, "device": "cpu", "tensorboard": False}
    digests = []
    for workers in (1, 0):
        folder = tmp_path / str(workers)
        metrics = launch(
            "pretrain_target:run",
            PretrainConfig(**fields),
            workers=workers,
            storage=str(folder / "ray"),
            out=str(folder / "out"),
            state=str(folder / "state"),
            train_files=files,
            kill_at_save=4 if workers else 0,
            cpus_per_worker=0.5,
            control=Control(shows=False),
        )
        digests.append(metrics["digest"])
        assert (folder / "killed").exists() == bool(workers)
    assert digests[0] == digests[1]
    assert (tmp_path / "1" / "killed").read_text() == "2"


@pytest.mark.timeout(180)
def test_an_error_of_one_of_two_workers_ends_the_run_as_it_was_raised(tmp_path: Path, ray_with_two_cpus: None) -> None:
    with pytest.raises(ValueError, match="picture 7 of rank 1") as raised:
        run(tmp_path, 2, fail_at=6)
    assert str(raised.value) == "picture 7 of rank 1 cannot be read"
    assert raised.value.__notes__ == ["in step 7 of 20; the state of step 5 is kept, a rerun continues from it"]
    assert (tmp_path / "state" / "step_5").exists()
    assert (tmp_path / "store").read_text() == "127.0.0.1"  # and not every address of this machine
    with pytest.raises(ValueError, match="8 workers need 8 CPU, Ray has 2: use fewer workers"):
        run(tmp_path, 8, cpus_per_worker=1)


def test_only_counts_that_divide_the_batch_are_used() -> None:
    assert launcher._counts(SimpleNamespace(batch=64), 3, 9) == [4, 8]
    assert launcher._counts(SimpleNamespace(batch=64, engine=SimpleNamespace(micro_batches=16)), 1, 9) == [1, 2, 4]
    with pytest.raises(ValueError, match="batch=7 divides among no number of workers from 2 to 3: choose others"):
        launcher._counts(SimpleNamespace(batch=7), 2, 3)
    with pytest.raises(ValueError, match="min_workers=3 is above workers=2: lower it"):
        launch("toy_target:run", toy_config(), workers=2, min_workers=3, storage="s", out="o", state="s")
