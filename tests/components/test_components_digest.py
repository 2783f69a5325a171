"""Versions and digests: golden values, and independence of order and partitioning."""

import hashlib
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts import parquet_bytes
from components.digest import MODULUS, add_digests, canonical_json, table_digest, version_of

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("keep", pa.bool_()),
        ("value", pa.float64()),
        ("codes", pa.uint64()),
        ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
        ("bytes", pa.large_binary()),
    ]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "image_id": st.text(max_size=5) | st.none(),
            "keep": st.booleans() | st.none(),
            "value": st.floats(allow_nan=True) | st.none(),
            "codes": st.integers(0, 2**64 - 1) | st.none(),
            "boxes": st.lists(st.lists(st.floats(0, 100, width=32), min_size=4, max_size=4), max_size=3) | st.none(),
            "bytes": st.binary(max_size=6) | st.none(),
        }
    ),
    max_size=8,
)


def test_version_is_the_golden_one_of_the_worked_example():
    """The worked example, by hand: sorted keys, no spaces, inputs sorted by role."""
    text = (
        '{"config":{"max_text_ratio":0.05,"min_person_px":384},'
        '"inputs":[["detections","bbbb"],["images","aaaa"]],"revision":3,"step":"filter","weights":{"yolox":"00ff"}}'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    recipe = {"min_person_px": 384, "max_text_ratio": 0.05}
    made = version_of("filter", 3, recipe, [("images", "aaaa"), ("detections", "bbbb")], {"yolox": "00ff"})
    assert made == expected == "915e7a9f39a7ede9"


def test_version_follows_the_source():
    assert version_of("ingest", 1, {}, [], {}) != version_of("ingest", 1, {}, [], {}, "d" * 64)


def test_table_digest_is_the_golden_one():
    """One row, encoded by hand."""
    table = pa.table({"b": pa.array(["xy"]), "a": pa.array([7], pa.int32())})
    header = hashlib.sha256(b"data\0a:int32\0b:string").digest()
    row = header + b"\1\7\0\0\0" + b"\1" + (2).to_bytes(8, "little") + b"xy"
    assert table_digest(table) == int.from_bytes(hashlib.sha256(row).digest(), "big")


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99), cut=st.integers(0, 8))
def test_digest_ignores_order_and_partitioning(rows, seed, cut):
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    shuffled = random.Random(seed).sample(rows, len(rows))
    parts = [pa.Table.from_pylist(part, schema=SCHEMA) for part in (shuffled[:cut], shuffled[cut:])]
    chunked = pa.concat_tables(parts)
    assert table_digest(chunked) == table_digest(table)
    assert sum(table_digest(part) for part in parts) % MODULUS == table_digest(table)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"image_id": "ab", "bytes": b"c"}, {"image_id": "a", "bytes": b"bc"}),
        ({"value": 0.0}, {"value": None}),
        ({"boxes": []}, {"boxes": None}),
        ({"boxes": [[1, 2, 3, 4]]}, {"boxes": [[1, 2, 3, 5]]}),
        ({"keep": False}, {"keep": None}),
    ],
)
def test_digest_tells_rows_apart(one, other):
    digests = {table_digest(pa.Table.from_pylist([row], schema=SCHEMA)) for row in (one, other)}
    assert len(digests) == 2


def test_digest_depends_on_table_name_and_types():
    table = pa.table({"a": pa.array([1], pa.int32())})
    assert table_digest(table, "x") != table_digest(table, "y")
    assert table_digest(table) != table_digest(pa.table({"a": pa.array([1], pa.int64())}))


@settings(max_examples=20, deadline=None)
@given(rows=ROWS)
def test_digest_survives_parquet(rows):
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    again = pq.read_table(pa.BufferReader(parquet_bytes(table)))
    assert table_digest(again) == table_digest(table)


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_added_digests_have_64_digits():
    assert add_digests([MODULUS - 1, 2]) == f"{1:064x}"
    assert json.loads(canonical_json({"b": 1, "a": "ä"})) == {"a": "ä", "b": 1}
