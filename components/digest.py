"""Content digests that do not depend on order or partitioning, and the version of a recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MODULUS = 1 << 256


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and no NaN: equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def version_of(
    step: str,
    revision: int,
    recipe: Mapping[str, Any],
    inputs: Iterable[tuple[str, str]],
    weights: Mapping[str, str],
    source: str | None = None,
) -> str:
    """The version of a step's output: 16 hex digits of the sha256 of all that determines it.

    `inputs` are (role, version) pairs, `weights` maps a model's name to its sha256, `source` is the digest of what lies
    outside the store (a pool of pictures).
    """
    key: dict[str, Any] = {
        "step": step,
        "revision": revision,
        "config": dict(recipe),
        "inputs": sorted([role, version] for role, version in inputs),
        "weights": dict(weights),
    }
    if source is not None:
        key["source"] = source
    return hashlib.sha256(canonical_json(key)).hexdigest()[:16]


def table_digest(table: pa.Table, name: str = "data") -> int:
    """The sum mod 2^256 of the sha256 of each row, over `name`, the schema and the canonical bytes of its columns.

    Independent of row order, chunking and how rows are spread over files: digests of parts add up to that of the whole.
    """
    order = sorted(table.column_names)
    header = hashlib.sha256(name.encode())
    for column in order:
        header.update(f"\0{column}:{type_name(table.schema.field(column).type)}".encode())
    columns = [_encode(table[column].combine_chunks()) for column in order]
    prefix, total = header.digest(), 0
    for row in range(table.num_rows):
        total += int.from_bytes(hashlib.sha256(b"".join([prefix, *(c[row] for c in columns)])).digest(), "big")
    return total % MODULUS


def type_name(kind: pa.DataType) -> str:
    """A type as text, without the names of list items: Arrow and Parquet call those differently."""
    if pa.types.is_fixed_size_list(kind):
        return f"{type_name(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{type_name(kind.value_type)}[]"
    return str(kind)


def add_digests(digests: Iterable[int]) -> str:
    """The digest of a whole from the digests of its parts and tables, as 64 hex digits."""
    return f"{sum(digests) % MODULUS:064x}"


def _encode(array: pa.Array | pa.ChunkedArray) -> list[bytes]:
    """Canonical bytes of each value: a null flag, then a length where the width varies, then little-endian data."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=array.type)
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _encode_lists(array)
    if pa.types.is_struct(kind):
        parts = [_encode(pc.struct_field(array, i)) for i in range(kind.num_fields)]
        return [b"".join(values) for values in zip(*parts, strict=True)] if parts else [b""] * len(array)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return [_sized(None if v is None else v.encode("utf-8", "surrogateescape")) for v in array.to_pylist()]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [_sized(v) for v in array.to_pylist()]
    return _encode_numbers(array)


def _sized(value: bytes | None) -> bytes:
    return b"\0" if value is None else b"\1" + len(value).to_bytes(8, "little") + value


def _encode_lists(array: pa.Array) -> list[bytes]:
    flat = _encode(pc.list_flatten(array))
    valid = array.is_valid().to_pylist()
    lengths = [length or 0 for length in pc.list_value_length(array).to_pylist()]
    encoded, start = [], 0
    for ok, length in zip(valid, lengths, strict=True):
        if not ok:
            encoded.append(b"\0")
            continue
        encoded.append(b"\1" + length.to_bytes(8, "little") + b"".join(flat[start : start + length]))
        start += length
    return encoded


def _encode_numbers(array: pa.Array) -> list[bytes]:
    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_temporal(kind):
        array = array.cast(pa.int64())
    values = pc.fill_null(array, pa.scalar(0, type=array.type)).to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values + np.array(0, values.dtype))
    raw, width = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes(), values.dtype.itemsize
    valid = array.is_valid().to_pylist()
    return [b"\1" + raw[i * width : (i + 1) * width] if ok else b"\0" for i, ok in enumerate(valid)]
