"""Looking at a root: the same answers as pyarrow's, and from S3 by few requests."""

import os
import pickle
from collections import Counter

import pytest
from pyarrow.fs import FileSelector, FileType, LocalFileSystem
from test_components_store import commit

from components.artifacts import Store
from components.attempt import Attempt
from components.storage import Storage


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
        listing = "list-type" in environment["QUERY_STRING"]
        asked["LIST" if listing else environment["REQUEST_METHOD"]] += 1
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
    assert asked["GET"] == len(versions) + 1 and asked["HEAD"] == 0 and asked["LIST"] <= 2, asked


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
