"""Tables to arrays: rows in the order asked for, nulls, slices and chunks, boxes and the bins of many pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.balance.attributes import Crowd, Person, columns, columns_of
from curation.stages import measures
from curation.stages.measures import boxes_of, floats, largest_person_px, rows_for, vectors

TABLE = pa.table({"image_id": ["b", "a", "c"], "value": [2, 1, 3], "wide": [[2.0], [1.0], [3.0]]})


def test_rows_come_in_the_order_of_the_ids_and_only_the_columns_asked_for() -> None:
    assert rows_for(TABLE, ["c", "a"], "x")["value"].to_pylist() == [3, 1]
    assert rows_for(TABLE, ["b", "a", "c"], "x").equals(TABLE)
    assert rows_for(TABLE, ["a"], "x", ["value"]).column_names == ["value"]
    assert rows_for(TABLE, [], "x").num_rows == 0


def test_ids_without_a_row_are_named() -> None:
    with pytest.raises(ValueError, match="dedup: scores: 2 images have no row, the first is d; rerun the stage"):
        rows_for(TABLE, ["a", "d", "e"], "dedup: scores")


def test_numbers_of_any_kind_become_floats_and_nulls_nan() -> None:
    for kind in (pa.int64(), pa.float32(), pa.uint8(), pa.bool_()):
        column = pa.chunked_array([pa.array([1, None], pa.int8()).cast(kind), pa.array([0], pa.int8()).cast(kind)])
        np.testing.assert_array_equal(floats(column), [1.0, np.nan, 0.0])
    assert floats(pa.chunked_array([], pa.int64())).shape == (0,)


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_vectors_of_chunks_slices_and_nulls(cut: int) -> None:
    rows = [[0.5, 1.0], None, [2.0, 3.0], None, [4.0, 5.0]]
    column = pa.array(rows, pa.list_(pa.float32(), 2))
    chunks = pa.chunked_array([column.slice(0, cut), column.slice(cut)])
    expected = np.array([row or [0.0, 0.0] for row in rows])
    np.testing.assert_array_equal(vectors(chunks), expected)
    np.testing.assert_array_equal(vectors(chunks.slice(1, 3)), expected[1:4])
    assert vectors(pa.chunked_array([pa.nulls(3)])).any() == np.False_


def detections(boxes: list[Any], scores: list[Any]) -> pa.Table:
    kinds = (pa.list_(pa.list_(pa.float32(), 4)), pa.list_(pa.float32()))
    return pa.table({"boxes": pa.array(boxes, kinds[0]), "box_scores": pa.array(scores, kinds[1])})


def test_the_largest_person_is_of_the_accepted_boxes() -> None:
    table = detections([[[0, 0, 90, 50], [0, 0, 70, 80]], [], None, [[0, 0, 900, 800]]], [[0.9, 0.6], [], None, [0.2]])
    assert largest_person_px(table, 0.5).tolist() == [70, 0, 0, 0]
    assert largest_person_px(table, 0.7).tolist() == [50, 0, 0, 0]
    assert largest_person_px(table.slice(3), 0.1).tolist() == [800]


def test_boxes_without_their_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 boxes and 2 scores; rerun detect"):
        boxes_of(detections([[], [[0, 0, 1, 1]]], [[], [0.5, 0.5]]))


_corner = st.integers(0, 1000).map(float)
_measured = st.one_of(st.none(), st.sampled_from([-61.0, -60.0, -25.0, 0.0, 0.05, 0.2, 0.25, 0.45, 25.0, 60.0]))
_person = st.builds(
    Person,
    width=st.integers(1, 1000),
    height=st.integers(1, 1000),
    boxes=st.lists(st.tuples(_corner, _corner, _corner, _corner).map(list), max_size=7),
    face_count=st.one_of(st.none(), st.integers(0, 3)),
    yaw_deg=_measured,
    exposure=_measured,
    colour_temperature=_measured,
)


@given(st.lists(_person, max_size=8))
def test_bins_of_many_pictures_are_those_of_each(people: list[Person]) -> None:
    def column(name: str) -> np.ndarray:
        return np.array([np.nan if (v := getattr(p, name)) is None else v for p in people], np.float64)

    crowd = Crowd(
        column("width"),
        column("height"),
        np.repeat(np.arange(len(people)), [len(p.boxes) for p in people]).astype(np.int64),
        np.array([box for p in people for box in p.boxes], np.float64).reshape(-1, 4),
        *(column(name) for name in ("face_count", "yaw_deg", "exposure", "colour_temperature")),
    )
    found = columns_of(crowd)
    for axis, bins in columns(people).items():
        assert found[axis].tolist() == bins.tolist()


@pytest.mark.parametrize("block", [1, 2, 1 << 16])
def test_vectors_of_some_rows_are_those_of_the_rows_picked_out(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_WIDE_ROWS", block)
    wide = pa.chunked_array([pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)), [[3.0, 4.0]]])
    table = pa.table({"image_id": ["a", "b", "c"], "v": wide})
    np.testing.assert_array_equal(measures.vectors_for(table, ["c", "b", "a"], "here", "v"), [[3, 4], [0, 0], [1, 2]])
    with pytest.raises(ValueError, match="here: 1 images have no row, the first is x"):
        measures.vectors_for(table, ["c", "x"], "here", "v")
