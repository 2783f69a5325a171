"""Where weight files are found: a named path, `$SAPIENS2_MODELS`, the local cache, their address, in that order.

A file is held to its pinned sha256 wherever it came from. Nothing is downloaded that has no pin, nor when
`SAPIENS2_OFFLINE=1`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from curation.models.catalogue import MODELS, ModelSpec, known

__all__ = ["MODELS", "ModelSpec", "cache_directory", "file_sha256", "find", "known", "model_key"]

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 60


def cache_directory() -> Path:
    """Where downloaded weights are kept: models/ below `$SAPIENS2_CACHE`, else below ~/.cache/sapiens2."""
    return Path(os.environ.get("SAPIENS2_CACHE") or Path.home() / ".cache" / "sapiens2") / "models"


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file, 64 hex digits; remembered until its size or time of change differs."""
    path = Path(path).resolve()
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_key(path: str | Path, preprocessing: str) -> str:
    """The name of this file's outputs in the score cache: first 16 digits of its sha256 / preprocessing revision."""
    return f"{file_sha256(path)[:16]}/{preprocessing}"


def find(spec: ModelSpec, *, download: bool = True) -> Path:
    """The local file of a model, checked against its digest, downloaded to the cache when that is allowed.

    download: whether a missing file may be fetched at all; a listing must not.
    Raises FileNotFoundError that names the file and where to put it, ValueError for a file with another digest.
    """
    if spec.path is not None:
        return _named(spec)
    mismatched: list[Path] = []
    for candidate in _candidates(spec.filename):
        if spec.sha256 is None or file_sha256(candidate) == spec.sha256:
            return candidate
        mismatched.append(candidate)
    if mismatched:
        raise ValueError(
            f"{mismatched[0]} is not the {spec.name} weights: its sha256 is {file_sha256(mismatched[0])}, expected "
            f"{spec.sha256}; replace the file, or name it in the configuration if you mean to use it"
        )
    if download and spec.address is not None and spec.sha256 is not None and not _offline():
        return _download(spec, cache_directory() / spec.filename)
    raise FileNotFoundError(_missing(spec))


def _named(spec: ModelSpec) -> Path:
    path = Path(spec.path or "").expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"the weights of {spec.name} are configured as {path}, which is not a file; correct the path, or leave it "
            f"out to have {spec.filename} searched for"
        )
    if spec.sha256 is not None and file_sha256(path) != spec.sha256:
        raise ValueError(f"{path}: sha256 is {file_sha256(path)}, expected {spec.sha256}; replace the file")
    return path


def _offline() -> bool:
    return os.environ.get("SAPIENS2_OFFLINE", "") not in ("", "0")


def _candidates(filename: str) -> list[Path]:
    """Existing files of that name: below `$SAPIENS2_MODELS` (nearest first), then in the cache."""
    found: list[Path] = []
    root = os.environ.get("SAPIENS2_MODELS")
    if root:
        below = (Path(base) / filename for base, _, names in os.walk(root, followlinks=True) if filename in names)
        found.extend(sorted(below, key=lambda path: (len(path.parts), str(path))))
    cached = cache_directory() / filename
    return [*found, cached] if cached.is_file() else found


def _missing(spec: ModelSpec) -> str:
    root = os.environ.get("SAPIENS2_MODELS")
    place = f"below SAPIENS2_MODELS ({root})" if root else "in a directory named by SAPIENS2_MODELS"
    text = f"the weight file {spec.filename} of {spec.name} is missing; put it {place} or in {cache_directory()}"
    if spec.address is None:
        return f"{text} (no published address serves this file)"
    if spec.sha256 is None:
        return f"{text}; published at {spec.address}, not downloaded for you because its sha256 is not pinned"
    return f"{text}; published at {spec.address}{', downloads are off: SAPIENS2_OFFLINE is set' if _offline() else ''}"


def _download(spec: ModelSpec, target: Path) -> Path:
    """Fetch to a temporary file, check the digest, then move into place, so that a kill leaves no half file behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _copy(spec, file)
        if digest != spec.sha256:
            raise ValueError(f"{spec.address} served sha256 {digest} for {spec.name}, expected {spec.sha256}")
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
    return target


def _copy(spec: ModelSpec, file: BinaryIO) -> str:
    """Stream the published file into `file`; returns the sha256 of what came."""
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(str(spec.address), timeout=_TIMEOUT_SECONDS) as response:
            while block := response.read(_BLOCK):
                digest.update(block)
                file.write(block)
    except OSError as error:
        raise FileNotFoundError(f"{_missing(spec)}; the download failed: {error}") from error
    return digest.hexdigest()
