"""Rows about a few pictures or sources, out of tables of any size: only the columns asked for, only where they lie."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from components.artifacts import Artifact
from components.manifest import FileEntry
from components.picture_index import PictureIndex
from components.storage import Storage

if TYPE_CHECKING:  # what the index answers is told before pyarrow is loaded
    import pyarrow as pa
    import pyarrow.parquet as pq

FEW = 1000  # rows that are read with all their columns at once
SOUGHT = 8  # texts that are looked for one by one


class RowFinder:
    """The rows of artifacts whose key is one of some values; `wanted` are the values by the key's column.

    A file is read once, however many versions list it or hold the same bytes, and not at all where `index` has it.
    """

    def __init__(self, index: PictureIndex | None = None, **wanted: Iterable[str]) -> None:
        self._wanted = {key: set(values) for key, values in wanted.items()}
        self._index = index
        self._indexed = {key: index.rows(key, values) for key, values in self._wanted.items()} if index else {}
        self._known: dict[tuple[str, str, tuple[str, ...]], list[dict[str, Any]]] = {}
        self._places: set[str | None] = set()  # partitions in which some of the values were found

    def asked(self, key: str) -> int:
        """How many values of a key are wanted."""
        return len(self._wanted[key])

    def rows(
        self, artifact: Artifact, table: str, key: str, columns: Sequence[str], *, once: bool = False
    ) -> list[dict[str, Any]]:
        """These columns of the rows of a table, partitions in order.

        once: no value has two rows in the table, so nothing is read after the last of them was found. Stages keep a
        picture in the partition that it came in, so those where others found it are tried first.
        """
        if not self.asked(key):
            return []
        entries = [entry for group in artifact.partitions(table).values() for entry in group]
        likely = [entry for entry in entries if once and entry.partition in self._places]
        others = [entry for entry in entries if not (once and entry.partition in self._places)]
        few = len(entries) == 1 or bool(likely)

        def find(entry: FileEntry) -> list[dict[str, Any]]:
            return self._found(artifact.storage, entry, key, columns, few=few)

        found: dict[str, list[dict[str, Any]]] = {}
        steps = [[entry] for entry in others] if once and artifact.storage.local else [others]
        for step in ([likely] if likely else []) + steps:
            found |= zip([entry.path for entry in step], artifact.storage.each(find, step), strict=True)
            if once and sum(map(len, found.values())) >= self.asked(key):
                break
        if once:
            self._places |= {entry.partition for entry in entries if found.get(entry.path)}
        return [row for entry in entries for row in found.get(entry.path, [])]

    def _found(
        self, storage: Storage, entry: FileEntry, key: str, columns: Sequence[str], *, few: bool
    ) -> list[dict[str, Any]]:
        """The rows of one file. few: some are probably there, so a small one is read with all columns at once."""
        asked = (entry.sha256, key, tuple(columns))
        if self._index is not None and self._index.holds(entry.sha256, key):
            said = self._indexed[key].get(entry.sha256, [])
            if all(row.keys() >= set(columns) for row in said):
                return [{name: row[name] for name in columns} for row in said]
        if asked not in self._known:
            read = self._read_all if few and (entry.rows or 0) <= FEW else self._read
            self._known[asked] = read(storage, entry, key, columns) if entry.rows else []
        return self._known[asked]

    def _read(self, storage: Storage, entry: FileEntry, key: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The key's column first, then the rest of the row groups that hold one of the values."""
        import pyarrow.parquet as pq

        with storage.fs.open_input_file(storage.path(entry.path)) as stream:
            file, found = pq.ParquetFile(stream), []
            rows = self._among(file.read(columns=[key], use_threads=False)[key], key)
            for group, inside in _by_group(file.metadata, rows):
                part = file.read_row_group(group, columns=list(columns), use_threads=False)
                found += [part.slice(row, 1).to_pylist()[0] for row in inside]
        return found

    def _read_all(self, storage: Storage, entry: FileEntry, key: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """All at once, which for few rows is quicker than twice."""
        import pyarrow.parquet as pq

        with storage.fs.open_input_file(storage.path(entry.path)) as stream:
            table = pq.ParquetFile(stream).read(columns=list({*columns, key}), use_threads=False)
        part = table.select(list(columns))
        return [part.slice(row, 1).to_pylist()[0] for row in self._among(table[key], key)]

    def _among(self, column: pa.ChunkedArray, key: str) -> list[int]:
        return places(column, value_set(self._wanted[key]))


def places(column: pa.ChunkedArray, wanted: pa.Array) -> list[int]:
    """The rows of a column of texts that hold one of `wanted` (texts, none twice), in order.

    A few are looked for in the bytes as they lie in memory: loading Arrow's functions takes longer than all of that.
    """
    import pyarrow as pa

    texts = [value.as_buffer().to_pybytes() for value in wanted] if len(wanted) <= SOUGHT else [b""]
    if column.type != pa.string() or not all(texts):
        return _places_by_arrow(column, wanted)
    found, start = [], 0
    for chunk in column.chunks:
        found += [start + row for text in texts for row in _rows_with(chunk, text)]
        start += len(chunk)
    return sorted(found)


def _places_by_arrow(column: pa.ChunkedArray, wanted: pa.Array) -> list[int]:
    import pyarrow.compute as pc

    rows: list[int] = pc.indices_nonzero(pc.is_in(column, value_set=wanted)).to_pylist()
    return rows


def _rows_with(chunk: pa.StringArray, text: bytes) -> Iterator[int]:
    """Rows of an array that are this text, which is not empty."""
    _, offsets, data = chunk.buffers()
    if not len(chunk) or data is None:
        return
    first = chunk.offset
    ends = memoryview(offsets).cast("i")[first : first + len(chunk) + 1]
    whole = data.slice(ends[0], ends[-1] - ends[0]).to_pybytes()
    at = whole.find(text)
    while at >= 0:
        row = bisect_right(ends, at + ends[0]) - 1
        same = ends[row] == at + ends[0] and ends[row + 1] - ends[row] == len(text)
        if same and chunk[row].is_valid:
            yield row
        at = whole.find(text, at + 1)


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
    import pyarrow as pa

    texts = [value.encode() for value in sorted(set(values))]
    offsets = array("i", accumulate((len(text) for text in texts), initial=0))
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))
