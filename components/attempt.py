"""Writing a version: partitions one by one, each done for good, the manifest last.

Every attempt writes under names of its own, and a partition counts once its marker is there; so a killed run loses the
partitions in flight and nothing else, with no rename needed (S3 has none).
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from components.artifacts import Artifact, Store, parquet_bytes
from components.digest import add_digests, table_digest, type_name
from components.manifest import MANIFEST, FileEntry, Manifest
from components.storage import out_of_reach

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 90.0
WATCH_SECONDS = 2 * HEARTBEAT_SECONDS


class Conflict(ValueError):
    """Another writer committed a different content, or is at work on a step that must have one writer."""


@dataclass(frozen=True)
class PartitionRecord:
    """A finished partition: its files, the digest of each table, what was counted."""

    pid: str
    files: list[FileEntry]
    digests: dict[str, str]
    schema: dict[str, dict[str, str]]
    metrics: dict[str, Any]


@dataclass
class Attempt:
    """One try at writing `kind/version`. Picklable: workers write partitions, the driver publishes."""

    root: str
    kind: str
    version: str
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    row_group_rows: int = 256

    @property
    def store(self) -> Store:
        """The store, opened where it is used."""
        return Store(self.root)

    @property
    def folder(self) -> str:
        """Path of the version, relative to the root."""
        return f"{self.kind}/{self.version}"

    def uri(self, relative: str) -> str:
        """Absolute path or URI of something inside the version folder."""
        return self.store.storage.full(f"{self.folder}/{relative}")

    def done(self, stage: str = "parts") -> dict[str, PartitionRecord]:
        """Finished partitions of this version, by id, whichever attempt wrote them."""
        storage, found = self.store.storage, {}
        for path, is_file, _, _ in storage.list(f"{self.folder}/{stage}"):
            if is_file and path.endswith(".json"):
                raw = json.loads(storage.read(path))
                files = [FileEntry(**entry) for entry in raw.pop("files")]
                found[raw["pid"]] = PartitionRecord(files=files, **raw)
        return dict(sorted(found.items()))

    def write_partition(
        self, pid: str, tables: Mapping[str, pa.Table], metrics: dict[str, Any], stage: str = "parts"
    ) -> PartitionRecord:
        """Write the tables of one partition, then its marker."""
        storage, files = self.store.storage, []
        for table_name, table in tables.items():
            suffix = "" if table_name == "data" else f".{table_name}"
            path = f"{self.folder}/{stage}/{pid}-{self.name}{suffix}.parquet"
            data = parquet_bytes(table, self.row_group_rows)
            storage.write(path, data)
            files.append(file_entry(path, data, table=table_name, partition=pid, rows=table.num_rows))
        record = PartitionRecord(
            pid=pid,
            files=files,
            digests={name: f"{table_digest(table, name):064x}" for name, table in tables.items()},
            schema={name: {f.name: type_name(f.type) for f in table.schema} for name, table in tables.items()},
            metrics=metrics,
        )
        marker = {**record.__dict__, "files": [entry.model_dump() for entry in files]}
        storage.write(f"{self.folder}/{stage}/{pid}.json", json.dumps(marker).encode())
        return record

    def write_file(self, name: str, data: bytes) -> FileEntry:
        """Write a loose file of the version (a card, a fragment, weights)."""
        path = f"{self.folder}/{name}"
        self.store.storage.write(path, data)
        return file_entry(path, data)

    def existing_file(self, name: str) -> FileEntry:
        """List a file that a training job already wrote inside the version folder."""
        path = f"{self.folder}/{name}"
        return file_entry(path, self.store.storage.read(path))

    def publish(
        self, manifest: Manifest, records: Mapping[str, PartitionRecord], digest: str | None, loose: list[FileEntry]
    ) -> Artifact:
        """Commit: the manifest with every file, digest and schema, written last.

        `digest` overrides the tables' own. An existing manifest wins; raises Conflict when its digest differs.
        """
        if records:
            digest = add_digests(int(d, 16) for record in records.values() for d in record.digests.values())
        files = [entry for record in records.values() for entry in record.files] + loose
        schema = {name: columns for record in records.values() for name, columns in record.schema.items()}
        whole = manifest.model_copy(update={"digest": digest, "files": files, "tables": schema})
        store = self.store
        if store.committed(self.kind, self.version):
            first = store.get(self.kind, self.version)
            if first.manifest.digest != digest:
                raise Conflict(
                    f"{self.folder} was committed by another run with digest {first.manifest.digest}, this run has "
                    f"{digest}: the step is not deterministic on these machines; `sapiens2 artifacts verify` tells more"
                )
            return first
        store.storage.write(f"{self.folder}/{MANIFEST}", whole.dump())
        return Artifact(store.storage, whole)

    def sweep(self) -> None:
        """Delete what the commit left over: working state, and the parts of attempts that did not win."""
        storage = self.store.storage
        listed = {entry.path for entry in self.store.get(self.kind, self.version).manifest.files}
        for path, is_file, _, _ in list(storage.list(self.folder, recursive=True)):
            if is_file and path not in listed and not path.endswith((f"/{MANIFEST}", "/lease.json")):
                storage.delete(path)
        for folder in ("work", "staging"):
            storage.delete_folder(f"{self.folder}/{folder}")


class Lease:
    """A heartbeat in the version folder: tells `gc` that somebody works here, and keeps a second writer out.

    With `exclusive`, a live lease of another process raises Conflict; that of a dead process on this host, or one that
    has stopped beating, is taken over. A lease whose time is old or lies ahead may come from a clock that was moved or
    goes wrong: then it is watched for two heartbeats.
    """

    def __init__(self, attempt: Attempt, *, exclusive: bool) -> None:
        self.path, self.storage, self.exclusive = f"{attempt.folder}/lease.json", attempt.store.storage, exclusive
        self.manifest = f"{attempt.folder}/{MANIFEST}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Lease:
        if self.exclusive and self.storage.exists(self.path):
            self._refuse_a_holder(self.storage.read(self.path))
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        self._stop.set()
        if error is not None and out_of_reach(error):
            return  # the lease stays, and is taken over when it has stopped beating
        self._thread.join()
        try:
            if self.storage.exists(self.path):
                self.storage.delete(self.path)
        except OSError:
            if error is None:  # else what the step died of is what counts
                raise

    def _refuse_a_holder(self, data: bytes) -> None:
        holder, age = _holder(data)
        if holder is None or holder == self._owner():
            return
        if (age > STALE_SECONDS or age < -HEARTBEAT_SECONDS) and not self._beats(data):
            return
        raise Conflict(
            f"{self.path} is held by process {holder['pid']} on {holder['host']}: the same step is running there; "
            "wait for it, or stop it"
        )

    def _beats(self, before: bytes) -> bool:
        """Whether the holder of a lease writes it anew while we look."""
        deadline = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < deadline:
            time.sleep(min(1.0, WATCH_SECONDS / 10))
            if not self.storage.exists(self.path):
                return False
            if self.storage.read(self.path) != before:
                return True
        return False

    def _owner(self) -> dict[str, Any]:
        return {"host": socket.gethostname(), "pid": os.getpid()}

    def _write(self) -> None:
        self.storage.write(self.path, json.dumps({**self._owner(), "time": time.time()}).encode())

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a hiccup of the storage; the next beat comes soon enough
                if self.storage.exists(self.manifest):
                    return  # another writer has committed; nothing is left to guard
                self._write()


def live_lease(data: bytes) -> dict[str, Any] | None:
    """The owner of a lease that is still alive by its time and process, else None."""
    holder, age = _holder(data)
    return None if age > STALE_SECONDS else holder


def _holder(data: bytes) -> tuple[dict[str, Any] | None, float]:
    """The owner of a lease, None when it is a process of this host that has ended, and the lease's age in seconds."""
    lease = json.loads(data)
    owner, age = {"host": lease["host"], "pid": lease["pid"]}, time.time() - lease["time"]
    if lease["host"] == socket.gethostname():
        try:
            os.kill(lease["pid"], 0)
        except ProcessLookupError:
            return None, age
        except PermissionError:
            return owner, age
    return owner, age


def file_entry(path: str, data: bytes, **more: Any) -> FileEntry:
    """The manifest's line for a file with these bytes."""
    return FileEntry(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), **more)
