"""Rows about a few pictures or sources, out of tables of any size: only the columns asked for, only where they lie."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.artifacts import Artifact
from components.manifest import FileEntry
from components.storage import Storage

FEW = 1000  # rows of a table's only file that are read with all their columns at once


class RowFinder:
    """The rows of artifacts whose key is one of some values; `wanted` are the values by the key's column.

    A file is read once, however many versions list it or hold the same bytes.
    """

    def __init__(self, **wanted: Iterable[str]) -> None:
        self._wanted = {key: value_set(values) for key, values in wanted.items()}
        self._known: dict[tuple[str, str, tuple[str, ...]], list[dict[str, Any]]] = {}

    def rows(self, artifact: Artifact, table: str, key: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """These columns of the rows of a table, partitions in order."""
        entries = [entry for group in artifact.partitions(table).values() for entry in group]
        whole = len(entries) == 1 and (entries[0].rows or 0) <= FEW

        def found(entry: FileEntry) -> list[dict[str, Any]]:
            asked = (entry.sha256, key, tuple(columns))
            if asked not in self._known:
                read = self._read_all if whole else self._read
                self._known[asked] = read(artifact.storage, entry, key, columns) if entry.rows else []
            return self._known[asked]

        return [row for rows in artifact.storage.each(found, entries) for row in rows]

    def _read(self, storage: Storage, entry: FileEntry, key: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The key's column first, then the rest of the row groups that hold one of the values."""
        with storage.fs.open_input_file(storage.path(entry.path)) as stream:
            file, found = pq.ParquetFile(stream), []
            rows = self._among(file.read(columns=[key], use_threads=False)[key], key)
            for group, inside in _by_group(file.metadata, rows):
                part = file.read_row_group(group, columns=list(columns), use_threads=False)
                found += [part.slice(row, 1).to_pylist()[0] for row in inside]
        return found

    def _read_all(self, storage: Storage, entry: FileEntry, key: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """All at once, which for few rows is quicker than twice."""
        with storage.fs.open_input_file(storage.path(entry.path)) as stream:
            table = pq.ParquetFile(stream).read(columns=list({*columns, key}), use_threads=False)
        part = table.select(list(columns))
        return [part.slice(row, 1).to_pylist()[0] for row in self._among(table[key], key)]

    def _among(self, column: pa.ChunkedArray, key: str) -> list[int]:
        wanted = self._wanted[key]
        return pc.indices_nonzero(pc.is_in(column, value_set=wanted)).to_pylist() if len(wanted) else []


def _by_group(metadata: pq.FileMetaData, rows: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """The row groups that hold these rows of a file, in order, with the places of the rows in them."""
    start, left = 0, list(rows)
    for group in range(metadata.num_row_groups if left else 0):
        end = start + metadata.row_group(group).num_rows
        inside = [row - start for row in left if row < end]
        if inside:
            yield group, inside
        start, left = end, left[len(inside) :]
        if not left:
            return


def value_set(values: Iterable[str]) -> pa.Array:
    """Texts as Arrow has them, sorted.

    Built from bytes: from a Python list, pyarrow would import pandas first, a quarter of a second.
    """
    texts = [value.encode() for value in sorted(set(values))]
    offsets = array("i", accumulate((len(text) for text in texts), initial=0))
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))
