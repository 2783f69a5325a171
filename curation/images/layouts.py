"""What img2dataset and DataComp leave in a folder: which files are pictures, and which only tell about them.

00000.tar  00000.parquet  00000_stats.json         webdataset: shards, their metadata, their counts
00000.parquet (with bytes)  00000_stats.json       parquet
00000/000000000.jpg  .json  .txt                   files: a picture with its metadata and its caption
metadata/x.parquet (url, text, sha256)  x.npz      DataComp before fetching: a list of URLs and its embeddings
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from curation.images.places import PoolFile
from curation.images.url_lists import describe

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
TOLD = (".json", ".txt", ".caption")  # json first, so that a caption file has the last word
MAX_SIDECAR_BYTES = 1 << 20


class Layout:
    """The names of a folder's files, by what they stand beside."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._pictures = {_stem(name) for name in self._names if name.lower().endswith(PICTURES)}
        self._folders = {str(PurePosixPath(name).parent) for name in self._names if name.lower().endswith(PICTURES)}

    def is_sidecar(self, name: str) -> bool:
        """Whether a file only tells about another one: it is no source of its own."""
        stem, lower = _stem(name), name.lower()
        if lower.endswith(TOLD) and stem in self._pictures:
            return True
        if lower.endswith("_stats.json"):
            shard = name[: -len("_stats.json")]
            return f"{shard}.tar" in self._names or f"{shard}.parquet" in self._names or shard in self._folders
        if lower.endswith(".parquet"):
            return f"{stem}.tar" in self._names or stem in self._folders
        return lower.endswith(".npz") and f"{stem}.parquet" in self._names

    def sidecars(self, name: str) -> list[str]:
        """The names of the files that tell about a picture."""
        if not name.lower().endswith(PICTURES):
            return []
        return [found for ending in TOLD if (found := f"{_stem(name)}{ending}") in self._names]


def told_by(files: Sequence[PoolFile]) -> dict[str, Any]:
    """Caption, licence and extra of a picture from its sidecars; what cannot be read tells nothing."""
    fields: dict[str, Any] = {}
    for file in files:
        try:
            with file.open() as stream:
                text = stream.read(MAX_SIDECAR_BYTES).decode("utf-8", "replace")
            fields |= json.loads(text) if file.name.lower().endswith(".json") else {"caption": text.strip()}
        except (OSError, ValueError, TypeError):
            continue
    caption, licence, extra = describe(fields)
    return {"caption": caption, "licence": licence, "extra": extra}


def _stem(name: str) -> str:
    """The name without its last ending, folders kept."""
    return str(PurePosixPath(name).with_suffix(""))
