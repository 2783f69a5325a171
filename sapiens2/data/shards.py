"""Exported Parquet shards as one long list of pictures, read by global index.

Only the footers are read at the start. A picture is found by its row group, and the groups last read are kept, so that
an order which stays within a window of groups reads each of them once.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from sapiens2.engine.storage import locate

COLUMNS = ("image_id", "bytes", "width", "height")
PERSONS = "boxes"


@dataclass(frozen=True)
class Row:
    """One picture as it lies in a shard; width and height are upright pixels, persons are boxes (x0, y0, x1, y1)."""

    image_id: str
    data: bytes
    width: int
    height: int
    persons: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class _Group:
    file: str
    number: int


class Shards:
    """The rows of several Parquet files, local or s3://, in the order of the files.

    With `persons` the column `boxes` is read too. Raises ValueError when there are no files, no rows, or a file lacks
    one of the columns image_id, bytes, width, height and, if asked for, boxes; FileNotFoundError for a file that is
    not there.
    """

    def __init__(self, files: Sequence[str], *, cached_groups: int = 2, persons: bool = False) -> None:
        if not files:
            raise ValueError("no shard files were given; run the export step first")
        self._columns = [*COLUMNS, PERSONS] if persons else list(COLUMNS)
        self._metadata: dict[str, pq.FileMetaData] = {}
        self._groups: list[_Group] = []
        self.group_sizes: list[int] = []
        for file in files:
            self._add(file)
        if not self.group_sizes:
            raise ValueError(f"the {len(files)} shard files, first {files[0]}, hold no rows; select more images")
        self._starts = [0, *accumulate(self.group_sizes)]
        self._cached_groups = cached_groups
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()
        self.groups_read = 0

    def _add(self, file: str) -> None:
        """Reads the footer of a file and notes its row groups."""
        with _open(file) as parquet:
            missing = [name for name in self._columns if name not in parquet.schema_arrow.names]
            if missing:
                raise ValueError(f"{file} lacks the columns {missing}; it has {parquet.schema_arrow.names}")
            self._metadata[file] = parquet.metadata
        for number in range(parquet.metadata.num_row_groups):
            if rows := parquet.metadata.row_group(number).num_rows:
                self._groups.append(_Group(file, number))
                self.group_sizes.append(rows)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Row:
        """The row at a global index; raises IndexError beyond the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        group = bisect_right(self._starts, index) - 1
        row = self._table(group).slice(index - self._starts[group], 1).to_pylist()[0]
        persons = tuple(tuple(box) for box in row.get(PERSONS) or ())
        return Row(row["image_id"], row["bytes"] or b"", row["width"] or 0, row["height"] or 0, persons)

    def _read(self, group: int) -> pa.Table:
        place, first, end = self._groups[group], self._starts[group], self._starts[group + 1]
        try:
            with _open(place.file, self._metadata[place.file]) as parquet:
                return parquet.read_row_group(place.number, columns=self._columns)
        except (OSError, ValueError) as error:
            error.add_note(f"in rows {first} to {end - 1}, row group {place.number} of {place.file}")
            raise

    def _table(self, group: int) -> pa.Table:
        """A row group, from memory if it was read lately."""
        with self._lock:
            if group not in self._cache:
                self._cache[group] = self._read(group)
                self.groups_read += 1
                while len(self._cache) > self._cached_groups:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(group)
            return self._cache[group]


def _open(file: str, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """A Parquet file behind a path or URI; `metadata` spares reading the footer again."""
    system, path = locate(file)
    try:
        return pq.ParquetFile(path, filesystem=system, metadata=metadata)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the shard {file} is not there, moved or deleted since its export: `sapiens2 artifacts verify` tells what "
            "an artifact lacks, `sapiens2 run` makes it again; a run is never continued without one of its shards"
        ) from error
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} is not a Parquet file: {error}") from error
