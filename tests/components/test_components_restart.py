"""Steps through the store: killed anywhere within, on any number of workers, or from remembered scores: one digest."""

import os
import shutil
import signal

import psutil
import pytest
from removal_roots import build_pool

from components import curation_steps
from components.artifacts import Store
from components.lineage import funnels
from components.run_step import run_step
from components.steps import STEPS
from components.storage import Storage
from curation.stages.detect import DetectConfig
from curation.stages.filter import FilterConfig
from curation.stages.ingest import IngestConfig, list_sources
from curation.stages.score import ScoreConfig

INGEST = IngestConfig(min_side_px=32, rows_per_partition=3, workers=0)
CHEAP = {"text": "none", "realism": "none", "faces": "none", "workers": 0}
NEW = ("builtin-embedding", "copy-descriptor")  # the scorers behind the gate


class Killed(BaseException):
    """Stands for a kill: nothing catches it, and nothing is written any more."""


@pytest.fixture
def pool(tmp_path):
    return build_pool(tmp_path / "pool")


def ingest(pool, root, config=INGEST):
    return run_step(STEPS["ingest"], config, {}, str(root), source=list_sources(str(pool), config)).artifact


def test_ingest_killed_at_any_moment_within_ends_as_a_calm_one(pool, tmp_path, monkeypatch):
    moments, digest = [], ingest(pool, tmp_path / "calm").manifest.digest

    def counted(self, path, data, original=Storage.write):
        if "/events/" not in f"/{path}" and not path.endswith("lease.json"):
            moments.append(path)
        return original(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", counted)
        ingest(pool, tmp_path / "counted")
    assert sum("/staging/" in m for m in moments) == 16 and sum("/parts/" in m for m in moments) == 16
    for moment in range(1, len(moments), 5):
        root, written = tmp_path / f"at{moment}", []

        def dying(self, path, data, original=Storage.write, written=written, moment=moment):
            if len(written) >= moment:
                raise Killed
            if "/events/" not in f"/{path}" and not path.endswith("lease.json"):
                written.append(path)
            return original(self, path, data)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Storage, "write", dying)
            ingest(pool, root)
        markers = {p: (root / p).stat().st_mtime_ns for p in written if p.endswith(".json")}
        assert Store(str(root)).versions("images") == [], moment
        done = []
        with monkeypatch.context() as patch:
            call = curation_steps._IngestWork.__call__
            patch.setattr(
                curation_steps._IngestWork,
                "__call__",
                lambda self, pid, payload, call=call, done=done: done.append(pid) or call(self, pid, payload),
            )
            assert ingest(pool, root).manifest.digest == digest, moment
        finished = {m.rsplit("/", 1)[1].removesuffix(".json") for m in markers if "/staging/" in m}
        assert not finished & set(done) and len(finished) + len(done) == 4  # what was done is not done again


@pytest.fixture(scope="module")
def ray_with_four_cpus():
    import ray

    from sapiens2.launch import prepare_environment

    prepare_environment(starts=True)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


@pytest.mark.timeout(300)
def test_two_and_four_workers_give_the_digest_of_one(pool, tmp_path, ray_with_four_cpus):
    alone = ingest(pool, tmp_path / "alone").manifest
    for workers in (2, 4):
        made = ingest(pool, tmp_path / f"of{workers}", INGEST.model_copy(update={"workers": workers})).manifest
        assert (made.version, made.digest) == (alone.version, alone.digest)


@pytest.mark.timeout(300)
def test_an_actor_killed_in_the_middle_of_a_partition_is_replaced(pool, tmp_path, monkeypatch, ray_with_four_cpus):
    """SIGKILL of a process of Ray Data's pool, its partition worked out, not yet written: the step goes on."""
    alone, died = ingest(pool, tmp_path / "alone").manifest, tmp_path / "died"

    class Dying(curation_steps._IngestWork):
        def __call__(self, pid, payload):
            made = super().__call__(pid, payload)
            if not died.exists():
                died.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            return made

    monkeypatch.setattr(curation_steps, "_IngestWork", Dying)
    made = ingest(pool, tmp_path / "killed", INGEST.model_copy(update={"workers": 2})).manifest
    assert int(died.read_text()) != os.getpid() and not psutil.pid_exists(int(died.read_text()))
    assert (made.version, made.digest) == (alone.version, alone.digest)


def measured(images, root, **score):
    """(scores, model calls) of a configuration, on detections that put a person on every other picture."""
    store = Store(str(root))
    detections = store.latest("detections") or detect(images, root)
    made = run_step(STEPS["score"], ScoreConfig(**score), {"images": images, "detections": detections}, str(root))
    calls = made.artifact.manifest.metrics["model_calls"]
    return made.artifact, {name: calls[name] for name in calls}


def detect(images, root):
    from components.attempt import Attempt
    from components.manifest import CodeRef, InputRef, Manifest
    from curation.tables import DETECTIONS, from_rows

    attempt = Attempt(str(root), "detections", "d" * 16)
    for pid in images.partitions("images"):
        ids = images.read_partition("images", pid, ["image_id"])["image_id"].to_pylist()
        sides = [30.0 if int(i, 16) % 2 else 10.0 for i in ids]
        rows = [
            {"image_id": i, "boxes": [[0, 0, side, 40]], "box_scores": [0.9], "refined": [False]}
            for i, side in zip(ids, sides)
        ]
        attempt.write_partition(pid, {"data": from_rows(rows, DETECTIONS)}, {})
    read = [InputRef(role="images", kind="images", version=images.version)]
    manifest = Manifest(
        **{"kind": "detections", "version": "d" * 16, "digest": None, "step": "detect", "start": "2026", "end": "2026"},
        config=DetectConfig().model_dump(mode="json"),
        inputs=read,
        metrics={"rows_in": 8, "kept": 8, "dropped": {}},
        code=CodeRef(package_version="0"),
    )
    made = attempt.publish(manifest, attempt.done(), None, [])
    Store(str(root)).tag("latest/detections", made)
    return made


def test_scores_are_made_once_and_reused_ones_equal_fresh_ones(pool, tmp_path):
    root, fresh = tmp_path / "root", tmp_path / "fresh"
    images = ingest(pool, root)
    detections = detect(images, root)
    big = sum(boxes[0][2] > 20 for boxes in detections.read()["boxes"].to_pylist())
    assert 0 < big < 8
    shutil.copytree(root, fresh)
    _, calls = measured(images, root, gate_min_person_px=20, **CHEAP)
    assert {calls[name] for name in NEW} == {big} and calls["builtin-quality"] == 8
    loose, calls = measured(images, root, gate_min_person_px=5, **CHEAP)
    assert {calls[name] for name in NEW} == {8 - big} and calls["builtin-quality"] == 0
    more, calls = measured(images, root, gate_min_person_px=5, **CHEAP | {"realism": "statistics"})
    assert calls.pop("builtin-realism") == 8 and set(calls.values()) == {0}
    for reused, settings in ((loose, CHEAP), (more, CHEAP | {"realism": "statistics"})):
        shutil.rmtree(fresh / "cache", ignore_errors=True)
        made, calls = measured(images, fresh, gate_min_person_px=5, **settings)
        assert set(calls.values()) == {8}
        assert (made.version, made.manifest.digest) == (reused.version, reused.manifest.digest)


def test_two_funnels_stand_side_by_side(pool, tmp_path):
    from click.testing import CliRunner

    from pipelines.cli import cli

    images = ingest(pool, tmp_path)
    detections = detect(images, tmp_path)
    scores, _ = measured(images, tmp_path, gate_min_person_px=5, **CHEAP)
    inputs = {"images": images, "detections": detections, "scores": scores}
    big = sum(boxes[0][2] > 20 for boxes in detections.read()["boxes"].to_pylist())
    easy = {"min_person_px": 5, "min_sharpness": None, "min_contrast": None, "max_flatness": None}
    old, new = (
        run_step(STEPS["filter"], FilterConfig(**easy | change), inputs, str(tmp_path)).artifact
        for change in ({}, {"min_person_px": 20})
    )
    rows = {(row.step, row.what): (row.old, row.new) for row in funnels(Store(str(tmp_path)), old, new)}
    assert rows["ingest", "not_an_image"] == (1, 1) and rows["ingest", "in"] == (10, 10)
    assert rows["filter", "kept"] == (8, big) and rows["filter", "person_too_small"] == (0, 8 - big)
    printed = CliRunner().invoke(cli, ["artifacts", "diff", repr(old), repr(new), "--root", str(tmp_path)]).output
    line = next(line.split() for line in printed.splitlines() if "- person_too_small" in line)
    assert line == ["-", "person_too_small", "0", str(8 - big), f"+{8 - big}"]
