"""Removal: nothing of a picture is left, verify stays green, and a kill at any moment is mended by the same command."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from removal_roots import build_pool, build_root, commit, ingested, picture

from components import listing
from components.artifacts import ArtifactError, Store
from components.digest import add_digests, table_digest
from components.explain import trained_on, why
from components.forget import carry_out, find, requested
from components.listing import INDEX
from components.manifest import MANIFEST
from components.removals import refuse_pending, removals, root_denylist
from components.storage import Storage
from components.upkeep import verify


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(root, pool, image ids by seed), to be copied, not changed."""
    folder = tmp_path_factory.mktemp("removal")
    pool = build_pool(folder / "pool")
    return folder / "root", pool, build_root(folder / "root", pool)


@pytest.fixture
def copied(built, tmp_path):
    root, pool, ids = built
    shutil.copytree(root, tmp_path / "root")
    return Store(str(tmp_path / "root")), pool, ids


def content(store):
    """Every file below the root with its bytes; tables by their digest, since Parquet may be written in two ways."""
    found = {}
    for path, is_file, _, _ in store.storage.list("", recursive=True):
        if is_file and not path.startswith("denylist/"):
            data = store.storage.read(path)
            table = pq.read_table(pa.BufferReader(data)) if path.endswith(".parquet") else None
            found[path] = data if table is None else table_digest(table)
    return found


def everything(store):
    """What a reader with no knowledge of us finds below the root: (path, table or None, bytes)."""
    found = []
    for path, is_file, _, _ in store.storage.list("", recursive=True):
        if is_file and not path.startswith("denylist/") and not path.endswith(MANIFEST):
            raw = store.storage.read(path)
            table = pq.read_table(pa.BufferReader(raw)) if path.endswith(".parquet") else None
            found.append((path, table, raw))
    return found


def holding(files, image_id, data):
    """The files that hold the bytes of a picture, or say something about it."""
    found = []
    for path, table, raw in files:
        if table is not None:
            names = [name for name in ("image_id", "a", "b", "bytes") if name in table.column_names]
            values = [value for name in names for value in table[name].to_pylist()]
            here = image_id in values or data in values
        else:
            here = data in raw or data.hex().encode() in raw or image_id.encode() in raw
        if here:
            found.append(path)
    return found


def test_nothing_of_the_picture_is_left(any_root, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "WORTH_WRITING", 1)
    pool = build_pool(tmp_path / "pool")
    ids = build_root(any_root, pool)
    store = Store(any_root)
    before = holding(everything(store), ids[1], picture(1))
    assert {path.split("/")[0] for path in before} == {
        *("images", "detections", "deduped", "clusters", "shards", "dataset_card", "cache", "scores")
    }
    store.summaries()
    assert any(path == INDEX for path, _, _ in everything(store)) == (not store.storage.local)
    found = find(store, [ids[1]])
    assert [a.manifest.redacted for a in store.all() if a.manifest.redacted] == []  # finding changes nothing
    kinds = {key.split("=")[0]: count for key, count in found.rows.items()}
    assert kinds == {"images": 2, "detections": 1, "deduped": 2, "clusters": 1, "shards": 1}
    carry_out(store, found)
    after = everything(store)
    assert holding(after, ids[1], picture(1)) == []
    assert INDEX not in {path for path, _, _ in after}
    assert {x.digest for x in store.summaries()} == {a.manifest.digest for a in store.all()}
    assert all(holding(after, ids[s], picture(s)) for s in (0, 2, 3, 4, 5, 6, 7))
    made = list(store.all())
    assert [problem for artifact in made for problem in verify(store, artifact)] == []
    redacted = {a.kind for a in made if a.manifest.redacted == [ids[1]]}
    assert redacted == {"images", "detections", "deduped", "clusters", "shards"}
    assert [r.state for r in removals(store.storage)] == ["done"]
    listed = {entry.path for artifact in made for entry in artifact.manifest.files}
    assert {p for p, _, _ in after if p.split("/")[0] in redacted} == {p for p in listed if p.split("/")[0] in redacted}


def test_the_images_are_those_of_an_ingest_that_refuses_the_picture(copied):
    store, pool, ids = copied
    carry_out(store, find(store, [ids[4], ids[1]]))
    fresh = ingested(pool, root_denylist(store.storage))
    digests = [table_digest(table, name) for part in fresh.values() for name, table in part.items()]
    images = store.get("images", "6" * 16)
    assert images.manifest.digest == add_digests(digests)
    sources, rejects = images.read("sources"), images.read("rejects")
    assert sources.num_rows == sum(images.read("images")["n_sources"].to_pylist()) + rejects.num_rows == 10
    assert sorted(rejects["reason"].to_pylist()) == ["denylisted"] * 3 + ["not_an_image"]
    assert images.manifest.metrics == {
        **{"rows_in": 10, "kept": 6, "images": 6, "headline": "6 distinct pictures"},
        "dropped": {"denylisted": 3, "not_an_image": 1},
    }


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill_at(monkeypatch, moment):
    """The storage dies before its change number `moment`; returns the changes that were made."""
    made = []
    for name in ("write", "delete"):
        original = getattr(Storage, name)

        def change(self, *arguments, original=original, name=name):
            if len(made) == moment:
                raise Killed
            made.append((name, arguments[0]))
            return original(self, *arguments)

        monkeypatch.setattr(Storage, name, change)
    return made


def test_a_removal_killed_at_any_change_ends_as_a_calm_one(copied, tmp_path, monkeypatch):
    store, _, ids = copied
    calm = Store(str(shutil.copytree(store.root, tmp_path / "calm")))
    with monkeypatch.context() as patch:
        changes = kill_at(patch, None)
        carry_out(calm, find(calm, [ids[1]]))
    wanted, total = content(calm), len(changes)
    assert total > 20
    for moment in range(0, total, 4):
        broken = Store(str(shutil.copytree(store.root, tmp_path / f"at{moment}")))
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, moment)
            carry_out(broken, find(broken, [ids[1]]))
        if moment:
            with pytest.raises(ArtifactError, match=r"was interrupted; finish it with `sapiens2 artifacts forget"):
                refuse_pending(broken.storage)
        carry_out(broken, find(broken, [ids[1]]))
        assert content(broken) == wanted, moment
        assert all(verify(broken, a) == [] for a in broken.all())
        shutil.rmtree(broken.root)


def test_kill_9_in_the_middle_and_the_same_command_again(copied, tmp_path):
    store, _, ids = copied
    calm = Store(str(shutil.copytree(store.root, tmp_path / "calm")))
    carry_out(calm, find(calm, [ids[1]]))
    program = (
        "import os, signal, sys\n"
        "from components.storage import Storage\n"
        "delete = Storage.delete\n"
        "def die(self, path):\n"
        "    delete(self, path)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Storage.delete = die\n"
        "sys.argv[0] = 'sapiens2'\n"
        "from pipelines.cli import main\n"
        "main()\n"
    )
    command = ["artifacts", "forget", "--hash", ids[1], "--yes", "--root", store.root]
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, cwd=tmp_path, env=os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *command], capture_output=True, text=True, cwd=tmp_path, env=os.environ
    )
    assert again.returncode == 0, again.stderr
    assert content(store) == content(calm)


def test_who_was_trained_on_it_is_known_before_and_after(copied):
    store, _, ids = copied
    saw = {seed: trained_on(store, ids[seed]) for seed in (0, 1, 3, 4, 5, 6, 7)}
    seen = [seed for seed, consumed in saw.items() if consumed]
    assert len(seen) == 4  # two steps of two pictures
    gone, stays = seen[0], seen[1:]
    found = find(store, [ids[gone]])
    assert found.removal.consumers == {f"backbone={'8' * 16}": [ids[gone]]}
    carry_out(store, found)
    for seed in stays:  # sample numbers are those of the run, though a row is gone
        assert [c.through for c in trained_on(store, ids[seed])] == [c.through for c in saw[seed]]
    assert [repr(c.artifact) for c in trained_on(store, ids[gone])] == [f"backbone={'8' * 16}"]


def test_a_removed_picture_is_told_from_one_that_never_was(copied, tmp_path):
    store, _, ids = copied
    (tmp_path / "one.png").write_bytes(picture(1))
    carry_out(store, find(store, [ids[1]]))
    (removal,) = removals(store.storage)
    said = re.escape(f"was removed on request (removal {removal.id}, {removal.time})")
    for reference in (ids[1], ids[1][:8].upper(), ids[1] + "0" * 32, str(tmp_path / "one.png")):
        with pytest.raises(ArtifactError, match=said):
            list(why(store, reference))
    for reference in (ids[1][:5], "f" * 32, "one.jpg"):
        with pytest.raises(ArtifactError, match="is no picture that was ingested"):
            list(why(store, reference))


def test_copies_go_with_their_group_when_asked(copied):
    store, _, ids = copied
    assert find(store, [ids[2]]).removal.image_ids == [ids[2]]
    assert find(store, [ids[2]], copies=True).removal.image_ids == sorted([ids[1], ids[2]])


def test_by_address_and_by_hash_and_what_is_unknown(tmp_path):
    store = Store(str(tmp_path))
    sources = pa.table({"source_id": ["s"], "source": ["https://a.example/x.jpg"], "image_id": ["1" * 32]})
    commit(tmp_path, "images", {"p": {"sources": sources}})
    found = find(store, ["https://a.example/x.jpg", "2" * 32])
    assert found.removal.image_ids == ["1" * 32, "2" * 32] and found.unknown == ["2" * 32]
    assert find(store, ["1" * 32]).removal.urls == ["https://a.example/x.jpg"]


def test_requests_are_read_strictly():
    assert requested(["A" * 64, "", "# why", "https://a/b"], "f") == ["a" * 32, "https://a/b"]
    for wrong in ("host:a.example", "sha1:" + "0" * 40, "phash:" + "0" * 16, "zz"):
        with pytest.raises(ValueError, match=rf"^f, line 2: '{wrong}' does not name one picture"):
            requested(["", wrong], "f", numbered=True)
    with pytest.raises(ValueError, match=r"^--hash: 'zz' does not name one picture"):
        requested(["zz"], "--hash")
    with pytest.raises(ValueError, match=r"f names no picture"):
        requested(["# nothing"], "f")


def test_a_running_step_is_waited_for(copied):
    store, _, ids = copied
    lease = {"host": "elsewhere", "pid": 1, "time": 4e9}
    store.storage.write(f"scores/{'a' * 16}/lease.json", json.dumps(lease).encode())
    with pytest.raises(ArtifactError, match="a step is at work in scores/"):
        carry_out(store, find(store, [ids[1]]))
    assert holding(everything(store), ids[1], picture(1)) and not list(removals(store.storage))


@pytest.mark.parametrize(("name", "what"), [("nosuch", "there is no such file"), (".", "that is a folder")])
def test_a_file_of_ids_that_cannot_be_read_is_named_with_the_mend(tmp_path, name, what):
    from pipelines.forget_command import forget_command

    done = CliRunner().invoke(forget_command, ["--ids", str(tmp_path / name), "--root", str(tmp_path)])
    told = str(done.exception)
    assert isinstance(done.exception, ValueError) and told.startswith(
        f"--ids {tmp_path / name}: {what}; it takes a text"
    )
    assert "one a line" in told and "--hash" in told and "Errno" not in told
