"""Forgetting pictures: find everything that holds them, take them out, see to it that they never come back.

`find` changes nothing. `carry_out` may be killed at any moment; the same call continues.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components import listing, picture_index
from components.artifacts import Artifact, ArtifactError, Store, parquet_bytes, read_parquet
from components.attempt import live_lease
from components.explain import consumed_by
from components.lineage import descendants
from components.redaction import Redaction, address_of, count_rows, rows_about
from components.removals import Removal, removal_id, removals, write
from components.steps import BY_PRODUCT, LABELS

CACHE = "cache"
SHOW_PICTURES = {*BY_PRODUCT.values(), LABELS.kind, "report"}  # kinds whose pages may show pictures of the pool


@dataclass
class Found:
    """What a removal touches."""

    removal: Removal
    rows: dict[str, int] = field(default_factory=dict)  # rows about the pictures, by KIND=VERSION
    pages: list[str] = field(default_factory=list)  # KIND=VERSION whose pages may show them
    cached: dict[str, int] = field(default_factory=dict)  # rows of the score cache by file
    attempts: list[str] = field(default_factory=list)  # files of runs that were never committed
    unknown: list[str] = field(default_factory=list)  # asked for, and nowhere under the root


def requested(lines: Iterable[str], where: str, *, numbered: bool = False) -> list[str]:
    """Image ids (a sha256 counts as one) and URLs, one a line.

    Raises ValueError naming a line that is neither; numbered: with its number in the file `where`.
    """
    from curation.images.denylist import entry

    asked: set[str] = set()
    for number, line in enumerate(lines, 1):
        place = f"{where}, line {number}" if numbered else where
        try:
            kind, value = entry(line, place) or ("", "")
        except ValueError:
            kind, value = "nothing", line
        if kind not in ("url", "id", "sha256", ""):
            raise ValueError(
                f"{place}: {line.strip()[:80]!r} does not name one picture; give an image id (32 hex digits), a sha256 "
                "(64) or a URL. Hosts and other hashes go into ingest.denylist_files"
            )
        if kind:
            asked.add(value if kind == "url" else value[:32])
    if not asked:
        raise ValueError(f"{where} names no picture; write image ids, sha256 or URLs, one a line")
    return sorted(asked)


def find(store: Store, asked: list[str], *, copies: bool = False) -> Found:
    """What would be removed. A removal that was interrupted is found as it was begun.

    copies: also every picture that dedup put into one group with them.
    """
    name = removal_id([*asked, *["--copies"] * copies])
    known = {removal.id: removal for removal in removals(store.storage)}
    found = Found(known[name]) if name in known else _new(store, name, asked, copies)
    removal = found.removal
    redaction = Redaction(store, name, removal.image_ids, removal.urls)
    touched: set[str] = set()
    for artifact in store.all():
        if held := redaction.held(artifact):
            found.rows[repr(artifact)] = sum(held.values())
            if artifact.kind == "images":
                touched |= {repr(made) for made in descendants(store, artifact).values()}
    touched |= set(removal.artifacts)
    if found.rows or removal.state != "done":
        found.pages = sorted(key for key in touched if _shows(store, key))
    found.cached = _tables_below(store, CACHE, redaction.ids)
    found.attempts = _strays(store, redaction.ids)
    return found


def _shows(store: Store, key: str) -> bool:
    """Whether the pages of KIND=VERSION may show pictures of the pool: also what was trained or measured on labels."""
    kind, _, version = key.partition("=")
    if kind in SHOW_PICTURES:
        return True
    inputs = store.get(kind, version).manifest.inputs if store.committed(kind, version) else []
    return any(ref.kind == LABELS.kind for ref in inputs)


def _new(store: Store, name: str, asked: list[str], copies: bool) -> Found:
    """A request that is new: its pictures, their addresses, and what was trained on them."""
    ids, urls = {a for a in asked if "://" not in a}, {a for a in asked if "://" in a}
    images = {artifact: _sources(artifact) for artifact in store.all("images")}
    rows = [row for sources in images.values() for row in sources]
    here = {i for _, i in rows} | {address_of(source) for source, i in rows if i}
    ids |= {i for source, i in rows if i and address_of(source) in urls}
    if copies:
        for artifact in store.all("deduped"):
            ids |= _group_mates(artifact, ids)
    urls |= {address_of(source) for source, i in rows if i in ids and "://" in source}
    holding = [artifact for artifact, sources in images.items() if any(i in ids for _, i in sources)]
    removal = Removal(
        id=name,
        asked=asked,
        image_ids=sorted(ids),
        urls=sorted(urls),
        copies=copies,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        artifacts=sorted({repr(made) for artifact in holding for made in descendants(store, artifact).values()}),
        consumers={repr(backbone): sorted(found) for backbone, found in consumed_by(store, ids)},
    )
    return Found(removal, unknown=[each for each in asked if each not in here])


def _sources(artifact: Artifact) -> list[tuple[str, str | None]]:
    table = artifact.read("sources", ["source", "image_id"])
    return list(zip(table["source"].to_pylist(), table["image_id"].to_pylist(), strict=True))


def _group_mates(artifact: Artifact, ids: set[str]) -> set[str]:
    table = artifact.read(columns=["image_id", "group_id"])
    mask = pc.is_in(table["image_id"], value_set=pa.array(sorted(ids), pa.string()))
    mates = table.filter(pc.is_in(table["group_id"], value_set=table.filter(mask)["group_id"].combine_chunks()))
    return set(mates["image_id"].to_pylist())


def _parquet_below(store: Store, folder: str) -> list[str]:
    files = store.storage.list(folder, recursive=True)
    return [path for path, is_file, _, _ in files if is_file and path.endswith(".parquet")]


def _tables_below(store: Store, folder: str, ids: pa.Array, but: Collection[str] = ()) -> dict[str, int]:
    """Rows about the pictures by Parquet file below a folder, where there are any."""
    files = [path for path in _parquet_below(store, folder) if path not in but]
    counts = {path: count_rows(store.storage, path, ids) for path in files}
    return {path: count for path, count in counts.items() if count}


def _strays(store: Store, ids: pa.Array) -> list[str]:
    """Files about the pictures that no manifest lists: of runs that did not end, and what a redaction replaced."""
    listed = {entry.path for artifact in store.all() for entry in artifact.manifest.files}
    return [path for kind in store.kinds() for path in _tables_below(store, kind, ids, listed)]


def refuse_running(store: Store) -> None:
    """Raises ArtifactError while a step runs under the root: it may hold a picture in memory."""
    for kind in store.kinds():
        for folder, is_file, _, _ in store.storage.list(kind):
            path = f"{folder}/lease.json"
            if not is_file and store.storage.exists(path) and live_lease(store.storage.read(path)):
                raise ArtifactError(f"a step is at work in {folder}; wait for it, or stop it, and repeat the removal")


def carry_out(store: Store, found: Found) -> Removal:
    """Remove. Returns the finished record. Raises ArtifactError while a step runs under the root."""
    refuse_running(store)
    removal, storage = found.removal, store.storage
    pending = removal.model_copy(update={"state": "pending"})
    write(storage, pending)
    redaction = Redaction(store, removal.id, removal.image_ids, removal.urls)
    for key in sorted({*found.rows, *found.pages}):
        kind, _, version = key.partition("=")
        if store.committed(kind, version):
            redaction.redact(store.get(kind, version), pages=key in found.pages)
    for path in _strays(store, redaction.ids):
        _forget_partition(store, path)
    for path in found.cached:
        _rewrite_cached(store, path, redaction.ids)
    _sweep(store, {*found.rows, *removal.artifacts})
    listing.drop(storage)
    picture_index.drop(storage)  # after the old files are gone: see there
    done = pending.model_copy(update={"state": "done"})
    write(storage, done)
    return done


def _forget_partition(store: Store, path: str) -> None:
    """Delete a file of an attempt and the marker of its partition, marker first: the next attempt does it anew."""
    folder, _, name = path.rpartition("/")
    for marker, is_file, _, _ in list(store.storage.list(folder)):
        if is_file and marker.endswith(".json") and name.startswith(marker.rsplit("/", 1)[-1].removesuffix(".json")):
            listed = [entry["path"] for entry in json.loads(store.storage.read(marker)).get("files", [])]
            if path in listed:
                store.storage.delete(marker)
    store.storage.delete(path)


def _rewrite_cached(store: Store, path: str, ids: pa.Array) -> None:
    """A file of the score cache without the pictures; named by its content, as the cache names it."""
    from components.score_cache import file_name

    table = read_parquet(store.storage, path)
    kept: Any = table.filter(pc.invert(rows_about(table, ids)))
    if kept.num_rows:
        rows = dict(zip(kept["image_id"].to_pylist(), kept["values"].to_pylist(), strict=True))
        store.storage.write(f"{path.rsplit('/', 1)[0]}/{file_name(rows)}", parquet_bytes(kept))
    store.storage.delete(path)


def _sweep(store: Store, keys: set[str]) -> None:
    """Delete the files of these versions that no manifest lists any more."""
    listed = {entry.path for artifact in store.all() for entry in artifact.manifest.files}
    for key in sorted(keys):
        kind, _, version = key.partition("=")
        if store.committed(kind, version):
            stale = _parquet_below(store, f"{kind}/{version}/parts")
            if kind == LABELS.kind:  # copies of pictures, where a kill came between the manifest and their deletion
                below = store.storage.list(f"{kind}/{version}/out", recursive=True)
                stale += [path for path, is_file, _, _ in below if is_file]
            for path in stale:
                if path not in listed:
                    store.storage.delete(path)
