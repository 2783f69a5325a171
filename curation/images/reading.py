"""The bytes of sources, one partition at a time: files, spans of archives, rows of Parquet files, URLs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.images.archives import bytes_column
from curation.images.fetch import fetch_into
from curation.images.fetch_policy import FetchPolicy
from curation.images.fetched import Fetched
from curation.images.items import SourceItem, Span
from curation.images.places import PoolFile, open_location
from curation.images.reasons import Reason, Reject
from curation.images.url_lists import describe

_MAX_SIDECAR_BYTES = 1 << 20


def read_all(
    items: Sequence[SourceItem], policy: FetchPolicy, known: Mapping[str, bytes | Reject] | None = None
) -> Iterator[tuple[SourceItem, bytes | Reject]]:
    """Every item in order with its bytes or a reject; captions of archives are filled in. Never raises for bad data.

    `known` has outcomes by source that need no fetching.
    """
    known = known or {}
    urls = [item.location for item in items if item.kind == "url" and item.source not in known]
    with ExitStack() as stack:
        fetched = stack.enter_context(Fetched())
        if urls:
            fetch_into(fetched, urls, policy)
        reader = _Reader(stack, policy.max_bytes)
        for item in items:
            if item.source in known:
                yield item, known[item.source]
            else:
                yield (item, fetched[item.location]) if item.kind == "url" else reader.read(item)


class _Reader:
    """Keeps the archive that the last item came from open: the items of a partition come archive by archive."""

    def __init__(self, stack: ExitStack, max_bytes: int) -> None:
        self._stack, self._max_bytes = stack, max_bytes
        self._location = ""
        self._stream: IO[bytes] | None = None
        self._group: tuple[str, int] | None = None
        self._rows: list[dict[str, Any]] = []
        self._column = ""

    def read(self, item: SourceItem) -> tuple[SourceItem, bytes | Reject]:
        try:
            if item.kind == "row":
                return self._row(item)
            if item.n_bytes > self._max_bytes:
                return item, Reject(Reason.TOO_LARGE, f"{item.n_bytes} bytes, more than {self._max_bytes}")
            return self._span(item) if item.kind == "span" else (item, self._file(item))
        except (OSError, pa.ArrowException) as error:
            return item, Reject(Reason.UNREADABLE, f"{type(error).__name__}: {_without_place(error)}")

    def _file(self, item: SourceItem) -> bytes | Reject:
        with open_location(item.location) as stream:
            data = stream.read(self._max_bytes + 1)
        if item.sha256 and hashlib.sha256(data).hexdigest() != item.sha256:
            return Reject(Reason.UNREADABLE, "changed after it was listed")
        return data

    def _span(self, item: SourceItem) -> tuple[SourceItem, bytes | Reject]:
        if self._stream is None or self._location != item.location:
            self._stream, self._location = self._stack.enter_context(open_location(item.location)), item.location
        fields: dict[str, Any] = {}
        for extension, span in sorted(item.sidecars):  # json first, so that a caption file has the last word
            text = self._bytes(Span(span.offset, min(span.size, _MAX_SIDECAR_BYTES))).decode("utf-8", "replace")
            fields.update(_sidecar(extension, text))
        caption, licence, extra = describe(fields)
        assert item.span is not None
        return replace(item, caption=caption, licence=licence, extra=extra), self._bytes(item.span)

    def _bytes(self, span: Span) -> bytes:
        assert self._stream is not None
        self._stream.seek(span.offset)
        return self._stream.read(span.size)

    def _row(self, item: SourceItem) -> tuple[SourceItem, bytes | Reject]:
        if self._group != (item.location, item.row[0]):
            self._column = bytes_column(PoolFile(item.source, item.location, 0)) or ""
            with open_location(item.location) as stream:
                self._rows = pq.ParquetFile(stream).read_row_group(item.row[0]).to_pylist()
            self._group = (item.location, item.row[0])
        row = dict(self._rows[item.row[1]])
        data = row.pop(self._column)
        data = data.get("bytes") if isinstance(data, dict) else data
        row = {key: value for key, value in row.items() if not isinstance(value, bytes)}
        caption, licence, extra = describe(row)
        item = replace(item, caption=caption, licence=licence, extra=extra)
        if data is not None and len(data) > self._max_bytes:
            return item, Reject(Reason.TOO_LARGE, f"{len(data)} bytes, more than {self._max_bytes}")
        return item, Reject(Reason.EMPTY, "null in the table") if data is None else data


def _sidecar(extension: str, text: str) -> dict[str, Any]:
    if extension != "json":
        return {"caption": text.strip()}
    try:
        fields = json.loads(text)
    except ValueError:
        return {"sidecar": text}
    return fields if isinstance(fields, dict) else {"sidecar": fields}


def _without_place(error: BaseException) -> str:
    """The error without the path: tables must not hold where a pool lies."""
    return error.strerror or "cannot be read" if isinstance(error, OSError) else str(error).splitlines()[0]
