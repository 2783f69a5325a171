"""The form of a selection that can be given away: where each picture is, its hash, what was measured and decided.

No picture, no thumbnail and no embedding is in it. The table has the columns `url`, `caption` and `sha256` that
img2dataset reads, so that other tools can fetch it too.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from components.artifacts import Artifact, ArtifactError, Store, parquet_bytes
from components.lineage import ancestors
from components.picture_lookup import NARROW
from components.redaction import address_of
from components.run_step import code_ref
from components.storage import Storage
from curation.tables import BOX, SCORE_COLUMNS

TABLE, RECORD = "release.parquet", "release.json"
DECIDING = (("filter", "filtered"), ("dedup", "deduped"), ("balance", "selection"))
COLUMNS = pa.schema(
    [
        ("image_id", pa.string()),
        ("url", pa.string()),  # the first address; null for a picture that came from no address
        ("urls", pa.list_(pa.string())),  # every address
        ("sha256", pa.string()),  # of the bytes as they were fetched
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("n_bytes", pa.int64()),
        ("phash", pa.string()),  # 16 hex digits
        ("caption", pa.string()),
        ("licence", pa.string()),
        ("boxes", pa.list_(BOX)),
        ("box_scores", pa.list_(pa.float32())),
        *SCORE_COLUMNS,
        ("attributes", pa.string()),  # JSON object axis -> bin
        ("group_id", pa.string()),
        ("keep", pa.bool_()),
        ("step", pa.string()),  # that dropped the picture; null when kept
        ("reason", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
    ]
)


def release(store: Store, selection: Artifact, out: str, *, dropped: bool = False) -> dict[str, Any]:
    """Write the table and its record below `out`, a folder or s3:// prefix; returns the record.

    dropped: also the pictures that a step dropped, with the reason. Raises ArtifactError when `selection` is none.
    """
    if selection.kind != "selection":
        raise ArtifactError(f"{selection} is no selection; name one with --input selection=VERSION")
    made = {artifact.kind: artifact for artifact in ancestors(store, [selection], earlier=False).values()}
    decisions = _decisions(made)
    wanted = {i for i, row in decisions.items() if row["keep"] or dropped}
    urls = _urls(made["images"])
    known = {kind: _by_id(made[kind], wanted) for kind in ("detections", "scores", "deduped")}
    attributes: dict[str, dict[str, str]] = {}
    for row in selection.read("attributes").to_pylist():
        attributes.setdefault(row["image_id"], {})[row["axis"]] = row["bin"]
    rows = []
    for pid in made["images"].partitions("images"):
        for picture in made["images"].read_partition("images", pid, [*NARROW, "bytes"]).to_pylist():
            image_id = picture["image_id"]
            if image_id in wanted:
                parts = [known[kind].get(image_id, {}) for kind in known]
                row = _row(picture, urls.get(image_id, []), parts, decisions[image_id])
                rows.append(row | {"attributes": json.dumps(attributes.get(image_id, {}), sort_keys=True)})
    if len(rows) != len(wanted):
        raise AssertionError(f"release of {selection}: {len(wanted)} pictures were decided, {len(rows)} are in images")
    rows.sort(key=lambda row: row["image_id"])
    table = pa.Table.from_pylist(rows, schema=COLUMNS)
    storage = Storage(out)
    storage.write(TABLE, parquet_bytes(table, 10_000))
    record = _record(selection, table)
    storage.write(RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return record


def _row(
    picture: Mapping[str, Any], urls: list[str], parts: list[dict[str, Any]], decision: Mapping[str, Any]
) -> dict[str, Any]:
    merged = {key: value for part in parts for key, value in part.items()} | dict(picture) | dict(decision)
    return {name: merged.get(name) for name in COLUMNS.names} | {
        "url": urls[0] if urls else None,
        "urls": urls,
        "sha256": hashlib.sha256(picture["bytes"]).hexdigest(),
        "phash": f"{picture['phash']:016x}",
    }


def _by_id(artifact: Artifact, ids: set[str]) -> dict[str, dict[str, Any]]:
    names = [name for name in artifact.manifest.tables["data"] if name in COLUMNS.names]
    rows = artifact.read(columns=names).to_pylist()
    return {row["image_id"]: row for row in rows if row["image_id"] in ids}


def _decisions(made: Mapping[str, Artifact]) -> dict[str, dict[str, Any]]:
    """The last word on every picture: kept by all, or by which step dropped and why."""
    found: dict[str, dict[str, Any]] = {}
    for step, kind in DECIDING:
        for row in made[kind].read(columns=["image_id", "keep", "reason", "value", "threshold"]).to_pylist():
            bare = dict.fromkeys(("step", "reason", "value", "threshold"))
            found[row["image_id"]] = {"keep": True, **bare} if row["keep"] else {**row, "step": step}
    return found


def _urls(images: Artifact) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in images.read("sources", ["source", "image_id"]).to_pylist():
        if row["image_id"] and "://" in row["source"]:
            own = found.setdefault(row["image_id"], [])
            if (url := address_of(row["source"])) not in own:
                own.append(url)
    return found


def _record(selection: Artifact, table: pa.Table) -> dict[str, Any]:
    licences = Counter(licence or "unknown" for licence in table["licence"].to_pylist())
    return {
        "artifact": repr(selection),
        "digest": selection.manifest.digest,
        "pictures": table.num_rows,
        "kept": sum(table["keep"].to_pylist()),
        "without_url": table["url"].null_count,
        "licences": dict(sorted(licences.items(), key=lambda kv: (-kv[1], kv[0]))),
        "columns": {field.name: str(field.type) for field in table.schema},
        "code": code_ref().model_dump(),
        "files": [TABLE],
    }
