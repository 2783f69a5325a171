"""Looking at a root: the same answers as pyarrow's, and from S3 by few requests."""

import json
import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyarrow.fs import FileSelector, FileType, LocalFileSystem
from test_components_store import commit, manifest

from components import listing
from components.artifacts import KINDS, Store
from components.attempt import Attempt
from components.manifest import Manifest
from components.run_step import run_step
from components.settings import Settings
from components.steps import STEPS
from components.storage import Storage
from curation.stages.ingest import list_sources
from pipelines.sample_pool import build_sample_pool


@pytest.mark.parametrize("recursive", [False, True])
def test_a_local_listing_is_pyarrows(tmp_path, recursive):
    for name in ("b/2.txt", "a/deep/er/1.txt", "a/.hidden", "a b/ü.txt", "top"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nowhere")
    infos = LocalFileSystem().get_file_info(FileSelector(str(tmp_path), recursive=recursive))
    expected = {
        (os.path.relpath(i.path, tmp_path), i.type == FileType.File, i.size or 0)
        for i in infos
        if i.type != FileType.NotFound
    }
    found = [
        (name, is_file, size if is_file else 0)
        for name, is_file, size, _ in Storage(tmp_path).list("", recursive=recursive)
    ]
    assert set(found) == expected and found == sorted(found)
    assert list(Storage(tmp_path).list("absent", recursive=recursive)) == []


@pytest.fixture
def counted(s3_root, monkeypatch):
    """(root, Counter of requests by method) of a second server on the same buckets that counts what it is asked."""
    from moto.server import ThreadedMotoServer

    server, asked = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False), Counter()
    server.start()
    application = server._server.app

    def counting(environment, respond):
        what = "LIST" if "list-type" in environment["QUERY_STRING"] else environment["REQUEST_METHOD"]
        asked[what] += 1
        if asked["refuse"] and what == "PUT":
            respond("403 Forbidden", [("Content-Type", "text/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>read-only</Message></Error>"]
        return application(environment, respond)

    server._server.app = counting
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    yield s3_root, asked
    server.stop()


def test_all_artifacts_on_s3_cost_one_request_each(counted):
    root, asked = counted
    versions = [f"v{n}" for n in range(6)]
    for version in versions:
        commit(root, version=version)
    Attempt(root, "filtered", "unfinished").write_partition("p0", {}, {})
    store = Store(root)
    asked.clear()
    assert [a.version for a in store.all()] == versions
    assert asked["GET"] == len(versions) and asked["HEAD"] == 0 and asked["LIST"] <= 2, asked


def test_a_file_read_by_one_request_is_the_file(any_root):
    storage = Store(any_root).storage
    storage.write("d/file", b"content")
    assert storage.read_once("d/file") == b"content"
    with pytest.raises(FileNotFoundError, match="d/absent"):
        storage.read_once("d/absent")
    assert pickle.loads(pickle.dumps(storage)).read_once("d/file") == b"content"  # as it travels to a worker


def test_a_store_that_refuses_is_told_as_by_every_other_read(s3_root, monkeypatch):
    Storage(s3_root).write("d/file", b"content")
    nowhere = Storage(s3_root.replace("bucket-", "no-such-"))
    with pytest.raises(OSError) as expected:
        nowhere.read("d/file")
    with pytest.raises(type(expected.value)) as told:
        nowhere.read_once("d/file")
    assert str(told.value) == str(expected.value)


def put(store, kind="filtered", version="v1", **changed):
    """Commit a version without files."""
    made = manifest(kind, version).model_copy(update=changed)
    store.storage.write(f"{kind}/{version}/manifest.json", made.dump())


def shown(store):
    """What a list of the root shows, after holding it against the manifests themselves."""
    found = store.summaries()
    paths = [path for path, *_ in store.storage.list("", recursive=True) if path.endswith("/manifest.json")]
    slow = [listing.Summary.of(Manifest.parse(store.storage.read(path), path)) for path in paths]
    assert sorted(found, key=repr) == sorted(slow, key=repr)
    return [(each.kind, each.version) for each in found]


@pytest.fixture
def eager(monkeypatch):
    """Every change is worth writing."""
    monkeypatch.setattr(listing, "WORTH_WRITING", 1)


def test_summaries_say_of_each_manifest_what_it_says(any_root, eager):
    assert Store(any_root).summaries() == []
    for kind, version in (("filtered", "v2"), ("filtered", "v1"), ("deduped", "v1")):
        artifact = commit(any_root, kind=kind, version=version)
    store = Store(any_root)
    for _ in range(2):  # read, then from the index
        assert shown(store) == [("deduped", "v1"), ("filtered", "v1"), ("filtered", "v2")]
        [first, *_] = store.summaries("deduped")
        sizes = sum(len(store.storage.read(entry.path)) for entry in artifact.manifest.files)
        assert first.rows == {"data": 3} and first.bytes == sizes and first.digest == artifact.manifest.digest


def test_a_list_that_was_made_before_reads_no_manifest(counted, eager):
    root, asked = counted
    store = Store(root)
    for number in range(6):
        put(store, version=f"v{number}")
    store.summaries()
    asked.clear()
    assert len(store.summaries()) == 6
    assert asked == {"LIST": len(KINDS), "GET": 1}
    put(store, version="v6")
    asked.clear()
    assert len(store.summaries()) == 7
    assert asked == {"LIST": len(KINDS), "GET": 2, "PUT": 1}


def test_publishing_keeps_the_index_so_that_no_list_reads_many_manifests(counted):
    root, asked = counted
    store = Store(root)
    for number in range(11):
        for kind in ("filtered", "deduped"):
            put(store, kind, version=f"v{number}")
            listing.keep_up(store.storage, kind)
    asked.clear()
    assert len(store.summaries()) == 22
    assert asked["GET"] <= 1 + 2 * 3, asked  # the index, and what of each kind came since it was written
    put(store, version="damaged")
    store.storage.write("filtered/damaged/manifest.json", b"{")
    listing.keep_up(store.storage, "filtered")  # the next list says what is wrong


def test_a_step_on_s3_leaves_the_index_behind(s3_root, eager, tmp_path):
    settings, step = Settings(preset="micro", overrides={"ingest.workers": 0}), STEPS["ingest"]
    config = settings.config(step)
    pool = build_sample_pool(tmp_path / "pool", size="micro")
    made = run_step(step, config, {}, s3_root, source=list_sources(str(pool), config)).artifact
    (entry,) = json.loads(Store(s3_root).storage.read(listing.INDEX))
    assert (entry["summary"]["kind"], entry["summary"]["version"]) == (made.kind, made.version)


def test_the_index_is_never_trusted_over_the_manifests(s3_root, eager):
    store = Store(s3_root)
    storage = store.storage
    for version in ("kept", "deleted", "rewritten"):
        put(store, version=version)
    assert len(shown(store)) == 3
    storage.delete("filtered/deleted/manifest.json")
    put(store, version="rewritten", digest="0" * 64)
    put(store, version="new")
    stale = storage.read(listing.INDEX)
    expected = [("filtered", version) for version in ("kept", "new", "rewritten")]
    assert shown(store) == expected
    for index in (stale, storage.read(listing.INDEX)[:-9], b"", b"{}", b'[{"etag": 1}]'):
        storage.write(listing.INDEX, index)
        assert shown(store) == expected
    storage.delete(listing.INDEX)
    assert shown(store) == expected


def test_a_damaged_manifest_is_named_whatever_the_index_says(s3_root, eager):
    store = Store(s3_root)
    put(store)
    shown(store)
    store.storage.write("filtered/v1/manifest.json", b"{")
    with pytest.raises(ValueError, match=r"filtered/v1/manifest.json is damaged"):
        store.summaries()


def test_a_list_of_one_kind_keeps_what_the_index_knows_of_others(counted, eager):
    root, asked = counted
    store = Store(root)
    for kind in ("filtered", "deduped"):
        put(store, kind=kind)
    store.summaries()
    put(store, version="v2")
    assert len(store.summaries("filtered")) == 2
    asked.clear()
    assert len(store.summaries()) == 3 and asked["GET"] == 1


def test_a_root_that_may_only_be_read_is_listed(counted, eager):
    root, asked = counted
    store = Store(root)
    put(store)
    asked["refuse"] = 1
    assert len(store.summaries()) == 1 and asked["PUT"] == 2  # the manifest, then the index


def test_lists_at_once_with_commits_and_deletions_end_exact(s3_root, eager):
    stores = [Store(s3_root) for _ in range(3)]

    def write(number):
        path = f"filtered/v{number}/manifest.json"
        stores[0].storage.write(path, manifest("filtered", f"v{number}").dump())
        if number % 2:
            stores[0].storage.delete(path)

    with ThreadPoolExecutor(4) as pool:
        looks = [pool.submit(store.summaries) for store in stores]
        writes = [pool.submit(write, number) for number in range(6)]
        looks += [pool.submit(store.summaries) for store in stores]
        for each in (*looks, *writes):
            each.result()
    assert shown(stores[0]) == [("filtered", f"v{number}") for number in (0, 2, 4)]


def test_a_version_of_many_files_costs_one_page(counted, monkeypatch):
    root, asked = counted
    store = Store(root)
    for version in ("v1", "v2", "v20"):
        put(store, version=version)
        for number in range(9):
            store.storage.write(f"filtered/{version}/parts/{number}", b"")
    store.storage.write("filtered/uncommitted/parts/p0", b"")
    store.storage.write("filtered/v1/a-file-before", b"")
    for page in (1000, 3, 2, 1, 4):
        monkeypatch.setattr(listing, "PAGE", page)
        asked.clear()
        assert store.versions("filtered") == ["v1", "v2", "v20"]
    assert asked["LIST"] <= 4 and asked["GET"] + asked["HEAD"] == 0, asked
