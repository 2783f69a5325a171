"""What a pool is made of: a deterministic list of sources, cut into partitions, with a digest of the whole.

A pool is a folder (every file is a source but for what belongs to one, see curation.images.layouts; .tar and .parquet
files with image bytes are opened, .parquet files with a url column are lists), a WebDataset .tar, a
Parquet file with image bytes, or a list of URLs (.txt, .csv, .tsv, .parquet); local, or under s3://. The name of a
source never holds the place of its pool, so two copies of a folder have one digest and equal tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from curation.images import archives, url_lists
from curation.images.items import SourceItem
from curation.images.layouts import Layout, told_by
from curation.images.places import Place, PoolFile

_URL_LISTS = (".txt", ".csv", ".tsv", ".parquet")
_HASH_THREADS = 8


@dataclass(frozen=True)
class Partition:
    """A unit of work and of commit. `pid`: its index, which orders partitions, and a hash of its items."""

    pid: str
    items: list[SourceItem]


@dataclass(frozen=True)
class Listing:
    """A whole pool: its partitions in order, the sha256 (hex) of its content, how many sources and bytes.

    `url_list` is the sha256 (hex) of the file when the pool is a list of URLs, `fetch_epoch` which try of it this is,
    `denylists` are the sha256 (hex) of lists of what is refused.
    """

    partitions: list[Partition]
    content: str
    n_sources: int
    n_bytes: int
    url_list: str | None = None
    fetch_epoch: int = 0
    denylists: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 (hex) of all that determines what comes of the pool; of a list of URLs each try has its own."""
        digest = self.content
        if self.url_list is not None:
            digest = hashlib.sha256(f"urls {self.url_list} epoch {self.fetch_epoch}".encode()).hexdigest()
        if not self.denylists:
            return digest
        return hashlib.sha256(" ".join([digest, *sorted(self.denylists)]).encode()).hexdigest()


def list_pool(pool: str, *, rows_per_partition: int, bytes_per_partition: int, fetch_epoch: int) -> Listing:
    """Lists a pool. Raises ValueError when it is missing, empty, no known list, or a list without a url column."""
    place, url_list = Place.of(pool), None
    if place.is_directory():
        items, content, n_bytes = _folder(place)
    else:
        items, content, n_bytes, url_list = _single_file(place)
    if not items:
        raise ValueError(f"{pool} is empty; give a folder with pictures, or a list with at least one row")
    items = _unique_names(items)
    partitions = _partitions(items, rows_per_partition, bytes_per_partition)
    return Listing(partitions, content, len(items), n_bytes, url_list, fetch_epoch)


def _folder(place: Place) -> tuple[list[SourceItem], str, int]:
    files = place.files()
    with ThreadPoolExecutor(_HASH_THREADS) as threads:
        sums = list(threads.map(PoolFile.sha256, files))
    items: list[SourceItem] = []
    beside = Layout([file.name for file in files])
    by_name = {file.name: file for file in files}
    for file, sha256 in zip(files, sums, strict=True):
        if beside.is_sidecar(file.name) and not archives.is_archive(file):
            continue
        if archives.is_archive(file):
            items.extend(archives.members(file))
        elif file.name.lower().endswith(".parquet") and url_lists.is_list(file):
            items.extend(url_lists.read(file))
        else:
            told = told_by([by_name[name] for name in beside.sidecars(file.name)])
            items.append(replace(SourceItem.file(file, sha256), **told))
    return items, _digest(zip(files, sums, strict=True)), sum(file.size for file in files)


def _single_file(place: Place) -> tuple[list[SourceItem], str, int, str | None]:
    file = place.as_file()
    if archives.is_archive(file):
        return list(archives.members(file)), _digest([(file, file.sha256())]), file.size, None
    if not file.name.lower().endswith(_URL_LISTS):
        raise ValueError(
            f"{place.uri} is no folder, .tar, .parquet, nor list of URLs ({', '.join(_URL_LISTS)}); "
            "give the folder that holds it, or rename it to what it is"
        )
    items, sha256 = url_lists.read(file), file.sha256()
    return items, sha256, 0, sha256


def _digest(files: Iterable[tuple[PoolFile, str]]) -> str:
    lines = sorted([file.name, file.size, sha256] for file, sha256 in files)
    return hashlib.sha256(json.dumps(lines, separators=(",", ":")).encode()).hexdigest()


def _unique_names(items: Sequence[SourceItem]) -> list[SourceItem]:
    """A source listed again (a URL twice in a list) is a source of its own: `name#2`, `name#3`."""
    seen: dict[str, int] = {}
    unique = []
    for item in items:
        seen[item.source] = n = seen.get(item.source, 0) + 1
        unique.append(item if n == 1 else replace(item, source=f"{item.source}#{n}"))
    return unique


def _partitions(items: Sequence[SourceItem], max_rows: int, max_bytes: int) -> list[Partition]:
    groups: list[list[SourceItem]] = [[]]
    weight = 0
    for item in items:
        if groups[-1] and (len(groups[-1]) >= max_rows or weight + item.n_bytes > max_bytes):
            groups.append([])
            weight = 0
        groups[-1].append(item)
        weight += item.n_bytes
    return [Partition(f"{index:05d}-{_identity(group)}", group) for index, group in enumerate(groups)]


def _identity(items: Sequence[SourceItem]) -> str:
    lines = [[item.source, item.kind, item.n_bytes, item.sha256] for item in items]
    return hashlib.sha256(json.dumps(lines, separators=(",", ":")).encode()).hexdigest()[:8]
