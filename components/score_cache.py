"""Model outputs by image, kept under the root across versions: a changed threshold or gate calls no model again.

One Parquet file per `put`, named by its content, so that writers never meet; values are JSON objects.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa

from components.artifacts import parquet_bytes, read_parquet
from components.storage import Storage


class ScoreCache:
    """Implements curation.models.cache.ModelCache on `<root>/cache/scores/<model key>/`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._known: dict[str, dict[str, str]] = {}

    def get(self, model_key: str, image_ids: list[str]) -> dict[str, dict[str, Any]]:
        """The outputs that are known, by image_id."""
        known = self._load(model_key)
        return {i: json.loads(known[i]) for i in image_ids if i in known}

    def put(self, model_key: str, rows: dict[str, dict[str, Any]]) -> None:
        """Remember outputs; the file is named by its content, so a repeated put writes the same file."""
        if not rows:
            return
        texts = {i: json.dumps(values, sort_keys=True) for i, values in sorted(rows.items())}
        table = pa.table({"image_id": list(texts), "values": list(texts.values())})
        Storage(self.root).write(f"{_folder(model_key)}/{file_name(texts)}", parquet_bytes(table))
        self._load(model_key).update(texts)

    def _load(self, model_key: str) -> dict[str, str]:
        if model_key not in self._known:
            storage = Storage(self.root)
            known: dict[str, str] = {}
            for path, is_file, _, _ in storage.list(_folder(model_key)):
                if is_file and path.endswith(".parquet"):
                    table = read_parquet(storage, path)
                    known.update(zip(table["image_id"].to_pylist(), table["values"].to_pylist(), strict=True))
            self._known[model_key] = known
        return self._known[model_key]

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_known": {}}


def file_name(texts: dict[str, str]) -> str:
    """The name of a file of the cache, from its ids and values in order of the ids."""
    return hashlib.sha256("\n".join(f"{i}:{t}" for i, t in texts.items()).encode()).hexdigest()[:20] + ".parquet"


def _folder(model_key: str) -> str:
    return f"cache/scores/{model_key}"
