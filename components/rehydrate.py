"""From a release back to pictures: fetched from where they are, kept only when they are the very bytes.

<out>/pictures/<batch>.parquet   bytes and what the release says of them: a pool for `run --pool <out>/pictures`
<out>/failures/<batch>.parquet   addresses that gave nothing, or something else, with the reason

A batch is done when its file of pictures is there, so that a killed run goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import parquet_bytes
from components.storage import Storage
from curation.images.fetch import fetch_all
from curation.images.fetch_policy import FetchPolicy
from curation.images.places import open_location
from curation.images.reasons import Reject

HASH_MISMATCH, NO_URL = "hash_mismatch", "no_url"
CARRIED = ("url", "sha256", "caption", "text", "licence", "license", "image_id", "uid")
FAILURES = pa.schema([("url", pa.string()), ("sha256", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True)
class Rehydrated:
    """How many pictures are there and verified, and what became of the others, by reason."""

    pictures: int
    failures: dict[str, int]


def read_release(place: str) -> pa.Table:
    """The rows to fetch, of a release's folder or of any Parquet file with `url` and `sha256` (DataComp's, LAION's).

    Raises ValueError for a file that cannot be read or lacks a column.
    """
    path = place if place.endswith(".parquet") else f"{place.rstrip('/')}/release.parquet"
    try:
        with open_location(path) as stream:
            table = pq.read_table(stream)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path} is no release ({type(error).__name__}); give its folder or a .parquet") from error
    missing = [name for name in ("url", "sha256") if name not in table.column_names]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}: without them nothing can be fetched and verified")
    if "keep" in table.column_names:
        table = table.filter(table["keep"])
    return table


def rehydrate(
    table: pa.Table,
    out: str,
    policy: FetchPolicy,
    *,
    batch_rows: int = 256,
    retry: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rehydrated:
    """Fetch what is not there yet. retry: ask again for what failed before.

    Raises ValueError, and writes nothing, where no row has an address.
    """
    if not any(table["url"].to_pylist()):
        raise ValueError(_nothing_to_fetch(table.num_rows))
    storage, found, failures = Storage(out), 0, Counter[str]()
    batches = range(0, table.num_rows, batch_rows)
    for number, start in enumerate(batches):
        path, failed = f"pictures/{number:06d}.parquet", f"failures/{number:06d}.parquet"
        rows = table.slice(start, batch_rows).to_pylist()
        kept: list[dict[str, Any]] = []
        lost: list[dict[str, Any]] = []
        if storage.exists(path):
            kept, lost = _read(storage, path), _read(storage, failed)
        if not storage.exists(path) or (retry and lost):
            there = {row["sha256"] for row in kept}
            more, lost = _fetch([row for row in rows if row["sha256"] not in there], policy)
            kept += more
            storage.write(failed, parquet_bytes(pa.Table.from_pylist(lost, schema=FAILURES)))
            storage.write(path, parquet_bytes(pa.Table.from_pylist(kept, schema=_schema(table)), 64))
        found += len(kept)
        failures.update(row["reason"] for row in lost)
        progress(number + 1, len(batches))
    return Rehydrated(found, dict(sorted(failures.items())))


def _fetch(rows: list[dict[str, Any]], policy: FetchPolicy) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pictures that are the very bytes, and the failures. Every address of a picture is tried until one has it."""
    kept: list[tuple[int, dict[str, Any]]] = []
    lost: dict[int, dict[str, Any]] = {}
    waiting = {
        index: [row["url"], *(u for u in row.get("urls") or [] if u != row["url"])] for index, row in enumerate(rows)
    }
    for index, row in enumerate(rows):
        if not row["url"]:
            waiting.pop(index)
            lost[index] = _failure(row, NO_URL, "the picture came from no address")
    while waiting:
        asked = {index: urls[0] for index, urls in waiting.items()}
        distinct = list(dict.fromkeys(asked.values()))
        answers = dict(zip(distinct, fetch_all(distinct, policy), strict=True))
        for index, url in asked.items():
            row, answer = rows[index], answers[url]
            waiting[index].pop(0)
            if isinstance(answer, bytes) and hashlib.sha256(answer).hexdigest() == row["sha256"]:
                kept.append((index, {**row, "bytes": answer}))
                waiting.pop(index)
                lost.pop(index, None)
                continue
            told = (answer.reason.value, answer.detail) if isinstance(answer, Reject) else (HASH_MISMATCH, url)
            lost[index] = _failure(row, *told)
            if not waiting[index]:
                waiting.pop(index)
    return [row for _, row in sorted(kept, key=lambda pair: pair[0])], [lost[index] for index in sorted(lost)]


def _nothing_to_fetch(rows: int) -> str:
    if not rows:
        return "the release selects no picture, so there is nothing to fetch; release a selection that keeps some"
    return (
        f"none of the {rows} pictures of the release has an address: they came from files of who made it, and nobody "
        "else can fetch them. Ask there for the pictures themselves, or for a release of a pool that was a list of URLs"
    )


def _failure(row: dict[str, Any], reason: str, detail: str) -> dict[str, Any]:
    return {"url": row["url"], "sha256": row["sha256"], "reason": reason, "detail": detail}


def _schema(table: pa.Table) -> pa.Schema:
    fields = [field for field in table.schema if field.name in CARRIED]
    return pa.schema([*fields, pa.field("bytes", pa.large_binary())])


def _read(storage: Storage, path: str) -> list[dict[str, Any]]:
    return pq.read_table(pa.BufferReader(storage.read(path))).to_pylist()
