"""An S3 that refuses, cuts connections or goes away while a version is published: nothing lost, nothing half there."""

import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))
from faulty_s3 import FaultyS3

from components.artifacts import Store
from components.attempt import Attempt
from components.manifest import CodeRef, Manifest
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
    calm = publish(str(tmp_path / "root"), partitions=8)
    faults.drop = 0.1
    assert publish(s3_root, partitions=8) == calm and faults.dropped > 3
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
