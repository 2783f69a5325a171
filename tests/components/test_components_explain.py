"""What is known of one picture: found by reading little, the same as by reading everything."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
import removal_roots
from hypothesis import given, settings
from hypothesis import strategies as st
from removal_roots import build_pool, build_root, commit

from components.artifacts import Store
from components.explain import consumed_by, why
from components.named_pictures import resolve_image
from components.row_finder import RowFinder, value_set
from curation.audit.copies import likeness
from curation.tables import DECISIONS, DEDUPED, from_rows
from sapiens2.data.order import EpochOrder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(store, image ids by seed) of a small root; not to be changed."""
    folder = tmp_path_factory.mktemp("explain")
    ids = build_root(folder / "root", build_pool(folder / "pool"))
    return Store(str(folder / "root")), ids


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=9), st.integers(1, 4), st.integers(0, 3), st.integers(0, 2))
def test_a_rows_position_is_the_inverse_of_the_order(sizes, window, seed, epoch):
    order = EpochOrder(sizes, seed, window)
    start = epoch * len(order)
    assert [order.position(order.index(start + p), epoch) for p in range(len(order))] == [
        start + p for p in range(len(order))
    ]


def test_consumption_is_what_walking_through_the_order_finds(built):
    store, ids = built
    shards, backbone = store.get("shards", "6" * 16), store.get("backbone", "8" * 16)
    rows = shards.read("train", ["image_id", "position"]).to_pylist()
    by_place = {row["position"]: row["image_id"] for row in rows}
    order = EpochOrder([2, 2, 2, 1], 3, 2)
    seen = {by_place[order.index(sample)] for sample in range(4)}  # two steps of two pictures
    assert [(repr(a), found) for a, found in consumed_by(store, set(ids.values()))] == [(repr(backbone), seen)]


@pytest.mark.parametrize("rows_per_group", [3, 1000])
def test_rows_are_found_in_whichever_row_group_they_lie(any_root, rows_per_group):
    ids = [f"{i:032x}" for i in np.random.default_rng(0).permutation(40)]
    table = pa.table({"image_id": ids, "n": list(range(40)), "bulk": ["x" * 50] * 40})
    artifact = commit_table(any_root, table, rows_per_group)
    wanted = {ids[0], ids[17], ids[39], "f" * 32}
    found = RowFinder(image_id=wanted).rows(artifact, "data", "image_id", ["n"])
    assert found == [{"n": 0}, {"n": 17}, {"n": 39}]
    assert RowFinder(image_id=[]).rows(artifact, "data", "image_id", ["n"]) == []


def commit_table(root, table, rows_per_group):
    return commit(root, "scores", {"p": {"data": table}}, group_rows=rows_per_group)


def test_a_file_that_two_versions_list_is_read_once(built, tmp_path):
    store, ids = built
    shutil.copytree(store.root, tmp_path / "root")
    copy = Store(str(tmp_path / "root"))
    clusters = copy.get("clusters", "8" * 16)
    finder = RowFinder(image_id=[ids[3]])
    first = finder.rows(clusters, "data", "image_id", ["distance"])
    for entry in clusters.manifest.files:
        copy.storage.delete(entry.path)
    assert finder.rows(clusters, "data", "image_id", ["distance"]) == first != []


def test_a_set_of_values_is_sorted_and_each_once():
    assert value_set(["b", "a", "b", "ü"]).to_pylist() == ["a", "b", "ü"]
    assert value_set([]).to_pylist() == []


@pytest.mark.parametrize(
    ("reason", "value", "threshold", "text"),
    [
        ("duplicate_phash", 0.0, 8.0, "copy of K, 0 of 64 hash bits differ"),
        ("duplicate_mirror", 3.0, 8.0, "mirror image of K, 3 of 64 hash bits differ"),
        ("duplicate_feature", 0.0312, 0.25, "near K, 1 - cosine 0.031, merged up to 0.25"),
        ("duplicate_geometry", 0.04, 0.2, "same picture as K, 0.04 of its texture differs, merged up to 0.2"),
        ("person_too_small", 200.0, 384.0, ""),
        ("duplicate_phash", None, None, ""),
        (None, 1.0, 2.0, ""),
    ],
)
def test_a_copy_is_told_by_what_it_copies_and_how_near_it_is(reason, value, threshold, text):
    assert likeness(reason, value, threshold, "K") == text


@pytest.mark.parametrize("itself", [True, False])
def test_a_picture_that_stands_for_itself_is_not_said_to_be_replaced(built, tmp_path, itself):
    store, ids = built
    other = ids[2] if itself else ids[1]
    row = {"reason": "cluster_share", "value": 4.0, "threshold": 3.0, "representative_id": other}
    table = from_rows([{"image_id": ids[2], "keep": False, **row}], DECISIONS)
    shutil.copytree(store.root, tmp_path / "root")
    commit(tmp_path / "root", "selection", {"all": {"data": table}})
    (line,) = [x for x in why(Store(str(tmp_path / "root")), ids[2]) if x.artifact.kind == "selection"]
    assert line.text == "cluster_share: 4 against 3" + ("" if itself else f"; {other} stands for it")


def test_why_names_the_kept_picture_and_the_distance(built, tmp_path):
    store, ids = built
    shutil.copytree(store.root, tmp_path / "root")
    row = {"reason": "duplicate_phash", "value": 0.0, "threshold": 8.0, "representative_id": ids[1]}
    table = from_rows([{"image_id": ids[2], "keep": False, "group_id": ids[1], **row}], DEDUPED)
    shutil.rmtree(tmp_path / "root" / "deduped")
    commit(tmp_path / "root", "deduped", {"all": {"data": table}})
    (line,) = [x for x in why(Store(str(tmp_path / "root")), ids[2]) if x.artifact.kind == "deduped"]
    assert line.verdict == "dropped"
    assert line.text == f"duplicate_phash: copy of {ids[1]}, 0 of 64 hash bits differ"


def test_a_picture_is_known_by_every_name_it_has(built, tmp_path):
    store, ids = built
    pool = build_pool(tmp_path / "elsewhere")
    (tmp_path / "other-name.jpg").write_bytes((pool / "3.jpg").read_bytes())
    for name in ("3.jpg", ids[3], ids[3][:8], str(tmp_path / "other-name.jpg")):
        assert resolve_image(store, name)[0] == {ids[3]}, name
    assert len(resolve_image(store, ids[4])[1]) == 2  # two files of the same bytes
    assert resolve_image(store, "notes.jpg")[0] == set()  # rejected, but known
    with pytest.raises(ValueError, match=r"'4\.jp' is no picture that was ingested"):
        resolve_image(store, "4.jp")


def test_why_says_of_a_rejected_file_why_it_was_rejected(built, tmp_path):
    store, _ = built
    (tmp_path / "moved").write_bytes((build_pool(tmp_path / "pool") / "notes.jpg").read_bytes())
    for name in ("notes.jpg", str(tmp_path / "moved")):  # by its name, by its bytes
        assert [(x.verdict, x.text.split(" (")[0]) for x in why(store, name)] == [
            ("rejected", "notes.jpg: not_an_image")
        ]


def test_a_whole_id_tells_as_much_as_a_name(built):
    store, ids = built
    assert repr(list(why(store, ids[4]))) == repr(list(why(store, ids[4][:20]))) != "[]"
    with pytest.raises(ValueError, match="is no picture that was ingested"):
        list(why(store, "f" * 32))


def test_why_tells_of_the_version_that_rejected_what_another_kept(built, tmp_path, monkeypatch):
    store, ids = built
    shutil.copytree(store.root, tmp_path / "root")
    stricter = removal_roots.CONFIG.model_copy(update={"min_side_px": 50})  # pictures of 60 x 44
    monkeypatch.setattr(removal_roots, "CONFIG", stricter)
    commit(tmp_path / "root", "images", removal_roots.ingested(build_pool(tmp_path / "pool")), version="f" * 16)
    for name in (ids[3], ids[3][:8], "3.jpg"):
        told = [line for line in why(Store(str(tmp_path / "root")), name) if line.artifact.kind == "images"]
        assert [line.verdict for line in told] == ["kept", "rejected"], name
        assert "too_small" in told[1].text
