"""What the index tells of a picture is what the tables tell, whatever became of the index."""

import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import removal_roots
from removal_roots import build_pool, build_root, commit

from components import named_pictures, picture_index
from components.artifacts import Store
from components.explain import SHOWN, why
from components.forget import carry_out, find
from components.picture_index import INDEX
from components.row_finder import RowFinder
from components.upkeep import Garbage, collect

STRICT = "f" * 16  # the version that rejected every picture


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(root without an index, pool, image ids by seed): pictures that one version kept and another rejected."""
    folder = tmp_path_factory.mktemp("pictures")
    pool = build_pool(folder / "pool")
    ids = build_root(folder / "root", pool)
    with pytest.MonkeyPatch.context() as patch:
        stricter = removal_roots.CONFIG.model_copy(update={"min_side_px": 50})  # pictures of 60 x 44
        patch.setattr(removal_roots, "CONFIG", stricter)
        commit(folder / "root", "images", removal_roots.ingested(pool), version=STRICT)
    return folder / "root", pool, ids


@pytest.fixture
def root(built, plainly, tmp_path, monkeypatch):
    """A copy whose few files are worth an index."""
    monkeypatch.setattr(picture_index, "WORTH_MAKING", 1)
    return Path(shutil.copytree(built[0], tmp_path / "root"))


def told(root, name):
    """All that is said of a picture, or why nothing is."""
    try:
        return [(repr(x.artifact), x.verdict, x.text, x.latest) for x in why(Store(str(root)), name)]
    except ValueError as error:
        return str(error).replace(str(root), "ROOT")


def names_of(built):
    _, pool, ids = built
    moved = pool.parent / "moved.jpg"
    moved.write_bytes((pool / "3.jpg").read_bytes())
    ids = [ids[4], ids[2], ids[3][:8], ids[3][:6], ids[3][:5], "f" * 32]
    return [*ids, "3.jpg", ".jpg", "notes.jpg", str(pool / "3.jpg"), str(moved), str(pool / "notes.jpg"), "%", "_.jpg"]


@pytest.fixture(scope="module")
def plainly(built):
    """What is told by each name without an index, which so small a root is not worth."""
    said = {name: told(built[0], name) for name in names_of(built)}
    assert not (built[0] / INDEX).exists()
    assert {type(each) for each in said.values()} == {list, str}
    return said


def test_the_index_tells_what_the_tables_tell_by_any_name_and_opens_none(built, plainly, root, monkeypatch):
    told(root, "3.jpg")
    assert (root / INDEX).is_file()

    def refuse(*_, **__):
        raise AssertionError("a table was opened")

    for place, name in ((RowFinder, "_read"), (RowFinder, "_read_all"), (named_pictures, "read_parquet")):
        monkeypatch.setattr(place, name, refuse)
    for name in names_of(built):
        assert told(root, name) == plainly[name], name


@pytest.mark.parametrize("small", [0, 8, 12, 19, 40])
def test_tables_of_large_versions_and_the_index_tell_together(built, plainly, root, small, monkeypatch):
    monkeypatch.setattr(picture_index, "SMALL_ROWS", small)
    for name in names_of(built):
        assert told(root, name) == plainly[name], name
    assert (root / INDEX).exists() == (small > 0)


def test_a_question_adds_so_much_and_the_next_goes_on(built, plainly, root, monkeypatch):
    monkeypatch.setattr(picture_index, "AT_ONCE_ROWS", 5)
    counts = []
    while len(counts) < 2 or counts[-1] > counts[-2]:
        assert told(root, "3.jpg") == plainly["3.jpg"]
        counts.append(files_in(root))
    listed = {e.sha256 for a in Store(str(root)).all() for e in a.manifest.files if e.table in tables_of(a) and e.rows}
    assert len(counts) > 4 and counts[-1] == len(listed)


def of_stages(store):
    return (artifact for artifact in store.all() if artifact.kind in SHOWN)


def test_rows_of_many_pictures_come_in_the_order_of_the_table(built, root):
    store = Store(str(root))
    index = picture_index.opened(store.storage, list(of_stages(store)), SHOWN)
    with_index, plain = (RowFinder(each, image_id=built[2].values()) for each in (index, None))
    several = 0
    for artifact in of_stages(store):
        for table in tables_of(artifact) & set(artifact.manifest.tables) - {"sources", "rejects"}:
            shown = SHOWN[artifact.kind].get(table) or SHOWN[artifact.kind]["*"]
            rows = with_index.rows(artifact, table, "image_id", shown.columns)
            assert rows == plain.rows(artifact, table, "image_id", shown.columns)
            several += len(rows) > 4
    assert several > 4
    index.close()


def tables_of(artifact):
    shown = SHOWN.get(artifact.kind, {})
    return set(artifact.manifest.tables) if "*" in shown else set(shown)


def asked(path, question):
    """The first row of the answer."""
    with closing(sqlite3.connect(path)) as base:
        return base.execute(question).fetchone()


def files_in(root):
    return asked(root / INDEX, "SELECT count(*) FROM files")[0]


def test_a_new_version_is_in_the_index_when_it_was_told_of(built, root):
    told(root, "3.jpg")
    before = files_in(root)
    again = commit(root, "images", removal_roots.ingested(built[1]), version="e" * 16)  # the bytes of another version
    assert f"images={'e' * 16}" in {x[0] for x in told(root, "3.jpg")}
    assert again.manifest.files and files_in(root) == before
    commit(root, "clusters", {"all": {"data": clusters_of(built[2], 0.5)}}, version="d" * 16)
    assert [x[2] for x in told(root, built[2][3]) if x[0] == f"clusters={'d' * 16}"] == ["cluster 0, distance 0.500"]
    assert files_in(root) == before + 1


@pytest.mark.parametrize(("versions", "made"), [(4, False), (6, True)])
def test_few_files_are_worth_no_index_and_those_of_many_versions_are(built, root, monkeypatch, versions, made):
    (first,) = (a for a in Store(str(root)).all("detections"))
    few = sum(len(list(picture_index._told(artifact, SHOWN))) for artifact in of_stages(Store(str(root))))
    monkeypatch.setattr(picture_index, "WORTH_MAKING", few + 5 * len(list(picture_index._told(first, SHOWN))))
    for number in range(versions):  # each lists the files of the first
        folder, version = root / "detections" / f"{number:016x}", f"{number:016x}"
        folder.mkdir()
        (folder / "manifest.json").write_bytes(first.manifest.model_copy(update={"version": version}).dump())
    told(root, "3.jpg")
    assert (root / INDEX).exists() == made


def clusters_of(ids, distance):
    return removal_roots.from_rows(
        [{"image_id": i, "path": [0], "distance": distance} for i in ids.values()], removal_roots.CLUSTERS
    )


def test_a_removed_picture_is_in_no_index_and_told_from_no_old_one(built, root):
    _, _, ids = built
    assert "kept" in {x[1] for x in told(root, ids[1])}
    old = (root / INDEX).read_bytes()
    assert ids[1].encode() in old
    carry_out(Store(str(root)), find(Store(str(root)), [ids[1]]))
    assert not (root / INDEX).exists()
    for put_back in (False, True):
        if put_back:
            (root / INDEX).write_bytes(old)
        assert "was removed on request" in told(root, ids[1])
        assert {x[1] for x in told(root, "1.jpg")} == {"rejected"}
        store = Store(str(root))
        index = picture_index.opened(store.storage, list(of_stages(store)), SHOWN)
        assert named_pictures.resolved(store, "1.jpg", list(store.all("images")), index)[0] == set()
        index.close()
        assert "kept" in {x[1] for x in told(root, ids[3])}


def test_an_index_that_was_open_while_pictures_were_removed_leaves_nothing_of_them(built, root, monkeypatch):
    _, _, ids = built
    add, done = picture_index._add, []

    def slow(base, storage, entry, shown):
        if not done:
            done.append(carry_out(Store(str(root)), find(Store(str(root)), [ids[1]])))
        return add(base, storage, entry, shown)

    monkeypatch.setattr(picture_index, "_add", slow)
    with suppress(FileNotFoundError):  # the tables that it was about to read were replaced, as without an index
        told(root, ids[3])
    monkeypatch.undo()
    assert done
    for path in root.rglob("*"):
        assert not path.is_file() or "index" not in path.parts or ids[1].encode() not in path.read_bytes(), path


def spoil(path, how):
    data = path.read_bytes()
    page = 4096
    if how == "zeros inside":
        path.write_bytes(data[:page] + b"\0" * (len(data) - page))
    elif how == "zeros at the end":
        path.write_bytes(data[: len(data) - page] + b"\0" * page)
    elif how in ("rows", "sources"):  # a page that is read only when it is asked about
        (number,) = asked(path, f"SELECT rootpage FROM sqlite_master WHERE name = '{how}'")
        path.write_bytes(data[: (number - 1) * page] + b"\0" * page + data[number * page :])
    elif how == "another format":
        base = sqlite3.connect(path)
        base.execute("UPDATE meta SET format = format + 1")
        base.commit()
        base.close()
    elif how == "another base":
        path.unlink()
        sqlite3.connect(path).executescript("CREATE TABLE meta (format, shown); INSERT INTO meta VALUES (1, 'x')")
    else:
        path.write_bytes(data[:how] if isinstance(how, int) else how)


@pytest.mark.parametrize(
    "how",
    [
        0,
        50,
        5000,
        -1,
        -4096,
        b"no index " * 900,
        "zeros inside",
        "zeros at the end",
        "rows",
        "sources",
        "another format",
        "another base",
    ],
)
def test_a_spoiled_index_is_noticed_and_made_anew(built, plainly, root, how):
    told(root, "3.jpg")
    whole = files_in(root)
    spoil(root / INDEX, how)
    for name in names_of(built):
        assert told(root, name) == plainly[name], name
    assert files_in(root) == whole
    assert how == "zeros at the end" or asked(root / INDEX, "PRAGMA integrity_check") == ("ok",)


def test_an_index_that_another_process_holds_is_not_waited_for(built, plainly, root):
    told(root, "3.jpg")
    holder = sqlite3.connect(root / INDEX, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    began, same = time.monotonic(), (root / INDEX).stat().st_ino
    assert told(root, "3.jpg") == plainly["3.jpg"]
    assert (root / INDEX).stat().st_ino == same  # not taken for a torn one
    assert time.monotonic() - began < 30
    holder.execute("ROLLBACK")
    holder.execute("BEGIN IMMEDIATE")  # it is being extended: what is there is told from it
    commit(root, "clusters", {"all": {"data": clusters_of(built[2], 0.5)}}, version="d" * 16)
    assert "cluster 0, distance 0.500" in [x[2] for x in told(root, built[2][3])]
    holder.close()


def test_a_root_where_nothing_can_be_written_answers(built, plainly, root):
    (root / "index").write_text("in the way")
    assert told(root, "3.jpg") == plainly["3.jpg"]


@pytest.mark.parametrize("made_before", [False, True])
def test_a_read_only_file_system_answers(built, plainly, root, made_before, tmp_path):
    if made_before:
        told(root, "3.jpg")
    seen = tmp_path / "seen"
    seen.mkdir()
    options = ["mount", "--bind", "-o", "ro", str(root), str(seen)]
    if shutil.which("mount") is None or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (seen / "probe").touch()
        for name in names_of(built):
            assert told(seen, name) == plainly[name], name
        assert (seen / INDEX).exists() == made_before
    finally:
        subprocess.run(["umount", str(seen)], check=True)


def test_what_nothing_lists_any_more_is_cleared_away(built, root):
    told(root, "3.jpg")
    whole = files_in(root)
    for kind in ("detections", "clusters", "deduped", "shards"):
        shutil.rmtree(root / kind)
    shutil.rmtree(root / "images" / STRICT)
    told(root, "3.jpg")
    assert files_in(root) < whole / 2 + 1
    collect(Store(str(root)), Garbage("images", STRICT, 0, ""))
    assert not (root / INDEX).exists()


def test_a_table_that_is_gone_or_damaged_is_said_as_without_an_index(built, root):
    entry = Store(str(root)).get("clusters", "8" * 16).manifest.files[0]
    (root / entry.path).write_bytes(b"PAR1")
    with pytest.raises(Exception, match="Parquet"):
        list(why(Store(str(root)), "3.jpg"))
    (root / entry.path).unlink()
    with pytest.raises(FileNotFoundError):
        list(why(Store(str(root)), "3.jpg"))
    assert files_in(root) > 1


def test_an_object_store_has_none(built, s3_root):
    store = Store(s3_root)
    commit(s3_root, "images", removal_roots.ingested(built[1]))
    assert picture_index.opened(store.storage, list(store.all("images")), SHOWN) is None
    assert not picture_index.drop(store.storage)


def test_every_column_that_is_told_is_one_of_the_tables(built):
    for artifact in Store(str(built[0])).all():
        for entry in artifact.manifest.files:
            shown = SHOWN.get(artifact.kind, {})
            each = shown.get(entry.table, shown.get("*")) if entry.table else None
            if each:
                names = pq.read_schema(built[0] / entry.path).names
                assert {*each.keys, *each.columns} <= set(names), (artifact, entry.table)
