"""Rows of removed pictures taken out of committed artifacts: files rewritten, manifests marked, the old files deleted.

Every step may be killed and repeated: new files have names that follow from the removal, a manifest is replaced in one
write, and old files go only when no manifest lists them any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.artifacts import Artifact, Store, parquet_bytes, read_parquet
from components.attempt import file_entry
from components.digest import MODULUS, table_digest
from components.manifest import MANIFEST, FileEntry, Manifest
from components.steps import LABELS
from components.storage import Storage
from curation.images.denylist import BY_ADDRESS, BY_BYTES, denylisted
from curation.tables import REJECTS, SOURCES, from_rows

ID_COLUMNS = ("image_id", "a", "b")  # of a row that is about a picture; `a` and `b` are the ends of an edge
ROW_WISE = ("images", "detections", "scores")  # a row depends on its picture alone, so later runs read them as they are
NOTICE = (
    "<!doctype html><meta charset=utf-8><title>Removed</title><p>This page showed pictures, some of which were removed "
    "on request. Run the step again for a new one.\n"
)


def rows_about(table: pa.Table, ids: pa.Array) -> pa.ChunkedArray | None:
    """Which rows are about one of the pictures; None when the table names no pictures."""
    names = [name for name in ID_COLUMNS if name in table.column_names and pa.types.is_string(table[name].type)]
    masks = [pc.fill_null(pc.is_in(table[name], value_set=ids), False) for name in names]
    whole = masks[0] if masks else None
    for mask in masks[1:]:
        whole = pc.or_(whole, mask)
    return whole


def columns_of(storage: Storage, path: str) -> list[str]:
    """The names of the columns that tell which pictures a Parquet file is about."""
    with storage.fs.open_input_file(storage.path(path)) as stream:
        names = pq.ParquetFile(stream).schema_arrow.names
    return [name for name in ID_COLUMNS if name in names]


def count_rows(storage: Storage, path: str, ids: pa.Array) -> int:
    """How many rows of a Parquet file are about the pictures; reads only the columns that tell."""
    columns = columns_of(storage, path)
    mask = rows_about(read_parquet(storage, path, columns), ids) if columns else None
    return 0 if mask is None else int(pc.sum(mask).as_py() or 0)


class Redaction:
    """Takes pictures out of artifacts. `name`: of the removal, 12 digits; urls: addresses that are denied."""

    def __init__(self, store: Store, name: str, image_ids: Iterable[str], urls: Iterable[str]) -> None:
        self.store, self.storage, self.name = store, store.storage, name
        self.image_ids, self.urls = sorted(set(image_ids)), set(urls)
        self.ids = pa.array(self.image_ids, pa.string())

    def held(self, artifact: Artifact) -> dict[str, int]:
        """Rows about the pictures by file, where there are any."""
        files = [entry.path for entry in artifact.manifest.files if entry.table is not None]
        counts = {path: count_rows(self.storage, path, self.ids) for path in files}
        return {path: count for path, count in counts.items() if count}

    def redact(self, artifact: Artifact, *, pages: bool) -> Artifact:
        """The artifact without the pictures, committed anew under its version.

        pages: whether its pages may show them; they then lose all their pictures, or are replaced by a notice.
        """
        held = self.held(artifact)
        files, digest, lost = [], int(artifact.manifest.digest or "0", 16), 0
        gone: list[str] = []
        rejected = self._rejected(artifact) if artifact.kind == "images" and held else {}
        for entry in artifact.manifest.files:
            if entry.path in held or (entry.table in ("sources", "rejects") and entry.partition in rejected):
                old = read_parquet(self.storage, entry.path)
                new = self._without(old, entry, rejected)
                digest += table_digest(new, str(entry.table)) - table_digest(old, str(entry.table))
                lost += old.num_rows - new.num_rows if entry.table in ("data", "images") else 0
                entry = self._write_table(artifact, entry, new)
            elif artifact.kind == LABELS.kind and self._named(entry):
                gone.append(entry.path)
                continue
            elif pages and entry.table is None:
                entry = self._page(artifact, entry)
            files.append(entry)
        if files == artifact.manifest.files:
            return artifact
        ids = sorted({*artifact.manifest.redacted, *(self.image_ids if held else [])})
        update: dict[str, Any] = {"files": files, "redacted": ids}
        if held and artifact.manifest.digest is not None:
            update["digest"] = f"{digest % MODULUS:064x}"
        if artifact.kind in ROW_WISE:
            update["metrics"] = self._metrics(artifact.manifest, lost, rejected)
        manifest = artifact.manifest.model_copy(update=update)
        self.storage.write(f"{artifact.folder}/{MANIFEST}", manifest.dump())
        for path in gone:
            self.storage.delete(path)
        return Artifact(self.storage, manifest)

    def _named(self, entry: FileEntry) -> bool:
        """Whether a loose file is a copy of one of the pictures, or its mask: labels name those by the picture's id."""
        return entry.table is None and PurePosixPath(entry.path).stem in self.image_ids

    def _rejected(self, artifact: Artifact) -> dict[str, list[dict[str, Any]]]:
        """Sources of the pictures by partition, as the rejects that a new ingest would make of them."""
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in artifact.manifest.files_of("sources"):
            table = read_parquet(self.storage, entry.path, ["source_id", "source", "image_id"])
            rows = table.filter(rows_about(table, self.ids)).to_pylist()
            for row in rows:
                reject = denylisted(BY_ADDRESS if address_of(row["source"]) in self.urls else BY_BYTES)
                found.setdefault(entry.partition or "", []).append(
                    {**row, "image_id": None, "reason": reject.reason.value, "detail": reject.detail}
                )
        return found

    def _without(self, table: pa.Table, entry: FileEntry, rejected: dict[str, list[dict[str, Any]]]) -> pa.Table:
        rows = rejected.get(entry.partition or "", [])
        if entry.table == "rejects":
            return pa.concat_tables([table, from_rows(rows, REJECTS)])
        mask = rows_about(table, self.ids)
        kept = table.filter(pc.invert(mask))
        if entry.table != "sources" or not rows:
            return kept
        bare = [{name: row[name] for name in ("source_id", "source", "reason")} for row in rows]
        return pa.concat_tables([kept, from_rows(bare, SOURCES)])

    def _write_table(self, artifact: Artifact, entry: FileEntry, table: pa.Table) -> FileEntry:
        with self.storage.fs.open_input_file(self.storage.path(entry.path)) as stream:
            metadata = pq.ParquetFile(stream).metadata
        group_rows = metadata.row_group(0).num_rows if metadata.num_row_groups else 1
        data = parquet_bytes(table, group_rows)
        path = self._new_path(artifact, entry.path)
        self.storage.write(path, data)
        return file_entry(path, data, table=entry.table, partition=entry.partition, rows=table.num_rows)

    def _new_path(self, artifact: Artifact, path: str) -> str:
        old = PurePosixPath(path)
        stem = old.stem.split("~")[0]
        return f"{artifact.folder}/parts/{stem}~{self.name}{old.suffix}"

    def _page(self, artifact: Artifact, entry: FileEntry) -> FileEntry:
        """A loose file without pictures: pages become a notice, fragments lose their contact sheets."""
        edits: dict[str, Callable[[bytes], bytes]] = {
            ".html": lambda _: NOTICE.encode(),
            ".json": self._json,
            ".jsonl": self._lines,
        }
        edit = edits.get(PurePosixPath(entry.path).suffix)
        if edit is None:
            return entry
        old = self.storage.read(entry.path)
        data = edit(old)
        if data != old:
            self.storage.write(entry.path, data)
        return file_entry(entry.path, data)  # that of the file as it is now: a kill may have come before the manifest

    def _json(self, data: bytes) -> bytes:
        """Without `images` sections, and without the ids; the very bytes when there is neither."""
        raw = json.loads(data)
        clean = stripped(raw, set(self.image_ids))
        return data if clean == raw else json.dumps(clean).encode()

    def _lines(self, data: bytes) -> bytes:
        """JSON lines without those of the pictures: the index of labels."""
        lines = data.splitlines(keepends=True)
        return b"".join(line for line in lines if json.loads(line).get("image_id") not in self.image_ids)

    def _metrics(self, manifest: Manifest, lost: int, rejected: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """The counts that later reports add up, as a new run would have them."""
        metrics = dict(manifest.metrics)
        sources = sum(map(len, rejected.values()))
        if not lost:
            return metrics
        if manifest.kind == "images":
            dropped = {**metrics["dropped"], "denylisted": metrics["dropped"].get("denylisted", 0) + sources}
            counts = {"kept": metrics["kept"] - sources, "images": metrics["images"] - lost}
            headline = f"{counts['images']} distinct pictures"
            return metrics | counts | {"dropped": dict(sorted(dropped.items())), "headline": headline}
        return metrics | {name: metrics[name] - lost for name in ("rows_in", "kept") if name in metrics}


def stripped(value: Any, ids: set[str]) -> Any:
    """JSON without contact sheets (sections of type `images`) and without the ids in its lists and keys."""
    if isinstance(value, dict):
        return {key: stripped(each, ids) for key, each in value.items() if key not in ids}
    if isinstance(value, list):
        kept = (v for v in value if not (isinstance(v, str) and v in ids))
        return [stripped(v, ids) for v in kept if not (isinstance(v, dict) and v.get("type") == "images")]
    return value


def address_of(source: str) -> str:
    """The URL of a source of a list: a URL that was listed twice is the source `URL#2`."""
    base, mark, number = source.rpartition("#")
    return base if mark and number.isdecimal() and "://" in base else source
