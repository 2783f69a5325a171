"""Looking after a root: verify what lies there, collect what nothing refers to."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from components import picture_index
from components.artifacts import Artifact, ArtifactError, Store, read_parquet
from components.attempt import live_lease
from components.digest import add_digests, table_digest
from components.lineage import Key, ancestors

VERSION = re.compile(r"[0-9a-f]{16}")


def verify(store: Store, artifact: Artifact) -> list[str]:
    """What is wrong with an artifact: files missing, of another size or hash, rows that no longer give its digest."""
    problems, digests = [], []
    for entry in artifact.manifest.files:
        try:
            data = store.storage.read(entry.path)
        except FileNotFoundError:
            problems.append(f"{entry.path} is missing")
            continue
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            problems.append(f"{entry.path} has other bytes than the manifest says ({len(data)} against {entry.bytes})")
        elif entry.table is not None:
            digests.append(table_digest(read_parquet(store.storage, entry.path), entry.table))
    if digests and not problems and add_digests(digests) != artifact.manifest.digest:
        problems.append("the rows give another digest than the manifest says")
    return problems


@dataclass(frozen=True)
class Garbage:
    """A version that nothing refers to."""

    kind: str
    version: str
    bytes: int
    why: str


def garbage(store: Store, older_than_seconds: float) -> Iterator[Garbage]:
    """Versions that no tag and no artifact behind a tag refers to, and attempts that were never committed.

    Skips what was touched less than `older_than_seconds` ago, and what somebody works on (a live lease).
    """
    held = _held(store)
    shared = {path for key in held for path in _paths(store, key)}
    now = time.time()
    for kind in store.kinds():
        for folder, is_file, _, _ in store.storage.list(kind):
            version = folder.rsplit("/", 1)[-1]
            if is_file or not VERSION.fullmatch(version) or (kind, version) in held:
                continue
            files = [(p, size, at) for p, f, size, at in store.storage.list(folder, recursive=True) if f]
            newest = max((at for _, _, at in files), default=0.0)
            if now - newest < older_than_seconds or _worked_on(store, folder) or any(p in shared for p, _, _ in files):
                continue
            why = "no tag leads to it" if store.committed(kind, version) else "never committed"
            yield Garbage(kind, version, sum(size for _, size, _ in files), why)


def _held(store: Store) -> set[Key]:
    """What a tag leads to. Raises ArtifactError where there are no tags: then everything would be garbage."""
    tags = store.tags()
    if not tags:
        raise ArtifactError(f"{store.root} has no tags, so it is no root that a run has written; nothing is collected")
    held: set[Key] = set()
    for reference in tags.values():
        kind, _, version = reference.partition("=")
        if store.committed(kind, version):  # a version may have been deleted by hand
            held |= set(ancestors(store, [store.get(kind, version)], missing_ok=True))
    return held


def collect(store: Store, item: Garbage) -> None:
    """Delete a version: the manifest first, so that nobody reads half of it; and what an index had of it."""
    if store.committed(item.kind, item.version):
        store.storage.delete(f"{item.kind}/{item.version}/manifest.json")
    store.storage.delete_folder(f"{item.kind}/{item.version}")
    picture_index.drop(store.storage)


def _paths(store: Store, key: Key) -> list[str]:
    return [entry.path for entry in store.get(*key).manifest.files]


def _worked_on(store: Store, folder: str) -> bool:
    path = f"{folder}/lease.json"
    return store.storage.exists(path) and live_lease(store.storage.read(path)) is not None
