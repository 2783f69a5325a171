"""What lies under a root in an object store, from few requests: listings for what is there, an index for what it says.

A listing of S3 gives the names of the manifests and their ETags, a thousand keys a request, but not their content. The
index keeps of each manifest what a list shows, by its ETag. It is never trusted over the listing: an artifact is there
if and only if its manifest is listed, and an entry counts only while the ETag is the listed one. What has no such entry
is read, manifest by manifest, and whoever had to read several writes the index anew: a list, or a step that has just
published. So a lost, torn or old index, or one that two wrote at once, costs time and nothing else.

The index holds no row, no picture's id and no address: nothing of a removed picture can stay behind in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from components.manifest import MANIFEST, Manifest
from components.storage import Storage

INDEX = "index/manifests-1.json"  # another number for another format: each reads and writes its own
WORTH_WRITING = 4  # entries that were missing or stale
PAGE = 1000  # keys that S3 gives at once, at most

Key = tuple[str, str]  # kind, version


@dataclass(frozen=True)
class Summary:
    """What a list shows of an artifact. `rows`: by table; `bytes`: of all files that its manifest lists."""

    kind: str
    version: str
    step: str
    digest: str | None
    end: str
    bytes: int
    rows: dict[str, int]

    @classmethod
    def of(cls, manifest: Manifest) -> Summary:
        """The summary of a manifest."""
        return cls(
            kind=manifest.kind,
            version=manifest.version,
            step=manifest.step,
            digest=manifest.digest,
            end=manifest.end,
            bytes=sum(entry.bytes for entry in manifest.files),
            rows={table: sum(entry.rows or 0 for entry in manifest.files_of(table)) for table in manifest.tables},
        )


@dataclass(frozen=True)
class Entry:
    """A line of the index: a summary and the ETag of the manifest that it is of."""

    etag: str
    summary: Summary


def listed(storage: Storage, kinds: Iterable[str]) -> dict[Key, str] | None:
    """The ETag of every manifest of these kinds, by kind and version; None where listings cannot tell.

    They can on S3. What fails there is None too: the slower way that follows is patient, and says what is wrong.
    """
    client = storage.client
    if client is None:
        return None
    from botocore.exceptions import BotoCoreError, ClientError

    kinds = list(kinds)
    try:
        found = storage.each(lambda kind: _etags(client, *_bucket(storage, f"{kind}/")), kinds)
    except (BotoCoreError, ClientError):
        return None
    return {
        (kind, version): etag for kind, by_version in zip(kinds, found, strict=True) for version, etag in by_version
    }


def _bucket(storage: Storage, relative: str) -> tuple[str, str]:
    bucket, _, key = storage.path(relative).partition("/")
    return bucket, key


def _etags(client: Any, bucket: str, prefix: str) -> list[tuple[str, str]]:
    """Version and ETag of every `<prefix><version>/manifest.json`.

    Keys come in order. A page that ends behind a version's manifest is followed by the next version, not by the rest of
    this one's files; so a version of any number of files costs at most one request.
    """
    found, after = [], prefix
    while True:
        page = client.list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=after, MaxKeys=PAGE)
        keys = page.get("Contents", [])
        for each in keys:
            version, _, name = each["Key"].removeprefix(prefix).partition("/")
            if name == MANIFEST:
                found.append((version, each["ETag"]))
        if not page["IsTruncated"] or not keys:
            return found
        after = keys[-1]["Key"]
        version, slash, name = after.removeprefix(prefix).partition("/")
        if slash and name >= MANIFEST:
            after = f"{prefix}{version}0"  # "0" is next to "/" in the order of keys


def summaries(storage: Storage, etags: Mapping[Key, str], *, whole: bool) -> list[Summary]:
    """The summaries of listed manifests: by the index where it knows the ETag, else read; in no order.

    `whole`: whether `etags` are those of all kinds. Raises ValueError for a damaged manifest, as reading it does.
    """
    indexed = {(e.summary.kind, e.summary.version): e for e in _read_index(storage)}
    known = {key: e for key, e in indexed.items() if etags.get(key) == e.etag}
    missing = [key for key in etags if key not in known]
    read = {key: entry for key, entry in zip(missing, storage.each(_reader(storage), missing), strict=True) if entry}
    kinds = {kind for kind, _ in etags}
    others = {} if whole else {key: e for key, e in indexed.items() if key[0] not in kinds}
    found = {**known, **read}
    stale = len(indexed) - len(known) - len(others)
    if len(read) + stale >= WORTH_WRITING:
        _write_index(storage, {**others, **found}.values())
    return [entry.summary for entry in found.values()]


def keep_up(storage: Storage, kind: str) -> None:
    """After a version of this kind was published: the index is written anew when it is some versions behind.

    So no list finds more than a few manifests of each kind to read. Costs a listing of the kind and the index; what
    goes wrong here is of no consequence, and the next list says it.
    """
    etags = listed(storage, [kind])
    if etags is None:
        return
    with suppress(OSError, ValueError):
        summaries(storage, etags, whole=False)


def _reader(storage: Storage) -> Any:
    def read(key: Key) -> Entry | None:
        path = "/".join((*key, MANIFEST))
        try:
            data, etag = storage.read_with_etag(path)
        except FileNotFoundError:  # deleted since it was listed
            return None
        return Entry(etag=etag, summary=Summary.of(Manifest.parse(data, storage.full(path))))

    return read


def drop(storage: Storage) -> None:
    """Delete the index, if there is one: whoever lists next makes it anew."""
    if not storage.local and storage.exists(INDEX):
        storage.delete(INDEX)


def _read_index(storage: Storage) -> list[Entry]:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(list[Entry]).validate_json(storage.read_once(INDEX))
    except (FileNotFoundError, ValidationError):  # never written, or damaged: as if it were empty
        return []


def _write_index(storage: Storage, entries: Iterable[Entry]) -> None:
    """Without patience, and without complaint where nothing may be written: the answer does not need it."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = _bucket(storage, INDEX)
    try:
        storage.client.put_object(
            Bucket=bucket, Key=key, Body=json.dumps([asdict(entry) for entry in entries]).encode()
        )
    except (BotoCoreError, ClientError):
        return
