"""The evaluation sets that dedup keeps a pool apart from: read, hashed and described as the pool's own pictures are.

A set is a folder, .tar or Parquet file of pictures, or a Parquet table of features: `phash`, `phash_mirror` and
`phash_quality`, or `copy_embedding`, or all of them, as `images` and `scores` have them; `source` names the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.dedup.evidence import Pictures
from curation.dedup.geometry import THUMBNAIL_PX
from curation.dedup.keypoints import grey
from curation.images.archives import bytes_column
from curation.images.places import Place
from curation.images.reasons import Reject
from curation.images.sources import Listing, Partition
from curation.models.catalogue import ModelSpec, known
from curation.models.copy_descriptor import DIMS, WEIGHTS, CopyDescriptor, build_copy_descriptor
from curation.models.views import view_of
from curation.stages.ingest import IngestConfig, IngestPartition, list_sources
from curation.stages.score_config import ScoreConfig
from curation.tables import require_columns

HASHES = ("phash", "phash_mirror", "phash_quality")
DESCRIPTOR = "copy_embedding"
_VIEW_PX = ScoreConfig().long_side_px
_TAKEN = IngestConfig(min_side_px=16, max_aspect=100.0)  # an evaluation set is taken as it is


class Names(Protocol):
    """The part of DedupConfig that says what is read."""

    apart_from: tuple[str, ...]
    descriptor: Literal["builtin", "mobilenet", "sscd"] | None


@dataclass(frozen=True)
class References:
    """Pictures of evaluation sets; `sources[k]` is where pictures.image_ids[k] came from, `sets[k]` its set."""

    pictures: Pictures
    sources: list[str]
    sets: list[str]
    small: dict[str, NDArray[np.uint8]]  # grey, long side at most 320 px, by image_id; sets of features have none
    unreadable: dict[str, int]  # files that are no picture, by set

    def thumbnails(self, image_ids: list[str]) -> Mapping[str, NDArray[np.uint8]]:
        """Grey pictures by id; those that are only known by their features are left out."""
        return {image_id: self.small[image_id] for image_id in image_ids if image_id in self.small}


def required_weights(config: Names) -> list[ModelSpec]:
    """The network that describes evaluation pictures, where there are any and the descriptor is one."""
    needed = WEIGHTS[config.descriptor] if config.apart_from and config.descriptor else None
    return [known(needed)] if needed else []


def digest(config: Names) -> str | None:
    """sha256 over the content of all sets, whatever their order; None without any.

    Raises ValueError for a set that is missing, empty, or of no known kind.
    """
    if not config.apart_from:
        return None
    lines = sorted(
        Place.of(uri).as_file().sha256() if _is_features(uri) else _listed(uri).digest for uri in _uris(config)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_references(config: Names, weights: Mapping[str, str]) -> References | None:
    """Every set that the configuration names, read; None without any. Raises ValueError as `digest` does."""
    if not config.apart_from:
        return None
    if config.descriptor is None:
        raise ValueError("dedup.apart_from needs dedup.descriptor: name the copy descriptor that score used")
    descriptor = build_copy_descriptor(config.descriptor, dict(weights))
    parts = [
        _features(uri, config.descriptor) if _is_features(uri) else _pictures(uri, descriptor) for uri in _uris(config)
    ]
    return References(
        Pictures(
            [image_id for part in parts for image_id in part.pictures.image_ids],
            *(
                np.concatenate([getattr(part.pictures, name) for part in parts])
                for name in ("phash", "mirror", "hash_quality", "vectors")
            ),
        ),
        [source for part in parts for source in part.sources],
        [name for part in parts for name in part.sets],
        {image_id: picture for part in parts for image_id, picture in part.small.items()},
        {uri: count for part in parts for uri, count in part.unreadable.items()},
    )


def _uris(config: Names) -> list[str]:
    return sorted(set(config.apart_from))


def _is_features(uri: str) -> bool:
    """Whether a set is a table of features. Raises ValueError for a table of nothing that can be compared."""
    if not uri.lower().endswith(".parquet"):
        return False
    try:
        place = Place.of(uri)
    except ValueError as error:
        raise ValueError(f"an evaluation set of dedup.apart_from: {error}") from error
    if place.is_directory() or bytes_column(place.as_file()) is not None:
        return False
    try:
        with place.as_file().open() as stream:
            names = set(pq.read_schema(stream).names)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{uri} of dedup.apart_from is no Parquet file, or a damaged one: {error}") from error
    if DESCRIPTOR in names or set(HASHES) <= names:
        return True
    if "url" in names:  # listed, and refused with its mend
        return False
    raise ValueError(
        f"{uri} of dedup.apart_from holds neither pictures nor features, only the columns {', '.join(sorted(names))}: "
        f"give it a column of encoded pictures, {DESCRIPTOR}, or {', '.join(HASHES)}"
    )


def _listed(uri: str) -> Listing:
    try:
        listing = list_sources(uri, _TAKEN)
    except ValueError as error:
        raise ValueError(f"an evaluation set of dedup.apart_from: {error}") from error
    remote = [item for partition in listing.partitions for item in partition.items if item.kind == "url"]
    if remote:
        raise ValueError(
            f"{uri} of dedup.apart_from lists URLs: give the pictures themselves, or a Parquet table with "
            f"{', '.join(HASHES)} or {DESCRIPTOR}"
        )
    return listing


def _pictures(uri: str, descriptor: CopyDescriptor) -> References:
    ingest, rows, unreadable = IngestPartition(_TAKEN), [], 0
    for partition in _listed(uri).partitions:
        tables = ingest(Partition(partition.pid, partition.items))
        rows += tables["images"].to_pylist()
        unreadable += tables["rejects"].num_rows
    first = {row["image_id"]: row for row in reversed(rows)}
    ordered = [first[image_id] for image_id in sorted(first)]
    if not ordered:
        raise ValueError(f"{uri} of dedup.apart_from holds no picture that can be read")
    vectors, small = np.zeros((len(ordered), descriptor.dim), np.float32), {}
    for k, row in enumerate(ordered):
        view = view_of(row["image_id"], row["bytes"], width=row["width"], height=row["height"], long_side_px=_VIEW_PX)
        if not isinstance(view, Reject):
            vectors[k] = descriptor.embed([view.pixels])[0]
            small[row["image_id"]] = grey(view.pixels, THUMBNAIL_PX)
    return References(
        Pictures(
            [row["image_id"] for row in ordered],
            np.array([row["phash"] for row in ordered], np.uint64),
            np.array([row["phash_mirror"] for row in ordered], np.uint64),
            np.array([row["phash_quality"] for row in ordered], np.float64),
            vectors.astype(np.float16).astype(np.float32),  # as the score cache keeps them
        ),
        [row["source"] for row in ordered],
        [uri] * len(ordered),
        small,
        {uri: unreadable},
    )


def _features(uri: str, descriptor: str) -> References:
    with Place.of(uri).as_file().open() as stream:
        table = pq.read_table(stream)
    n, dim = table.num_rows, DIMS[descriptor]
    if not n:
        raise ValueError(f"{uri} of dedup.apart_from has no rows")
    names = _column(table, "source") or _column(table, "image_id") or [f"row {k}" for k in range(n)]
    _refuse_types(table, uri)
    vectors = np.zeros((n, dim), np.float32)
    for k, vector in enumerate(_column(table, DESCRIPTOR) or []):
        if vector is not None:
            if len(vector) != dim:
                raise ValueError(
                    f"{uri} of dedup.apart_from has descriptors of {len(vector)} numbers, "
                    f"dedup.descriptor={descriptor} has {dim}: describe both with one copy descriptor"
                )
            vectors[k] = vector
    if not np.isfinite(vectors).all():
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
        raise ValueError(
            f"{uri} of dedup.apart_from: the {DESCRIPTOR} of {len(wrong)} rows holds NaN or infinity, the first is "
            f"{names[wrong[0]]}; describe them anew, or leave null what has none"
        )
    codes = {name: _column(table, name) or [None] * n for name in HASHES}
    if any(name in table.column_names for name in HASHES):
        require_columns(table, HASHES, f"{uri} of dedup.apart_from")
    ids = [f"{hashlib.sha256(f'{uri} {k}'.encode()).hexdigest()[:32]}" for k in range(n)]
    return References(
        Pictures(
            _column(table, "image_id") or ids,
            np.array([v or 0 for v in codes["phash"]], np.uint64),
            np.array([v or 0 for v in codes["phash_mirror"]], np.uint64),
            np.array([v or 0.0 for v in codes["phash_quality"]], np.float64),
            vectors,
        ),
        [str(name) for name in names],
        [uri] * n,
        {},
        {uri: 0},
    )


def _refuse_types(table: pa.Table, uri: str) -> None:
    """Raises ValueError where a column of a table of features is of another kind than `images` and `scores` have."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    for name in (*HASHES, DESCRIPTOR):
        if name not in table.column_names:
            continue
        kind: pa.DataType = table.schema.field(name).type
        if name == DESCRIPTOR:
            right = any(test(kind) for test in lists) and pa.types.is_floating(kind.value_type)
        elif name == "phash_quality":
            right = pa.types.is_floating(kind)
        else:
            right = pa.types.is_integer(kind)
        if not right and not pa.types.is_null(kind):
            wanted = {DESCRIPTOR: "a list of floats", "phash_quality": "a float"}.get(name, "a 64-bit integer")
            raise ValueError(f"{uri} of dedup.apart_from: {name} is {kind}, and should be {wanted}, as in our tables")


def _column(table: pa.Table, name: str) -> list[Any] | None:
    return table[name].to_pylist() if name in table.column_names else None
