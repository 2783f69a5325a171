"""A folder of labelled data as samples by index, and the digest of all that lies in it."""

from __future__ import annotations

import hashlib

from sapiens2.data.labelled.layout import DATASET, FILES, JSONL, PARQUET, LabelError, Row, read_facts, read_index
from sapiens2.data.labelled.read import read_sample
from sapiens2.engine import storage
from sapiens2.tasks.sample import Sample


class LabelledDataset:
    """The rows of a folder that are labelled for a task, of one split or (None) of all."""

    def __init__(self, folder: str, task: str, split: str | None = "train") -> None:
        """folder: a path or URI. Raises LabelError when the index is wrong or no row is left."""
        self.folder, self.task, self.facts = folder, task, read_facts(folder)
        self.rows = [row for row in read_index(folder) if row.has(task) and split in (None, row.split)]
        if not self.rows:
            which = "" if split is None else f" of the split {split!r}"
            raise LabelError(
                folder, f"has no row{which} labelled for {task}", "see `sapiens2 data check` for what it has"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int) -> Sample:
        """The sample of an index in [0, len). Raises LabelError naming the file that is wrong."""
        return read_sample(self.folder, self.facts, self.rows[index], self.task)


_KNOWN: dict[tuple[str, int, int], str] = {}


def data_digest(folder: str, task: str | None = None, *, skip_missing: bool = False) -> str:
    """sha256 over the sorted (path, size, sha256) of index, description and every file that a row names.

    task: only the rows and label files that the task reads. Raises LabelError for a file that is missing, unless they
    are skipped: then the digest has it as missing, so that it changes once the file is there.
    """
    rows = [row for row in read_index(folder) if task is None or row.has(task)]
    names = {row_file for row in rows for row_file in _files(row)}
    names |= {name for name in (DATASET, JSONL, PARQUET) if storage.exists(storage.join(folder, name))}
    digest = hashlib.sha256()
    for name in sorted(names):
        try:
            size, sha256 = _fingerprint(folder, name)
        except LabelError:
            if not skip_missing:
                raise
            size, sha256 = 0, "missing"
        digest.update(f"{name}\0{size}\0{sha256}\n".encode())
    return digest.hexdigest()


def _files(row: Row) -> list[str]:
    return [name for column in FILES if (name := getattr(row, column)) is not None]


def _fingerprint(folder: str, name: str) -> tuple[int, str]:
    """Size and sha256; a local file that has not changed since this process read it is not read again.

    Raises LabelError where no file is.
    """
    path = storage.join(folder, name)
    try:
        if storage.is_remote(path):
            return storage.fingerprint(path)
        stat = storage.local_path(path).stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in _KNOWN:
            _KNOWN[key] = storage.fingerprint(path)[1]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise LabelError(path, "is not there", "paths in the index are relative to its folder") from error
    return stat.st_size, _KNOWN[key]
