"""Lists of URLs: plain text (one a line), CSV, TSV or Parquet with a url column; other columns are carried along."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from curation.images.items import SourceItem
from curation.images.places import PoolFile

URL_COLUMNS = ("url", "image_url", "uri", "link", "href")
CAPTION_COLUMNS = ("caption", "text", "alt", "alt_text")
LICENCE_COLUMNS = ("licence", "license")


def read(file: PoolFile) -> list[SourceItem]:
    """One item a row, in order. Raises ValueError for an unreadable list or one without a url column."""
    rows = _lines(file) if file.name.lower().endswith(".txt") else _table(file).to_pylist()
    return [_item(row) for row in rows]


def is_list(file: PoolFile) -> bool:
    """Whether a Parquet file has a url column."""
    try:
        with file.open() as stream:
            return any(name.lower() in URL_COLUMNS for name in pq.read_schema(stream).names)
    except (OSError, pa.ArrowInvalid):
        return False


def describe(row: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Caption, licence, and every other column as a JSON object, of a row or a sidecar."""
    caption, licence = _first(row, CAPTION_COLUMNS), _first(row, LICENCE_COLUMNS)
    taken = {*CAPTION_COLUMNS, *LICENCE_COLUMNS}
    rest = {key: value for key, value in row.items() if key.lower() not in taken and value is not None}
    extra = json.dumps(rest, sort_keys=True, default=str, ensure_ascii=False) if rest else None
    return caption, licence, extra


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    lower = {key.lower(): value for key, value in row.items()}
    values = (lower[name] for name in names if lower.get(name) not in (None, ""))
    value = next(values, None)
    return None if value is None else str(value)


def _item(row: Mapping[str, Any]) -> SourceItem:
    url = _first(row, URL_COLUMNS) or ""
    caption, licence, extra = describe({k: v for k, v in row.items() if k.lower() not in URL_COLUMNS})
    return SourceItem(url, "url", url, caption=caption, licence=licence, extra=extra)


def _lines(file: PoolFile) -> list[dict[str, Any]]:
    with file.open() as stream:
        text = stream.read().decode("utf-8-sig", "backslashreplace")
    lines = (line.strip() for line in text.splitlines())
    rows = [{"url": line} for line in lines if line and not line.startswith("#")]
    if rows and not any("://" in row["url"] for row in rows):
        raise ValueError(f"the list {file.name} holds no URL; write one http(s) address a line")
    return rows


def _table(file: PoolFile) -> pa.Table:
    try:
        with file.open() as stream:
            table = pq.read_table(stream) if file.name.lower().endswith(".parquet") else _csv(file.name, stream)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"the list {file.name} cannot be read ({error}); give a table whose first line names a url column, or a "
            ".txt with one http(s) address a line"
        ) from error
    if not any(name.lower() in URL_COLUMNS for name in table.column_names):
        raise ValueError(
            f"the list {file.name} has no url column, only {table.column_names}; "
            "rename the column that holds the addresses to url"
        )
    return table


def _csv(name: str, stream: Any) -> pa.Table:
    parse = pa_csv.ParseOptions(delimiter="\t" if name.lower().endswith(".tsv") else ",", newlines_in_values=True)
    return pa_csv.read_csv(stream, parse_options=parse)
