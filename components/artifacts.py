"""The store: immutable versions under one root, a manifest as the commit, tags as names.

<root>/<kind>/<version>/manifest.json      written last: its presence is the commit
<root>/<kind>/<version>/parts/...          rows by partition, each attempt under its own name
<root>/<kind>/<version>/work/...           resumable state while a step runs
<root>/tags/<name>.json                    a human's name for a version
<root>/tags/latest/<name>.json             the newest version by kind, written by a run
<root>/index/                              what lists and `why` would look for; can be deleted at any time
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from components import listing
from components.manifest import MANIFEST, FileEntry, Manifest
from components.steps import LABELS, STEPS
from components.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = frozenset(step.kind for step in (*STEPS.values(), LABELS))
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class ArtifactError(ValueError):
    """An artifact is missing, damaged or ambiguous; the message names it and the mend."""


class Artifact:
    """A committed version: its manifest and the files that the manifest lists."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self.storage, self.manifest = storage, manifest
        self.kind, self.version = manifest.kind, manifest.version

    def __repr__(self) -> str:
        return f"{self.kind}={self.version}"

    @property
    def folder(self) -> str:
        """Path of the version, relative to the root."""
        return f"{self.kind}/{self.version}"

    @property
    def identity(self) -> str:
        """What the versions of later steps depend on: the version, and the content when pictures were removed."""
        return f"{self.version}~{(self.manifest.digest or '')[:16]}" if self.manifest.redacted else self.version

    def partitions(self, table: str) -> dict[str, list[FileEntry]]:
        """The files of a table by partition id, in order."""
        found: dict[str, list[FileEntry]] = {}
        for entry in sorted(self.manifest.files_of(table), key=lambda e: (e.partition or "", e.path)):
            found.setdefault(entry.partition or "", []).append(entry)
        return found

    def read(self, table: str = "data", columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a table, partitions in order. Raises ArtifactError when there is no such table."""
        import pyarrow as pa

        if table not in self.manifest.tables:
            raise ArtifactError(f"{self} has no table {table!r}; it has {sorted(self.manifest.tables)}")
        entries = [entry for group in self.partitions(table).values() for entry in group]
        return pa.concat_tables(read_parquet(self.storage, entry.path, columns) for entry in entries)

    def read_partition(self, table: str, partition: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one partition of a table."""
        import pyarrow as pa

        entries = self.partitions(table)[partition]
        return pa.concat_tables(read_parquet(self.storage, entry.path, columns) for entry in entries)

    def rows(self, table: str = "data") -> int:
        """The number of rows of a table, from the manifest alone."""
        return sum(entry.rows or 0 for entry in self.manifest.files_of(table))

    def file(self, name: str) -> bytes:
        """The bytes of a loose file, by its name inside the version. Raises ArtifactError."""
        return self.storage.read(self.file_path(name))

    def file_path(self, name: str) -> str:
        """The path of a loose file, relative to the root. Raises ArtifactError."""
        wanted = f"{self.folder}/{name}"
        for entry in self.manifest.files:
            if entry.table is None and (entry.path == wanted or entry.path.endswith(f"/{name}")):
                return entry.path
        raise ArtifactError(f"{self} has no file {name!r}")

    def fragment(self) -> dict[str, Any] | None:
        """What the artifact has to show in a report."""
        names = [entry.path for entry in self.manifest.files if entry.path.endswith("/fragment.json")]
        return json.loads(self.storage.read(names[0])) if names else None


class Store:
    """All artifacts under one root."""

    def __init__(self, root: str) -> None:
        self.storage = Storage(root)
        self.root = self.storage.uri

    def committed(self, kind: str, version: str) -> bool:
        """Whether that version is there, whole."""
        return self.storage.exists(f"{kind}/{version}/{MANIFEST}")

    def get(self, kind: str, version: str) -> Artifact:
        """A committed version. Raises ArtifactError when it is absent, ValueError when its manifest is damaged."""
        found = self._read(kind, version)
        if found is None:
            raise ArtifactError(
                f"there is no {kind} of version {version} under {self.root}; `sapiens2 artifacts list` shows what is"
            )
        return found

    def _read(self, kind: str, version: str) -> Artifact | None:
        """A version, or None when it is not committed."""
        path = f"{kind}/{version}/{MANIFEST}"
        try:
            data = self.storage.read_once(path)
        except FileNotFoundError:
            return None
        return Artifact(self.storage, Manifest.parse(data, self.storage.full(path)))

    def kinds(self) -> list[str]:
        """The kinds of the table of steps that have a folder here; what else lies under the root is not ours."""
        return [name for name, is_file, _, _ in self.storage.list("") if not is_file and name in KINDS]

    def versions(self, kind: str) -> list[str]:
        """Committed versions of a kind, by name."""
        if (etags := listing.listed(self.storage, [kind])) is not None:
            return [version for _, version in etags]
        names = self._folders(kind)
        there = self.each(lambda version: self.committed(kind, version), names)
        return [version for version, committed in zip(names, there, strict=True) if committed]

    def _folders(self, kind: str) -> list[str]:
        """Versions of a kind, committed or not."""
        return [name.rsplit("/", 1)[-1] for name, is_file, _, _ in self.storage.list(kind) if not is_file]

    def all(self, kind: str | None = None) -> Iterator[Artifact]:
        """Every committed artifact, oldest first within a kind."""
        kinds = [kind] if kind else self.kinds()
        etags = listing.listed(self.storage, kinds)
        keys = list(self._folders_of(kinds) if etags is None else etags)
        found = [artifact for artifact in self.each(lambda key: self._read(*key), keys) if artifact is not None]
        place = {each: index for index, each in enumerate(kinds)}
        yield from sorted(found, key=lambda a: (place[a.kind], a.manifest.end, a.version))

    def _folders_of(self, kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Kind and version of what is there, committed or not."""
        for kind, found in zip(kinds, self.each(self._folders, kinds), strict=True):
            yield from ((kind, version) for version in found)

    def summaries(self, kind: str | None = None) -> list[listing.Summary]:
        """What a list shows of every committed artifact, in the order of `all`, from S3 by few requests."""
        kinds = [kind] if kind else sorted(KINDS)
        etags = listing.listed(self.storage, kinds)
        if etags is None:
            return [listing.Summary.of(artifact.manifest) for artifact in self.all(kind)]
        found = listing.summaries(self.storage, etags, whole=kind is None)
        return sorted(found, key=lambda summary: (summary.kind, summary.end, summary.version))

    def each(self, ask: Callable[[Asked], Answer], things: Sequence[Asked]) -> list[Answer]:
        """The answers in order; see Storage.each."""
        return self.storage.each(ask, things)

    def look(self) -> Iterator[tuple[str, str, Artifact | ValueError]]:
        """Every committed (kind, version) with its artifact, or with what is wrong with its manifest."""
        for kind in self.kinds():
            for version in self.versions(kind):
                try:
                    yield kind, version, self.get(kind, version)
                except ValueError as problem:
                    yield kind, version, problem

    def find(self, reference: str) -> Artifact:
        """An artifact by `KIND=VERSION`, `KIND` (latest), a tag, or a version or its unique prefix.

        Raises ArtifactError when nothing or more than one matches.
        """
        kind, _, version = reference.partition("=")
        if version:
            return self._by_prefix([kind], version, reference)
        tagged = self.tagged(reference) or self.latest(reference)
        return tagged or self._by_prefix(self.kinds(), reference, reference)

    def _by_prefix(self, kinds: list[str], prefix: str, reference: str) -> Artifact:
        matches = [(kind, version) for kind in kinds for version in self.versions(kind) if version.startswith(prefix)]
        if len(matches) == 1:
            return self.get(*matches[0])
        if matches:
            raise ArtifactError(f"{reference!r} is ambiguous: {', '.join('='.join(m) for m in matches)}")
        raise ArtifactError(
            f"no artifact, tag or version {reference!r} under {self.root}; `sapiens2 artifacts list` shows what is"
        )

    def tag(self, name: str, artifact: Artifact, file: str | None = None) -> None:
        """Give a version a human's name, or one file inside it; a later call moves the name."""
        if not name or any(part in ("", ".", "..") for part in name.split("/")):
            raise ArtifactError(f"{name!r} is no name for a tag; use letters, digits, '-', '_', '.' and '/'")
        record = {"kind": artifact.kind, "version": artifact.version}
        if file is not None:
            record["file"] = artifact.file_path(file).removeprefix(f"{artifact.folder}/")
        self.storage.write(f"tags/{name}.json", json.dumps(record).encode())

    def tagged(self, name: str) -> Artifact | None:
        """The version that a tag names, or None. Raises ArtifactError when tag or version is damaged or gone."""
        try:
            record = self._record(f"tags/{name}.json")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return self.get(record["kind"], record["version"])

    def _record(self, path: str) -> dict[str, str]:
        """The kind and version in a tag's file."""
        try:
            record = json.loads(self.storage.read_once(path))
            return {key: str(record[key]) for key in ("kind", "version", *({"file"} & set(record)))}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"the tag {self.storage.full(path)} is damaged; delete it, and tag the version again"
            ) from error

    def tags(self) -> dict[str, str]:
        """Every tag and the `kind=version` that it names."""
        return {name: f"{record['kind']}={record['version']}" for name, record in self.tag_records().items()}

    def tag_records(self) -> dict[str, dict[str, str]]:
        """kind and version by tag, and the `file` inside the version where a tag names one."""
        listed = self.storage.list("tags", recursive=True)
        paths = [path for path, is_file, _, _ in listed if is_file and path.endswith(".json")]
        names = [path.removeprefix("tags/").removesuffix(".json") for path in paths]
        return dict(zip(names, self.each(self._record, paths), strict=True))

    def tagged_file(self, name: str) -> str | None:
        """The file, by its name inside the version, that a tag points at; None for a tag of a whole version."""
        return self._record(f"tags/{name}.json").get("file")

    def latest(self, name: str) -> Artifact | None:
        """The version that the newest run of this name made or reused (see Step.latest_name), if it is still there."""
        path = f"tags/latest/{name}.json"
        if not self.storage.exists(path):
            return None
        record = self._record(path)
        gone = not self.committed(record["kind"], record["version"])
        return None if gone else self.get(record["kind"], record["version"])


def read_parquet(
    storage: Storage, path: str, columns: Sequence[str] | None = None, *, use_threads: bool = True
) -> pa.Table:
    """A Parquet file below the root; the file's own schema, nothing inferred."""
    import pyarrow.parquet as pq

    with storage.fs.open_input_file(storage.path(path)) as stream:
        return pq.ParquetFile(stream).read(
            columns=list(columns) if columns is not None else None, use_threads=use_threads
        )


def parquet_bytes(table: pa.Table, row_group_rows: int = 256) -> bytes:
    """A table as Parquet: zstd, statistics, small row groups for random access."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=max(1, row_group_rows))
    return buffer.getvalue()
