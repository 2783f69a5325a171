"""The Arrow schema of every table: the contract between stages.

Every row is keyed by `image_id`, the first 128 bits of the sha256 of the encoded bytes, in hex. Boxes and sizes are in
pixels of the upright (EXIF-applied) original. A table holds what was measured; a decision is a row of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

BOX = pa.list_(pa.float32(), 4)  # x0, y0, x1, y1
STRINGS = pa.list_(pa.string())


def image_id(data: bytes) -> str:
    """The identity of an image: the first 128 bits of the sha256 of its encoded bytes, 32 hex digits."""
    return hashlib.sha256(data).hexdigest()[:32]


def source_id(source: str) -> str:
    """The identity of a source: the first 128 bits of the sha256 of its path, URL or `archive::member`."""
    return hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:32]


# One row per source: what was listed, and where it ended. Exactly one of image_id and reason is set.
SOURCES = pa.schema(
    [
        ("source_id", pa.string()),
        ("source", pa.string()),
        ("image_id", pa.string()),
        ("reason", pa.string()),
        ("caption", pa.string()),
        ("licence", pa.string()),
        ("extra", pa.string()),  # other columns of the source list, as a JSON object
    ]
)

# One row per distinct image. sources = sum of n_sources + rows of rejects.
IMAGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("source", pa.string()),  # the first source, in listing order
        ("n_sources", pa.int32()),
        ("format", pa.string()),  # jpeg, png, webp, gif, tiff, bmp
        ("width", pa.int32()),  # upright pixels
        ("height", pa.int32()),
        ("orientation", pa.int8()),  # EXIF value 1..8 that was applied
        ("n_bytes", pa.int64()),
        ("phash", pa.uint64()),
        ("phash_mirror", pa.uint64()),  # of the horizontally flipped image
        ("phash_quality", pa.float32()),  # 0..1; low for flat pictures, whose hashes collide by chance
        ("caption", pa.string()),
        ("licence", pa.string()),
        ("metadata", pa.string()),  # JSON object: camera make and model, software, digital source type, ...
        ("bytes", pa.large_binary()),  # exactly as fetched
    ]
)

REJECTS = pa.schema(
    [
        ("source_id", pa.string()),
        ("source", pa.string()),
        ("image_id", pa.string()),  # null when no bytes were had
        ("reason", pa.string()),  # a value of curation.images.reasons.Reason
        ("detail", pa.string()),
    ]
)

DETECTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("boxes", pa.list_(BOX)),  # persons, best score first
        ("box_scores", pa.list_(pa.float32())),
        ("refined", pa.list_(pa.bool_())),  # measured again at full resolution
    ]
)

# A row of `scores` that the gate held back has scored = false and nulls.
SCORE_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("sharpness", pa.float32()),
    ("exposure", pa.float32()),  # mean luminance, 0..1
    ("contrast", pa.float32()),
    ("noise", pa.float32()),
    ("flatness", pa.float32()),  # share of the picture without texture, 0..1
    ("colour_count", pa.float32()),
    ("colour_temperature", pa.float32()),  # warm - cold, -1..1
    ("realism", pa.float32()),  # 0 drawn or rendered .. 1 photograph
    ("text_ratio", pa.float32()),  # share of the image area covered by text overlays
    ("text_person_overlap", pa.float32()),  # share of the largest person box covered by text
    ("aesthetic", pa.float32()),  # null without a CLIP model
    ("nsfw", pa.float32()),  # null without a model for it
    ("face_count", pa.int32()),
    ("face_box", BOX),  # of the main person; null when no face was found
    ("yaw_deg", pa.float32()),  # head pose of that face: positive yaw looks to the image's right,
    ("pitch_deg", pa.float32()),  # positive pitch up,
    ("roll_deg", pa.float32()),  # positive roll clockwise
)


def scores_schema(embedding_dim: int, copy_dim: int) -> pa.Schema:
    """`scores`: `embedding` balances (semantics), `copy_embedding` finds copies; both L2-normalised, fp16 precision."""
    return pa.schema(
        [
            ("image_id", pa.string()),
            ("scored", pa.bool_()),
            *SCORE_COLUMNS,
            ("embedding", pa.list_(pa.float32(), embedding_dim)),
            ("copy_embedding", pa.list_(pa.float32(), copy_dim)),
        ]
    )


# One row per row of the input: kept, or dropped for exactly one reason.
DECISION_COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("image_id", pa.string()),
    ("keep", pa.bool_()),
    ("reason", pa.string()),  # null when kept
    ("value", pa.float64()),  # what was measured
    ("threshold", pa.float64()),  # what it was held against
    ("representative_id", pa.string()),  # the kept image that stands for a dropped duplicate
)
DECISIONS = pa.schema(list(DECISION_COLUMNS))

DEDUPED = pa.schema([*DECISION_COLUMNS, ("group_id", pa.string())])  # smallest image_id of the connected component
EDGES = pa.schema(
    [
        ("a", pa.string()),
        ("b", pa.string()),
        ("kind", pa.string()),  # phash, mirror, feature, geometry
        ("distance", pa.float32()),  # bits for hashes, 1 - cosine for features, 1 - agreement for geometry
    ]
)

EVALUATION_COPIES = pa.schema(  # pictures that are copies of pictures of an evaluation set
    [
        ("image_id", pa.string()),
        ("evaluation_set", pa.string()),  # as the configuration names it
        ("source", pa.string()),  # of the evaluation picture, in its set
        ("kind", pa.string()),  # kind and distance as in EDGES
        ("distance", pa.float32()),
    ]
)

# What dedup leaves for a run on more pictures (curation.dedup.carried).
POINTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("fingerprint", pa.uint64()),  # of hashes and descriptor
        ("full", pa.bool_()),  # whether its list in NEAR holds as many as it may
        ("cells", pa.list_(pa.int32())),  # its own, then the next nearest that it looks into
    ]
)
NEAR = pa.schema([("a", pa.string()), ("b", pa.string()), ("cosine", pa.float64())])  # b is in the list of a
NEAR_HASHES = pa.schema([("a", pa.string()), ("b", pa.string()), ("bits", pa.int8()), ("mirrored", pa.bool_())])
COMPARED = pa.schema([("a", pa.string()), ("b", pa.string()), ("agreed", pa.bool_()), ("distance", pa.float64())])
CELLS = pa.schema([("cell", pa.int32()), ("vector", pa.list_(pa.float64()))])  # centroids; -1: the mean, where one is

CLUSTERS = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.list_(pa.int32())),  # cluster index at each level, leaf first
        ("distance", pa.float32()),  # to the leaf centroid, 1 - cosine
    ]
)
CENTROIDS = pa.schema(
    [("level", pa.int32()), ("cluster", pa.int32()), ("parent", pa.int32()), ("vector", pa.list_(pa.float32()))]
)

ATTRIBUTES = pa.schema([("image_id", pa.string()), ("axis", pa.string()), ("bin", pa.string())])
BALANCE = pa.schema(
    [
        ("axis", pa.string()),
        ("bin", pa.string()),
        ("before", pa.int64()),
        ("after", pa.int64()),
        ("floor", pa.int64()),
        ("cap", pa.int64()),
    ]
)

SHARDS = pa.schema(
    [
        ("image_id", pa.string()),
        ("split", pa.string()),  # train or val, disjoint by duplicate group
        ("position", pa.int64()),  # in the keyed permutation of its split
        ("group_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("boxes", pa.list_(BOX)),
        ("attributes", pa.string()),  # JSON object axis -> bin
        ("caption", pa.string()),
        ("licence", pa.string()),
        ("source", pa.string()),
        ("bytes", pa.large_binary()),
    ]
)


def from_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table of exactly `schema` from dictionaries; a missing key is null.

    Raises ValueError for a key that the schema does not have.
    """
    rows = list(rows)
    unknown = {key for row in rows for key in row} - set(schema.names)
    if unknown:
        raise ValueError(f"columns {sorted(unknown)} are not in the schema {schema.names}")
    columns = [pa.array([row.get(field.name) for row in rows], type=field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def require_columns(table: pa.Table, names: Sequence[str], where: str) -> None:
    """Raises ValueError naming the columns that `where` needs and `table` lacks."""
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ValueError(f"{where} needs the columns {missing}; the table has {table.column_names}")
