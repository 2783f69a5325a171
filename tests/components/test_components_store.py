"""The store, on disk and on S3: commits, partitions, tags, conflicts, damage, garbage."""

import json
import os
import socket
import time

import pyarrow as pa
import pytest

from components.artifacts import ArtifactError, Store
from components.attempt import Attempt, Conflict, Lease, live_lease
from components.digest import add_digests, table_digest
from components.lineage import ancestors, changed_decisions, descendants, diff
from components.manifest import CodeRef, InputRef, Manifest
from components.upkeep import collect, garbage, verify

IMAGES = [InputRef(role="images", kind="images", version="i1")]

TABLE = pa.table({"image_id": ["a", "b", "c"], "keep": [True, False, True], "reason": [None, "small", None]})


def manifest(kind="filtered", version="v1", inputs=(), **more):
    base = {"kind": kind, "version": version, "step": kind, "config": {}, "digest": None}
    code = CodeRef(package_version="0")
    return Manifest(**base, inputs=list(inputs), code=code, start="2026-01-01T00:00:00", end=f"2026-{version}", **more)


def commit(root, kind="filtered", version="v1", table=TABLE, inputs=(), **more):
    attempt = Attempt(root, kind, version)
    half = table.num_rows // 2
    for pid, part in (("p0", table.slice(0, half)), ("p1", table.slice(half))):
        attempt.write_partition(pid, {"data": part}, {"rows": part.num_rows})
    return attempt.publish(manifest(kind, version, inputs, **more), attempt.done(), None, [])


def test_a_commit_reads_back_whole(any_root):
    artifact = commit(any_root)
    assert artifact.read().to_pylist() == TABLE.to_pylist()
    assert artifact.read(columns=["keep"]).column_names == ["keep"]
    assert artifact.manifest.digest == add_digests([table_digest(TABLE)])
    assert artifact.rows() == 3
    assert list(artifact.partitions("data")) == ["p0", "p1"]
    assert Store(any_root).versions("filtered") == ["v1"]
    assert verify(Store(any_root), artifact) == []


def test_nothing_is_seen_before_the_manifest(any_root):
    attempt = Attempt(any_root, "filtered", "v1")
    attempt.write_partition("p0", {"data": TABLE}, {})
    store = Store(any_root)
    assert store.versions("filtered") == []
    with pytest.raises(ArtifactError, match="there is no filtered of version v1"):
        store.get("filtered", "v1")
    assert list(Attempt(any_root, "filtered", "v1").done()) == ["p0"]


def test_leftovers_of_another_attempt_are_not_read_and_swept(any_root):
    dead = Attempt(any_root, "filtered", "v1")
    storage = Store(any_root).storage
    storage.write(f"{dead.folder}/parts/p0-{dead.name}.parquet", b"half a file")
    artifact = commit(any_root)
    assert artifact.read().num_rows == 3
    dead.sweep()
    left = [path for path, is_file, _, _ in storage.list(dead.folder, recursive=True) if is_file]
    assert sorted(left) == sorted([entry.path for entry in artifact.manifest.files] + [f"{dead.folder}/manifest.json"])


def test_the_first_manifest_wins_and_another_digest_fails_loudly(any_root):
    first = commit(any_root)
    assert commit(any_root).manifest == first.manifest
    attempt = Attempt(any_root, "filtered", "v1")
    record = attempt.write_partition("p0", {"data": TABLE.slice(0, 1)}, {})
    with pytest.raises(Conflict, match="not deterministic"):
        attempt.publish(manifest(), {"p0": record}, None, [])


def test_find_by_kind_tag_prefix_and_its_errors(any_root):
    commit(any_root, version="aa11")
    artifact = commit(any_root, version="ab22")
    store = Store(any_root)
    store.tag("best", artifact)
    store.tag("latest/filtered", artifact)
    for reference in ("filtered=ab22", "filtered", "best", "ab"):
        assert store.find(reference).version == "ab22"
    with pytest.raises(ArtifactError, match="ambiguous"):
        store.find("filtered=a")
    with pytest.raises(ArtifactError, match="no artifact, tag or version 'nothing'"):
        store.find("nothing")
    with pytest.raises(ArtifactError, match="no name for a tag"):
        store.tag("../escape", artifact)


def test_damage_is_named(tmp_path):
    root = str(tmp_path)
    artifact = commit(root)
    part = tmp_path / artifact.manifest.files[0].path
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    assert "other bytes" in verify(Store(root), artifact)[0]
    part.unlink()
    assert "missing" in verify(Store(root), artifact)[0]
    where = tmp_path / "filtered/v1/manifest.json"
    where.write_text(where.read_text()[:100])
    with pytest.raises(ValueError, match=r"manifest .*filtered/v1/manifest.json is damaged"):
        Store(root).get("filtered", "v1")


def test_a_manifest_of_a_newer_version_is_refused(tmp_path):
    commit(str(tmp_path))
    where = tmp_path / "filtered/v1/manifest.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"manifest_version": 99}))
    with pytest.raises(ValueError, match="update the package"):
        Store(str(tmp_path)).get("filtered", "v1")


def test_lineage_both_ways_and_diff(tmp_path):
    root = str(tmp_path)
    commit(root, "images", "i1")
    old = commit(root, "filtered", "f1", inputs=IMAGES, recipe={"px": 1})
    changed = TABLE.set_column(1, "keep", [[True, True, False]]).set_column(2, "reason", [[None, None, "dark"]])
    new = commit(root, "filtered", "f2", changed, IMAGES, recipe={"px": 2})
    store = Store(root)
    assert list(ancestors(store, [new])) == [("images", "i1"), ("filtered", "f2")]
    assert set(descendants(store, store.get("images", "i1"))) == {
        ("images", "i1"),
        ("filtered", "f1"),
        ("filtered", "f2"),
    }
    assert ("px", 1, 2) in diff(old, new)["recipe"]
    assert changed_decisions(old, new) == {"dropped (small) -> kept": ["b"], "kept -> dropped (dark)": ["c"]}


def test_a_diff_names_the_rule_that_differs_and_not_the_time_it_took(tmp_path):
    def metrics(bound, seconds):
        rules = [{"name": "flat", "bound": 0.9}, {"name": "person_too_small", "bound": bound}]
        return {"rules": rules, "seconds": seconds, "kept": 3}

    old = commit(str(tmp_path), version="f1", metrics=metrics(384, 0.1))
    new = commit(str(tmp_path), version="f2", metrics=metrics(256, 0.2))
    assert diff(old, new)["metrics"] == [("rules.person_too_small.bound", 384, 256)]


def test_gc_keeps_what_tags_lead_to_what_is_young_and_what_is_worked_on(tmp_path):
    root = str(tmp_path)
    commit(root, "images", "kept")
    store = Store(root)
    store.tag(
        "mine", commit(root, "filtered", "tagged", inputs=[InputRef(role="images", kind="images", version="kept")])
    )
    orphan, torn, working = ("0" * 15 + digit for digit in "123")
    commit(root, "filtered", orphan)
    Attempt(root, "filtered", torn).write_partition("p0", {"data": TABLE}, {})
    busy = Attempt(root, "filtered", working)
    busy.write_partition("p0", {"data": TABLE}, {})
    assert list(garbage(store, 3600)) == []
    with Lease(busy, exclusive=False):
        found = {item.version: item for item in garbage(store, -1)}
    assert set(found) == {orphan, torn}
    for item in found.values():
        collect(store, item)
    assert store.versions("filtered") == ["tagged"]
    assert not (tmp_path / "filtered" / torn).exists()


def test_gc_touches_nothing_that_is_not_ours(tmp_path):
    for folder in ("photos/2019", "documents/taxes", "images/holiday", "filtered/0000000000000009"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_bytes(b"dear to somebody")
    with pytest.raises(ArtifactError, match="is no root that a run has written"):
        list(garbage(Store(str(tmp_path)), -1))
    Store(str(tmp_path)).tag("mine", commit(str(tmp_path), "filtered", "00000000000000aa"))
    assert [(item.kind, item.version) for item in garbage(Store(str(tmp_path)), -1)] == [
        ("filtered", "0000000000000009")
    ]


def test_gc_and_latest_live_with_a_version_that_was_deleted_by_hand(tmp_path):
    root = str(tmp_path)
    store = Store(root)
    commit(root, "images", "i1")
    store.tag("latest/filtered", commit(root, "filtered", "00000000000000aa", inputs=IMAGES))
    store.tag("latest/images", store.get("images", "i1"))
    store.storage.delete_folder("images/i1")
    assert store.latest("images") is None and store.latest("filtered").version == "00000000000000aa"
    assert list(garbage(store, -1)) == []


def test_a_damaged_tag_is_named(tmp_path):
    store = Store(str(tmp_path))
    store.storage.write("tags/latest/filtered.json", b"{")
    with pytest.raises(ArtifactError, match=r"tags/latest/filtered.json is damaged; delete it"):
        store.latest("filtered")


def test_an_exclusive_lease_keeps_a_second_writer_out_until_its_holder_is_dead(any_root):
    attempt = Attempt(any_root, "backbone", "v1")
    path = f"{attempt.folder}/lease.json"
    storage = Store(any_root).storage
    alive = {"host": socket.gethostname(), "pid": os.getppid(), "time": time.time()}
    storage.write(path, json.dumps(alive).encode())
    with pytest.raises(Conflict, match=f"process {os.getppid()}"), Lease(attempt, exclusive=True):
        pass
    with Lease(attempt, exclusive=False):
        pass
    storage.write(path, json.dumps(alive | {"pid": 2**22 + 1}).encode())  # beyond the largest process id
    with Lease(attempt, exclusive=True):
        assert live_lease(storage.read(path)) == {"host": socket.gethostname(), "pid": os.getpid()}
    assert not storage.exists(path)


def test_a_heartbeat_of_another_host_grows_stale():
    lease = {"host": "elsewhere", "pid": 1, "time": time.time()}
    assert live_lease(json.dumps(lease).encode()) is not None
    assert live_lease(json.dumps(lease | {"time": time.time() - 1000}).encode()) is None
