"""Rows about a few pictures: the slow reference's answer, from as few files as can be."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_components_store import manifest

from components import row_finder
from components.attempt import Attempt
from components.row_finder import RowFinder, _places_by_arrow, places, value_set

TEXTS = st.text("aé", max_size=4)


@settings(max_examples=150, deadline=None)
@given(
    chunks=st.lists(st.lists(st.one_of(st.none(), TEXTS), max_size=12), min_size=1, max_size=3),
    wanted=st.sets(TEXTS, max_size=row_finder.SOUGHT + 2),
    cut=st.integers(0, 5),
)
def test_places_are_arrows(chunks: list[list[str | None]], wanted: set[str], cut: int) -> None:
    column = pa.chunked_array([pa.array(chunk, pa.string()) for chunk in chunks]).slice(cut)
    assert places(column, value_set(wanted)) == _places_by_arrow(column, value_set(wanted))


def test_a_null_that_hides_a_wanted_text_is_no_row() -> None:
    hidden = pa.StringArray.from_buffers(
        2, pa.array([0, 2, 4], pa.int32()).buffers()[1], pa.py_buffer(b"abab"), pa.py_buffer(b"\x02")
    )
    assert places(pa.chunked_array([hidden]), value_set({"ab"})) == [1]


@pytest.fixture
def artifact(any_root):
    """Three partitions of two pictures in a table where each is once."""
    attempt = Attempt(any_root, "scores", "v1")
    for pid, ids in (("p0", "ab"), ("p1", "cd"), ("p2", "ef")):
        attempt.write_partition(pid, {"data": pa.table({"image_id": list(ids), "twice": [i * 2 for i in ids]})}, {})
    return attempt.publish(manifest("scores", "v1"), attempt.done(), None, [])


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("few", [1000, 0])
def test_rows_come_in_order_from_wherever_they_lie(artifact, once, few, monkeypatch):
    monkeypatch.setattr(row_finder, "FEW", few)
    for wanted in ("d", "fa", "bef", "x", "dx", ""):
        finder = RowFinder(image_id=set(wanted))
        expected = [each * 2 for each in "abcdef" if each in wanted]
        for _ in range(2):  # the second time by what the first has found
            rows = finder.rows(artifact, "data", "image_id", ["twice"], once=once)
            assert [row["twice"] for row in rows] == expected


def test_nothing_is_read_after_the_last_picture_was_found(artifact, monkeypatch):
    asked = []
    find = RowFinder._found
    monkeypatch.setattr(RowFinder, "_found", lambda *a, **k: asked.append(a[2].partition) or find(*a, **k))
    finder = RowFinder(image_id={"d"})
    finder.rows(artifact, "data", "image_id", ["image_id"], once=True)
    assert "p1" in asked and (not artifact.storage.local or asked == ["p0", "p1"])
    asked.clear()
    finder.rows(artifact, "data", "image_id", ["twice"], once=True)
    assert asked == ["p1"]
