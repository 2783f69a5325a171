"""An S3 that refuses, cuts connections or goes away while a version is published, a full disk, a clock that was moved,
a job that was forgotten: nothing lost, nothing half there, and the mend in a line."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))
from faulty_s3 import FaultyS3

from components import attempt as attempts
from components.artifacts import Store
from components.attempt import Attempt, Conflict, Lease
from components.job import JobFailed
from components.manifest import CodeRef, Manifest
from components.ray_jobs import Cancelled, cancellable, follow
from components.run_step import run_step
from components.settings import Settings
from components.steps import STEPS
from components.storage import StorageError, of_full_disk
from curation.stages.ingest import list_sources
from pipelines.sample_pool import build_sample_pool
from sapiens2.engine import patient_s3, storage

TABLE = pa.table({"image_id": [f"{i:032x}" for i in range(50)], "value": list(range(50))})


@pytest.fixture
def faults(s3_server, s3_root, monkeypatch):
    """The link to the S3 server, which stands between it and everything that opens a root from now on."""
    link = FaultyS3(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", link.url)
    yield link
    link.close()


def publish(root, version="00000000000000aa", partitions=4):
    """Write and commit a version of the kind `filtered`; the digest."""
    attempt = Attempt(root, "filtered", version)
    records = {pid: attempt.write_partition(pid, {"data": TABLE}, {}) for pid in map(str, range(partitions))}
    now = "2026-01-01T00:00:00.000+00:00"
    manifest = Manifest(
        kind="filtered",
        version=version,
        step="filter",
        revision=1,
        config={},
        recipe={},
        inputs=[],
        metrics={},
        models=[],
        code=CodeRef(package_version="0"),
        environment={},
        start=now,
        end=now,
    )
    artifact = attempt.publish(manifest, records, None, [])
    attempt.sweep()
    return artifact.manifest.digest


def test_a_store_that_answers_503_for_seconds_is_waited_for(faults, s3_root, tmp_path):
    calm = publish(str(tmp_path / "root"))
    faults.down_until = time.monotonic() + 8  # longer than pyarrow waits by itself
    assert publish(s3_root) == calm and faults.refused > 0


def test_cut_connections_lose_nothing(faults, s3_root, tmp_path):
    calm = publish(str(tmp_path / "root"), partitions=16)
    faults.drop = 0.1
    assert publish(s3_root, partitions=16) == calm and faults.dropped > 3
    storage.write_bytes(f"{s3_root}/state/a.bin", b"a checkpoint")
    assert [storage.read_bytes(f"{s3_root}/state/a.bin") for _ in range(10)] == [b"a checkpoint"] * 10


def test_a_store_that_goes_away_at_the_commit_leaves_no_version(faults, s3_root, tmp_path, monkeypatch):
    calm = publish(str(tmp_path / "root"))
    monkeypatch.setattr(patient_s3, "ATTEMPTS", 2)
    faults.hide, faults.hide_s = "/manifest.json", 3600
    with pytest.raises(OSError, match=r"503|SLOW_DOWN|SlowDown"):
        publish(s3_root)
    faults.down_until = 0.0
    store = Store(s3_root)
    assert not store.committed("filtered", "00000000000000aa") and store.versions("filtered") == []
    assert publish(s3_root) == calm
    assert len(store.get("filtered", "00000000000000aa").read()) == 200


@pytest.mark.parametrize("moved_by", [-86400, 86400])
def test_a_lease_whose_clock_was_moved_holds_as_long_as_it_beats(tmp_path, monkeypatch, moved_by):
    monkeypatch.setattr(attempts, "WATCH_SECONDS", 0.8)
    attempt = Attempt(str(tmp_path), "backbone", "00000000000000aa")
    path, storage, beating = f"{attempt.folder}/lease.json", attempt.store.storage, threading.Event()

    def beat():
        while not beating.wait(0.1):
            lease = {"host": "elsewhere", "pid": 1, "time": time.time() + moved_by}
            storage.write(path, json.dumps(lease).encode())

    holder = threading.Thread(target=beat)
    holder.start()
    while not storage.exists(path):
        time.sleep(0.01)
    with pytest.raises(Conflict, match="process 1 on elsewhere"), Lease(attempt, exclusive=True):
        pass
    beating.set()
    holder.join()
    with Lease(attempt, exclusive=True):  # it beats no more
        assert json.loads(storage.read(path))["host"] == socket.gethostname()


def test_a_store_out_of_reach_is_not_asked_for_its_lease_again(faults, s3_root, monkeypatch):
    monkeypatch.setattr(patient_s3, "ATTEMPTS", 2)
    attempt = Attempt(s3_root, "filtered", "00000000000000aa")
    with pytest.raises(OSError, match="AWS Error"), Lease(attempt, exclusive=False):
        faults.down_until = time.monotonic() + 3600
        attempt.store.storage.write("a", b"")
    refused = faults.refused
    assert 0 < refused < 4
    faults.down_until = 0.0
    with Lease(attempt, exclusive=True):  # this process held it
        pass


def resize(disk, size):
    """Give a tmpfs another size, in bytes: it is full when that is what it holds."""
    return subprocess.run(["mount", "-o", f"remount,size={size}", disk], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A folder that is a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_in_a_step_is_told_in_a_line_and_the_step_goes_on(disk, tmp_path):
    pool = build_sample_pool(tmp_path / "pool", size="micro")
    settings, step = Settings(preset="micro"), STEPS["ingest"]
    config = settings.config(step)
    listing = list_sources(str(pool), config)
    calm = run_step(step, config, {}, str(tmp_path / "calm"), source=listing).artifact.manifest.digest
    full = threading.Event()

    def fill():
        while not list(disk.glob("root/images/*/lease.json")):
            time.sleep(0.001)
        while not full.is_set():
            usage = os.statvfs(disk)
            resize(disk, (usage.f_blocks - usage.f_bfree) * usage.f_frsize)

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        with pytest.raises(StorageError, match=r"a disk is full: the root is .*/disk/root, 0\.00 GB free there"):
            run_step(step, config, {}, str(disk / "root"), source=listing)
    finally:
        full.set()
        filling.join()
    assert Store(str(disk / "root")).versions("images") == []
    assert resize(disk, 1 << 30)
    assert run_step(step, config, {}, str(disk / "root"), source=listing).artifact.manifest.digest == calm


def test_a_full_disk_is_known_behind_other_errors():
    with pytest.raises(OSError, match="No space left") as full, open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")
    wrapped = RuntimeError("a worker failed")
    wrapped.__cause__ = full.value
    assert of_full_disk(wrapped) and of_full_disk(RuntimeError("[Errno 28] No space left on device"))
    assert not of_full_disk(OSError(13, "Permission denied")) and not of_full_disk(None)


def test_a_job_that_its_cluster_has_forgotten_is_not_waited_for():
    def forgotten():
        raise RuntimeError("Request failed with status code 404: Job sapiens2-detect-1 does not exist.")

    with pytest.raises(JobFailed, match=r"does not know job sapiens2-detect-1 any more: .* the same command goes on"):
        follow(None, "sapiens2-detect-1", forgotten, 0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it is what happens here
def test_a_request_to_end_is_heard_though_its_exception_was_lost_in_a_finalizer():
    class Connection:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    asked = []

    def running():
        asked.append(Connection())
        asked[-1] = None
        assert len(asked) < 3, "the request to end was forgotten"
        return "RUNNING"

    with cancellable() as cancellation, pytest.raises(Cancelled):
        follow(None, "sapiens2-detect-1", running, 0.01, cancellation)
    assert len(asked) == 1


@pytest.mark.parametrize("agree", [True, False])
def test_a_run_that_another_overtakes_ends_with_what_that_one_made(any_root, tmp_path, monkeypatch, agree):
    pool = build_sample_pool(tmp_path / "pool", size="micro")
    settings = Settings(preset="micro", overrides={"ingest.workers": 0, "ingest.rows_per_partition": 8})
    config = settings.config(STEPS["ingest"])
    source = list_sources(str(pool), config)
    done, calls = Attempt.done, []

    def overtaken(self, stage="parts"):
        calls.append(stage)
        if len(calls) == 2:  # what was staged is about to be read: another run makes all of it, and sweeps
            first = run_step(STEPS["ingest"], config, {}, any_root, source=source).artifact
            assert len(calls) > 2
            if not agree:
                raise Conflict(f"{first} differs")
        return done(self, stage)

    monkeypatch.setattr(Attempt, "done", overtaken)
    if not agree:
        with pytest.raises(Conflict):
            run_step(STEPS["ingest"], config, {}, any_root, source=source)
        return
    outcome = run_step(STEPS["ingest"], config, {}, any_root, source=source)
    assert calls[:2] == ["staging", "staging"]
    store = Store(any_root)
    (artifact,) = store.all("images")
    assert (repr(outcome.artifact), outcome.reused) == (repr(artifact), False)
    assert artifact.rows("images") and store.latest("images").version == artifact.version
