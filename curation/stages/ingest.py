"""ingest: a pool of sources becomes distinct images with sizes and hashes, and rejects with reasons.

List, fetch or read, header gate, exact dedup, validate by one full decode, perceptual hash. Partitions are independent;
`settle` then decides which partition owns an image that several hold. Conservation: sources = sum(images.n_sources) +
rejects, at every moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import model_validator

from curation.config import Config, execution, recipe
from curation.images import phash
from curation.images.decode import decode_grey
from curation.images.denylist import Denylist, denylisted
from curation.images.fetch_policy import FetchPolicy
from curation.images.header import MAX_PIXELS, Header, read_header
from curation.images.items import SourceItem
from curation.images.metadata import read_metadata
from curation.images.reading import read_all
from curation.images.reasons import Reason, Reject
from curation.images.screening import load_screen, read_denylists
from curation.images.sources import Listing, Partition, list_pool
from curation.stages import ingest_report
from curation.tables import IMAGES, REJECTS, SOURCES, from_rows, image_id, source_id

__all__ = [
    "IngestConfig",
    "IngestPartition",
    "Listing",
    "Partition",
    "Settlement",
    "apply_settlement",
    "fragment",
    "list_sources",
    "profile_config",
    "settle",
]


class IngestConfig(Config):
    """What is taken into `images`, and how the sources are reached."""

    min_side_px: int = recipe(224, "shortest accepted side of an image, in upright pixels", ge=1)
    max_pixels: int = recipe(MAX_PIXELS, "most pixels that a header may claim, in pixels", ge=1, le=MAX_PIXELS)
    max_aspect: float = recipe(4.0, "largest accepted ratio of the long side to the short side, no unit", ge=1.0)
    max_bytes: int = recipe(64 << 20, "largest accepted file, in bytes", ge=1)
    hash_path: str = recipe(phash.CANONICAL_PATH, "name of the way perceptual hashes are made; not to be chosen")
    fetch_epoch: int | None = recipe(
        None, "which try of a list of URLs, as a count from 0; the newest under the root where it is not given", ge=0
    )
    retry_failed: bool = execution(
        False, "whether addresses of which the newest try failed for now are asked again, yes or no; makes the next try"
    )
    fetch_anew: bool = recipe(False, "whether another fetch_epoch fetches every address again, yes or no")
    respect_robots: bool = recipe(True, "whether robots.txt is asked before fetching, yes or no")
    respect_tdm: bool = recipe(True, "whether reservations of text and data mining are honoured, yes or no")
    screen: str = recipe(
        "",
        "function MODULE:NAME of your own that sees the bytes of every picture before a person does, and returns None, "
        "or in a word why the picture is refused (minors, explicit); none by default",
    )
    denylist_files: tuple[str, ...] = execution(
        (), "files or s3:// addresses of hashes and addresses that are refused (see docs/removal.md); content counts"
    )
    workers: int = execution(2, "processes that ingest partitions side by side; 0 works in the calling process", ge=0)
    rows_per_partition: int = execution(256, "most sources in one unit of work, as a count", ge=1)
    bytes_per_partition: int = execution(256 << 20, "most listed bytes in one unit of work, in bytes", ge=1)
    fetch_concurrency: int = execution(32, "requests at a time in one partition, as a count", ge=1)
    fetch_per_host: int = execution(4, "requests at a time to one host, as a count", ge=1)
    fetch_timeout_s: float = execution(30.0, "time for one request with its body, in seconds", gt=0)
    fetch_retries: int = execution(2, "further tries after a transient failure, as a count", ge=0)
    fetch_backoff_s: float = execution(0.5, "wait before the first further try, doubled each time, in seconds", ge=0)
    fetch_patience_s: float = execution(30.0, "longest pause a host may ask for and be waited for, in seconds", ge=0)
    host_interval_s: float = execution(0.1, "time between two requests to one host, in seconds", ge=0)
    robots_ttl_s: float = execution(86_400.0, "how long a host's policy files are kept, in seconds", ge=0, le=86_400.0)
    max_redirects: int = execution(5, "redirects that one request may follow, as a count", ge=0)
    user_agent: str = execution(FetchPolicy.user_agent, "how requests name themselves, as text", min_length=3)
    allow_private_addresses: bool = execution(False, "whether loopback and private hosts may be fetched, yes or no")

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.min_side_px**2 > self.max_pixels:
            raise ValueError(
                f"min_side_px={self.min_side_px} leaves no image within max_pixels={self.max_pixels}; lower min_side_px"
            )
        if self.hash_path != phash.CANONICAL_PATH:
            raise ValueError(f"hash_path={self.hash_path!r}: this version makes {phash.CANONICAL_PATH!r}; leave it out")
        if self.retry_failed and self.fetch_epoch is not None:
            raise ValueError(
                f"fetch_epoch={self.fetch_epoch} names a try and retry_failed asks for the next one: give one of them"
            )
        if self.screen:
            load_screen(self.screen)
        return self

    def policy(self, state_folder: str | None = None) -> FetchPolicy:
        """The part of this configuration that fetching needs; `state_folder` is what workers share about hosts."""
        return FetchPolicy(
            max_bytes=self.max_bytes,
            timeout_s=self.fetch_timeout_s,
            max_redirects=self.max_redirects,
            retries=self.fetch_retries,
            backoff_s=self.fetch_backoff_s,
            concurrency=self.fetch_concurrency,
            per_host=self.fetch_per_host,
            patience_s=self.fetch_patience_s,
            host_interval_s=self.host_interval_s,
            robots_ttl_s=self.robots_ttl_s,
            state_folder=state_folder,
            respect_robots=self.respect_robots,
            respect_tdm=self.respect_tdm,
            user_agent=self.user_agent,
            allow_private_addresses=self.allow_private_addresses,
        )


def profile_config(profile: str) -> IngestConfig:
    """Ingest uses no model, so every profile (builtin, small, full) has the same configuration."""
    return IngestConfig()


def list_sources(pool: str, config: IngestConfig) -> Listing:
    """Lists a pool (see curation.images.sources). Raises ValueError when it is missing, empty or no known kind.

    The content of `config.denylist_files` enters the digest: another list makes other images. So does the try of a list
    of URLs, the first where `config.fetch_epoch` is not given.
    """
    listing = list_pool(
        pool,
        rows_per_partition=config.rows_per_partition,
        bytes_per_partition=config.bytes_per_partition,
        fetch_epoch=config.fetch_epoch or 0,
    )
    if not config.denylist_files:
        return listing
    lists = [hashlib.sha256(text.encode()).hexdigest() for _, text in read_denylists(config.denylist_files)]
    return replace(listing, denylists=tuple(lists))


@dataclass(frozen=True)
class _Accepted:
    header: Header
    grey32: NDArray[np.uint8]  # [32,32]


@dataclass
class _Rows:
    """What a partition has gathered so far; `images` by image_id, in order of first sight."""

    sources: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    greys: list[NDArray[np.uint8]] = field(default_factory=list)
    verdicts: dict[str, _Accepted | Reject] = field(default_factory=dict)


class IngestPartition:
    """Turns a partition into its `sources`, `images` and `rejects`; picklable, built once per worker.

    `state_folder`, for curation.images.host_state, is on a disk that the workers of a machine share. `denylist`: what
    is refused before it is fetched or read.
    """

    def __init__(
        self, config: IngestConfig, state_folder: str | None = None, *, denylist: Denylist | None = None
    ) -> None:
        self.config, self.policy = config, config.policy(state_folder)
        self.denylist = denylist or Denylist()

    def __call__(self, partition: Partition, known: Mapping[str, bytes | Reject] | None = None) -> dict[str, pa.Table]:
        """`known` has outcomes by source that an earlier run settled and that are not fetched again."""
        rows = _Rows()
        refused = {item.source: self.denylist.address(item.location) for item in partition.items if item.kind == "url"}
        wanted = [item for item in partition.items if refused.get(item.source) is None]
        read = read_all(wanted, self.policy, known)
        for item in partition.items:
            self._add(rows, *((item, reject) if (reject := refused.get(item.source)) else next(read)))
        return {
            "sources": from_rows(rows.sources, SOURCES),
            "images": _images_table(rows),
            "rejects": from_rows(rows.rejects, REJECTS),
        }

    def _add(self, rows: _Rows, item: SourceItem, data: bytes | Reject) -> None:
        identity = None if isinstance(data, Reject) else image_id(data)
        verdict = self._verdict(rows, identity, data)
        name = {"source_id": source_id(item.source), "source": item.source}
        told = {"caption": item.caption, "licence": item.licence}
        if isinstance(verdict, Reject) and verdict.reason is Reason.DENYLISTED:  # nothing else is kept of it
            item, told, identity = replace(item, extra=None), {}, None
        if isinstance(verdict, Reject):
            reason = verdict.reason.value
            rows.sources.append({**name, **told, "reason": reason, "extra": item.extra})
            rows.rejects.append({**name, "image_id": identity, "reason": reason, "detail": verdict.detail})
            return
        assert identity is not None and isinstance(data, bytes)
        rows.sources.append({**name, **told, "image_id": identity, "extra": item.extra})
        if identity in rows.images:
            rows.images[identity]["n_sources"] += 1
        else:
            rows.images[identity] = {**_describe(identity, item.source, data, verdict.header), **told}
            rows.greys.append(verdict.grey32)

    def _verdict(self, rows: _Rows, identity: str | None, data: bytes | Reject) -> _Accepted | Reject:
        """What `examine` says, once for identical bytes."""
        if isinstance(data, Reject) or identity is None:
            return data if isinstance(data, Reject) else examine(data, self.config)
        if identity not in rows.verdicts:
            rows.verdicts[identity] = self.denylist.content(data) or self._examine(data)
        return rows.verdicts[identity]

    def _examine(self, data: bytes) -> _Accepted | Reject:
        verdict = examine(data, self.config)
        if isinstance(verdict, Reject):
            return verdict
        refused = None
        if self.denylist.phashes:
            codes, mirrors, _ = phash.hashes(verdict.grey32[None])
            refused = self.denylist.looks(int(codes[0]), int(mirrors[0]))
        word = load_screen(self.config.screen)(data) if refused is None and self.config.screen else None
        return refused or (denylisted(f"the screen: {word}") if word else verdict)


def examine(data: bytes, config: IngestConfig) -> _Accepted | Reject:
    """The gates of one image in order of cost: header, size, aspect, then a full decode that proves it whole."""
    header = read_header(data, max_pixels=config.max_pixels)
    if isinstance(header, Reject):
        return header
    short, long = sorted((header.width, header.height))
    if short < config.min_side_px:
        return Reject(Reason.TOO_SMALL, f"{header.width} x {header.height}, short side under {config.min_side_px}")
    if long > config.max_aspect * short:
        return Reject(Reason.EXTREME_ASPECT, f"{header.width} x {header.height}, ratio over {config.max_aspect:g}")
    grey = decode_grey(data, header, min_side=phash.MIN_SIDE_PX)
    return grey if isinstance(grey, Reject) else _Accepted(header, phash.thumbnail(grey))


def _describe(identity: str, source: str, data: bytes, header: Header) -> dict[str, Any]:
    return {
        "image_id": identity,
        "source": source,
        "n_sources": 1,
        "format": header.format,
        "width": header.width,
        "height": header.height,
        "orientation": header.orientation,
        "n_bytes": len(data),
        "metadata": read_metadata(header),
        "bytes": data,
    }


def _images_table(rows: _Rows) -> pa.Table:
    greys = np.stack(rows.greys) if rows.greys else np.zeros((0, phash.SIDE, phash.SIDE), np.uint8)
    codes, mirrors, quality = phash.hashes(greys)
    hashed = zip(rows.images.values(), codes.tolist(), mirrors.tolist(), quality.tolist(), strict=True)
    return from_rows(
        [{**row, "phash": code, "phash_mirror": mirror, "phash_quality": q} for row, code, mirror, q in hashed], IMAGES
    )


@dataclass(frozen=True)
class Settlement:
    """What one partition's images table must change: rows that another partition owns, totals of rows it shares."""

    elsewhere: frozenset[str] = frozenset()
    n_sources: dict[str, int] = field(default_factory=dict)


def settle(narrow: Iterable[tuple[str, pa.Table]]) -> dict[str, Settlement]:
    """Which partition owns each image: the first in order of pid. `narrow`: (pid, images table, without bytes).

    Every pid is in the result; memory grows with the number of distinct images.
    """
    tables = sorted(narrow, key=lambda pair: pair[0])
    owner: dict[str, str] = {}
    total: dict[str, int] = {}
    elsewhere: dict[str, set[str]] = {pid: set() for pid, _ in tables}
    for pid, table in tables:
        for identity, n in zip(table["image_id"].to_pylist(), table["n_sources"].to_pylist(), strict=True):
            if owner.setdefault(identity, pid) != pid:
                elsewhere[pid].add(identity)
            total[identity] = total.get(identity, 0) + n
    shared: dict[str, dict[str, int]] = {pid: {} for pid, _ in tables}
    for identity in {identity for others in elsewhere.values() for identity in others}:
        shared[owner[identity]][identity] = total[identity]
    return {pid: Settlement(frozenset(elsewhere[pid]), shared[pid]) for pid, _ in tables}


def apply_settlement(images: pa.Table, settlement: Settlement) -> pa.Table:
    """The rows of `images` that the partition owns, with `n_sources` over all partitions."""
    if settlement.elsewhere:
        mine = pc.invert(pc.is_in(images["image_id"], value_set=pa.array(sorted(settlement.elsewhere), pa.string())))
        images = images.filter(mine)
    if not settlement.n_sources:
        return images
    ids, counts = images["image_id"].to_pylist(), images["n_sources"].to_pylist()
    totals = [settlement.n_sources.get(identity, n) for identity, n in zip(ids, counts, strict=True)]
    at = images.schema.get_field_index("n_sources")
    return images.set_column(at, images.schema.field(at), pa.array(totals, pa.int32()))


def fragment(sources: pa.Table, images: pa.Table, rejects: pa.Table, config: IngestConfig) -> dict[str, Any]:
    """What the report shows, from the settled tables of all partitions; `images` needs no bytes."""
    return ingest_report.fragment(sources, images, rejects, config.min_side_px)
