"""Pools inside files: WebDataset tars and Parquet tables with image bytes, listed without reading the pictures."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from curation.images.items import SourceItem, Span
from curation.images.places import PoolFile

_SIDECARS = ("json", "txt", "caption")
BYTES_COLUMNS = ("bytes", "image_bytes", "image", "jpg", "png", "webp", "data", "content")


def is_archive(file: PoolFile) -> bool:
    """Whether a file is opened: a .tar, or a Parquet table with a column of image bytes."""
    name = file.name.lower()
    if name.endswith(".tar"):
        return _readable_tar(file)
    return name.endswith(".parquet") and bytes_column(file) is not None


def members(file: PoolFile) -> Iterator[SourceItem]:
    """The sources in an archive, in its own order, named `archive::member`."""
    return _tar_members(file) if file.name.lower().endswith(".tar") else _parquet_rows(file)


def _readable_tar(file: PoolFile) -> bool:
    try:
        with file.open() as stream, tarfile.open(fileobj=stream, mode="r:"):
            return True
    except (tarfile.TarError, OSError):
        return False


def bytes_column(file: PoolFile) -> str | None:
    """The column that holds encoded images: binary, or a struct with a binary field `bytes`; None without one."""
    try:
        with file.open() as stream:
            schema = pq.read_schema(stream)
    except (pa.ArrowInvalid, OSError):
        return None
    for wanted in BYTES_COLUMNS:
        for field in schema:
            if field.name.lower() == wanted and _holds_bytes(field.type):
                return field.name
    return None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" and _holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _tar_members(file: PoolFile) -> Iterator[SourceItem]:
    """Members that share a key (name up to the first dot of its last part) belong together, as WebDataset has it.

    A tar that breaks off is listed up to there, and is then a source itself, to end as a reject.
    """
    infos, whole = _tar_directory(file)
    sidecars: dict[str, list[tuple[str, Span]]] = {}
    for key, extension, info in infos:
        if extension in _SIDECARS:
            sidecars.setdefault(key, []).append((extension, Span(info.offset_data, info.size)))
    pictures = [(key, info) for key, extension, info in infos if extension not in _SIDECARS]
    for key, info in pictures:
        span = Span(info.offset_data, info.size)
        name = f"{file.name}::{info.name.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')}"
        yield SourceItem(name, "span", file.location, info.size, span=span, sidecars=tuple(sidecars.get(key, ())))
    if not whole:
        yield SourceItem.file(file, "")


def _tar_directory(file: PoolFile) -> tuple[list[tuple[str, str, tarfile.TarInfo]], bool]:
    infos: list[tuple[str, str, tarfile.TarInfo]] = []
    with file.open() as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        try:
            for info in archive:
                if info.isfile() and info.offset_data + info.size > file.size:
                    return infos, False
                if info.isfile():
                    infos.append((*_split_key(info.name), info))
        except tarfile.TarError:
            return infos, False
    return infos, True


def _split_key(name: str) -> tuple[str, str]:
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}/{stem}", extension.lower()


def _parquet_rows(file: PoolFile) -> Iterator[SourceItem]:
    with file.open() as stream:
        metadata = pq.read_metadata(stream)
    number = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        weight = metadata.row_group(group).total_byte_size // max(rows, 1)
        for row in range(rows):
            yield SourceItem(f"{file.name}::{number}", "row", file.location, weight, row=(group, row))
            number += 1
