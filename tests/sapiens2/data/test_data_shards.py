"""Shards read by index, and the order in which they are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapiens2.data.order import EpochOrder
from sapiens2.data.shards import Shards

SCHEMA = pa.schema(
    [("image_id", pa.string()), ("bytes", pa.large_binary()), ("width", pa.int32()), ("height", pa.int32())]
)


def table(first: int, count: int) -> pa.Table:
    rows = [
        {"image_id": f"id{i}", "bytes": f"data{i}".encode(), "width": i, "height": 2 * i}
        for i in range(first, first + count)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write(root: str, counts: list[int], group: int = 3) -> list[str]:
    """Files with so many rows each, local or on S3, numbered on."""
    from sapiens2.engine.storage import locate

    files, first = [], 0
    for number, count in enumerate(counts):
        system, path = locate(f"{root}/part{number}.parquet")
        system.create_dir(path.rpartition("/")[0], recursive=True)
        pq.write_table(table(first, count), path, row_group_size=group, filesystem=system)
        files.append(f"{root}/part{number}.parquet")
        first += count
    return files


def test_rows_are_found_by_their_global_index(any_root: str) -> None:
    shards = Shards(write(any_root, [7, 0, 4]))
    assert len(shards) == 11
    assert shards.group_sizes == [3, 3, 1, 3, 1]
    for index in (10, 0, 6, 7, 3):
        row = shards[index]
        assert (row.image_id, row.data, row.width, row.height) == (
            f"id{index}",
            f"data{index}".encode(),
            index,
            2 * index,
        )
    for index in (11, -1):
        with pytest.raises(IndexError):
            shards[index]


def test_a_damaged_row_group_is_named_with_its_rows(tmp_path: Path) -> None:
    files = write(str(tmp_path), [7, 4])
    place = pq.ParquetFile(files[1]).metadata.row_group(0).column(1).data_page_offset
    data = bytearray(Path(files[1]).read_bytes())
    data[place : place + 40] = b"\xff" * 40
    Path(files[1]).write_bytes(bytes(data))
    shards = Shards(files)
    assert shards[10].image_id == "id10"
    with pytest.raises((OSError, ValueError)) as caught:
        shards[8]
    assert caught.value.__notes__ == [f"in rows 7 to 9, row group 0 of {files[1]}"]


def test_an_epoch_reads_every_row_group_once(tmp_path: Path) -> None:
    shards = Shards(write(str(tmp_path), [20, 17], group=4), cached_groups=4)
    order = EpochOrder(shards.group_sizes, seed=0, window=3)
    seen = [shards[order.index(i)].image_id for i in range(len(order))]
    assert sorted(seen) == sorted(f"id{i}" for i in range(37))
    assert shards.groups_read == len(shards.group_sizes) == 10


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no shard files"):
        Shards([])
    with pytest.raises(ValueError, match="hold no rows"):
        Shards(write(str(tmp_path / "empty"), [0, 0]))
    lacking = str(tmp_path / "lacking.parquet")
    pq.write_table(table(0, 2).drop_columns(["bytes"]), lacking)
    with pytest.raises(ValueError, match=r"lacking.parquet lacks the columns \['bytes'\]"):
        Shards([lacking])
    other = tmp_path / "other.parquet"
    other.write_bytes(b"this is no parquet file at all")
    with pytest.raises(ValueError, match=r"other.parquet is not a Parquet file"):
        Shards([str(other)])
    with pytest.raises(FileNotFoundError, match=r"the shard .*absent\.parquet is not there, .* artifacts verify"):
        Shards([str(tmp_path / "absent.parquet")])


def test_a_shard_that_vanishes_is_an_error_and_no_gap(tmp_path: Path) -> None:
    """Rows are found by their number, so that without a shard all that follow would be others."""
    files = write(str(tmp_path), [3, 4])
    shards = Shards(files, cached_groups=1)
    Path(files[1]).unlink()
    assert shards[0].image_id
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="is not there") as caught:
            shards[len(shards) - 1]
        assert "row group" in caught.value.__notes__[0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any), st.integers(1, 5), st.integers(0, 100), st.data()
)
def test_every_epoch_is_a_permutation_found_from_anywhere(
    sizes: list[int], window: int, seed: int, data: st.DataObject
) -> None:
    order, total = EpochOrder(sizes, seed, window), sum(sizes)
    for epoch in (0, 3):
        rows = [order.index(epoch * total + place) for place in range(total)]
        assert sorted(rows) == list(range(total))
        place = data.draw(st.integers(0, total - 1))
        assert EpochOrder(sizes, seed, window).index(epoch * total + place) == rows[place]


def test_epochs_and_seeds_differ_and_windows_stay_together() -> None:
    sizes = [5] * 20
    orders = [
        [EpochOrder(sizes, seed, 4).index(e * 100 + i) for i in range(100)] for seed, e in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(order) for order in orders}) == 3
    groups = [sorted(Counter(np.array(orders[0][i : i + 20]) // 5).values()) for i in range(0, 100, 20)]
    assert groups == [[5, 5, 5, 5]] * 5  # four whole groups at a time
    assert [row % 5 for row in orders[0][:20]] != sorted(row % 5 for row in orders[0][:20])


def test_an_order_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        EpochOrder([0, 0], 0, 1)
