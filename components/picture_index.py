"""What small versions say of each picture, kept in one file of the root, so that a question opens hardly any table.

Two thousand versions are a thousand small tables with a few rows about a picture, and opening them takes longer than
all else. The index keeps their rows by picture, by the sha256 of the file that they are from. It speaks only of files
that a manifest lists, in the bytes that it lists; so a version that was deleted, redacted or made anew is never told of
from it. A lost, torn, old or locked index, or one that cannot be written, costs time and nothing else: whatever it does
not hold is read from the tables.

It holds ids and addresses. Whoever removes pictures calls `drop` after the old files are gone; an index that was opened
before that is no longer the root's, and one that is made after it finds nothing of them to read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import Artifact, read_parquet
from components.manifest import FileEntry
from components.storage import Storage

INDEX = "index/pictures.sqlite"
PATIENCE_SECONDS = 0.5  # with whoever reads or writes it at the same time
FORMAT = 1  # one of another format, or for other columns, is made anew
WORTH_MAKING = 64  # files that the versions list, those of several as often; fewer are read as quickly
SMALL_ROWS = 10_000  # of a version; a larger one has few files for its rows, and is read
AT_ONCE_ROWS = 100_000  # that one question adds; the next goes on
LARGEST_BYTES = 256 << 20  # of the index
SOURCES = "sources"
OTHER = "*"
SOURCE_COLUMNS = ("source", "source_id", "image_id", "reason")
SCHEMA = """
CREATE TABLE meta (format INTEGER, shown TEXT);
CREATE TABLE files (number INTEGER PRIMARY KEY AUTOINCREMENT, sha256 TEXT UNIQUE, keys TEXT);
CREATE TABLE rows (value TEXT, key TEXT, file INTEGER, place INTEGER, said TEXT,
                   PRIMARY KEY (value, key, file, place)) WITHOUT ROWID;
CREATE TABLE sources (source TEXT, source_id TEXT, image_id TEXT, reason TEXT, file INTEGER);
CREATE INDEX sources_by_source_id ON sources (source_id);
CREATE INDEX sources_by_image_id ON sources (image_id);
"""


@dataclass(frozen=True)
class Shown:
    """The columns of a table that name its pictures, and those that are told of them."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]


Columns = Mapping[str, Mapping[str, Shown]]  # by kind and table; the table `*` stands for any other of its kind


class PictureIndex:
    """Rows of files by picture."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self._base = base
        files = base.execute("SELECT sha256, number, keys FROM files")
        self._files: dict[str, tuple[int, list[str]]] = {sha: (n, keys.split()) for sha, n, keys in files}
        self._shas = {number: sha for sha, (number, _) in self._files.items()}

    def close(self) -> None:
        """Let others write it again."""
        self._base.close()

    def refuse_garbage(self, used: set[str]) -> None:
        """Raises sqlite3.DatabaseError when most of what is here is of files that nothing lists any more."""
        if len(self._files) > 2 * len(used & set(self._files)) + WORTH_MAKING:
            raise sqlite3.DatabaseError("garbage")

    def holds(self, sha256: str, key: str) -> bool:
        """Whether the rows of a file are here by a key."""
        return sha256 in self._files and key in self._files[sha256][1]

    def rows(self, key: str, values: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
        """All rows of which `key` is one of the values, by the sha256 of their file, in the file's order."""
        found: dict[str, list[tuple[int, str]]] = {}
        for value in values:
            asked = self._base.execute("SELECT file, place, said FROM rows WHERE value = ? AND key = ?", (value, key))
            for file, place, said in asked:
                if file in self._shas:
                    found.setdefault(self._shas[file], []).append((place, said))
        return {sha: [json.loads(said) for _, said in sorted(told)] for sha, told in found.items()}

    def named(self, reference: str, files: Iterable[str], *, end: bool, prefix: bool, ids: Iterable[str]) -> set[str]:
        """source_ids in files (sha256) of sources: of the source `reference`, or of a picture among `ids`.

        end: also of sources that end with it, after `/` or `::`. prefix: also of pictures whose id begins with it.
        """
        tests, values = ["source = ?"], [reference]
        if end:
            for tail in (f"/{reference}", f"::{reference}"):
                tests, values = [*tests, f"substr(source, -{len(tail)}) = ?"], [*values, tail]
        if prefix:
            tests, values = [*tests, "image_id BETWEEN ? AND ?"], [*values, reference, f"{reference}g"]
        for each in ids:
            tests, values = [*tests, "image_id = ?"], [*values, each]
        asked = self._base.execute(f"SELECT source_id, file FROM sources WHERE {' OR '.join(tests)}", values)
        here = self._numbers(files)
        return {source_id for source_id, file in asked if file in here}

    def sources(self, source_ids: Iterable[str], files: Iterable[str]) -> Iterator[dict[str, Any]]:
        """source_id, image_id and reason of every row about these sources in the files (sha256), in no order."""
        here = self._numbers(files)
        for each in source_ids:
            asked = self._base.execute("SELECT image_id, reason, file FROM sources WHERE source_id = ?", (each,))
            for image_id, reason, file in asked:
                if file in here:
                    yield {"source_id": each, "image_id": image_id, "reason": reason}

    def _numbers(self, files: Iterable[str]) -> set[int]:
        return {self._files[sha][0] for sha in files if sha in self._files}


def opened(storage: Storage, artifacts: Sequence[Artifact], shown: Columns) -> PictureIndex | None:
    """The index of a local root, with what it lacked of these artifacts; None where there is none and none is needed.

    `artifacts`: all under the root of the kinds in `shown`. None too where it cannot be used: in an object store, or
    while another process makes it.
    """
    if not storage.local:
        return None
    for _ in range(2):
        try:
            return _opened(storage, artifacts, shown)
        except sqlite3.OperationalError:  # locked, gone, no right to write, no space
            return None
        except sqlite3.DatabaseError:  # torn, or of no use any more
            if not drop(storage):
                return None
    return None


def drop(storage: Storage) -> bool:
    """Delete the index, if there is one; False where that cannot be done."""
    if not storage.local:
        return False
    path = Path(storage.path(INDEX))
    try:
        for name in (path.name, f"{path.name}-journal"):
            path.with_name(name).unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _opened(storage: Storage, artifacts: Sequence[Artifact], shown: Columns) -> PictureIndex | None:
    path, about = Path(storage.path(INDEX)), repr(sorted((k, sorted(v.items())) for k, v in shown.items()))
    used = [(artifact, list(_told(artifact, shown))) for artifact in artifacts]
    with ExitStack() as opening:
        base = found = None
        if path.is_file() and path.stat().st_size:
            base = opening.enter_context(closing(_connected(f"{path.as_uri()}?mode=rw")))
            found = _snapshot(base, about)
            found.refuse_garbage({entry.sha256 for _, files in used for entry, _ in files})
        lacking = list(_lacking(used, found))
        worth = path.stat().st_size <= LARGEST_BYTES if found else sum(len(f) for _, f in used) >= WORTH_MAKING
        if lacking and worth:
            try:
                path.parent.mkdir(exist_ok=True)
                base = base or opening.enter_context(closing(_connected(f"{path.as_uri()}?mode=rwc")))
                _extend(base, about, storage, lacking)
            except (OSError, sqlite3.OperationalError):  # of a root that cannot be written, or that another writes
                if found is None:
                    return None
            found = _snapshot(base, about) if base is not None else None
        opening.pop_all()
        return found


def _connected(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=PATIENCE_SECONDS, isolation_level=None)


def _snapshot(base: sqlite3.Connection, about: str) -> PictureIndex:
    """The index as it is now; until `base` is closed nobody can write it.

    Raises sqlite3.DatabaseError for one of another format or for other columns.
    """
    if not base.in_transaction:
        base.execute("BEGIN")
    tables = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "meta" not in tables or base.execute("SELECT format, shown FROM meta").fetchall() != [(FORMAT, about)]:
        raise sqlite3.DatabaseError("another index")
    return PictureIndex(base)


def _told(artifact: Artifact, shown: Columns) -> Iterator[tuple[FileEntry, Shown]]:
    """The files of an artifact that something is told from."""
    tables = shown[artifact.kind]
    for entry in artifact.manifest.files:
        each = tables.get(entry.table, tables.get(OTHER)) if entry.table and entry.rows else None
        if each is not None:
            yield entry, each


def _lacking(
    used: Iterable[tuple[Artifact, list[tuple[FileEntry, Shown]]]], index: PictureIndex | None
) -> Iterator[tuple[FileEntry, Shown]]:
    """The files of small artifacts that are not in the index, each once."""
    seen: set[str] = set()
    for _, files in used:
        if sum(entry.rows or 0 for entry, _ in files) > SMALL_ROWS:
            continue
        for entry, shown in files:
            known = index is not None and all(index.holds(entry.sha256, key) for key in shown.keys)
            if not known and entry.sha256 not in seen:
                seen.add(entry.sha256)
                yield entry, shown


def _extend(base: sqlite3.Connection, about: str, storage: Storage, lacking: Sequence[tuple[FileEntry, Shown]]) -> None:
    """Put some more files into the index. Raises OperationalError while another process does."""
    if base.in_transaction:
        base.execute("COMMIT")
    base.execute("PRAGMA cache_spill = OFF")  # who reads is not kept out before the end
    base.execute("BEGIN IMMEDIATE")
    try:
        if not base.execute("SELECT name FROM sqlite_master").fetchall():
            for statement in SCHEMA.split(";"):
                base.execute(statement)
            base.execute("INSERT INTO meta VALUES (?, ?)", (FORMAT, about))
        rows = 0
        for entry, shown in lacking:
            if rows < AT_ONCE_ROWS and _add(base, storage, entry, shown):
                rows += entry.rows or 0
        base.execute("COMMIT")
    finally:
        if base.in_transaction:
            base.execute("ROLLBACK")


def _add(base: sqlite3.Connection, storage: Storage, entry: FileEntry, shown: Shown) -> bool:
    """Add the rows of a file; one that cannot be read, or is of other columns, is left to whoever reads it."""
    import pyarrow as pa

    try:
        table = read_parquet(storage, entry.path, [*shown.keys, *shown.columns], use_threads=False)
    except (OSError, pa.ArrowException):
        return False
    if not {*shown.keys, *shown.columns} <= set(table.column_names):
        return False
    listed = "INSERT OR REPLACE INTO files (sha256, keys) VALUES (?, ?)"
    number = base.execute(listed, (entry.sha256, " ".join(shown.keys))).lastrowid
    rows = table.to_pylist()
    if entry.table == SOURCES:
        each = ((*(row[name] for name in SOURCE_COLUMNS), number) for row in rows)
        base.executemany("INSERT INTO sources VALUES (?, ?, ?, ?, ?)", each)
        return True
    for key in shown.keys:
        said = ((row[key], key, number, place, json.dumps(row)) for place, row in enumerate(rows) if row[key])
        base.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", said)
    return True
