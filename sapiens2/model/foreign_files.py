"""What of somebody else's backbone lies on this machine, and what its content is. Needs neither library nor PyTorch."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from sapiens2.model.foreign_names import RANDOM, ForeignName

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weights of a transformers folder, in the order in which the library looks for them; an index names several files."""
SHOWN = 8
"""Letters of a digest, where it is shown."""


def is_folder(name: str) -> bool:
    """Whether NAME of `hf:NAME` is a local folder."""
    return (Path(name) / CONFIG).is_file()


def local_files(name: ForeignName) -> list[Path]:
    """The files that decide what a backbone is: FILE, and of a local folder its weights where there is no FILE, its
    configuration and its normalisation. Nothing for what the library finds or downloads."""
    found = [Path(name.file)] if name.file not in (None, RANDOM) else []
    if name.library != "hf" or not is_folder(name.name):
        return found
    folder = Path(name.name)
    if name.file is None:
        found += _weights(folder)
    return found + [folder / file for file in (CONFIG, PREPROCESSOR) if (folder / file).is_file()]


def _weights(folder: Path) -> list[Path]:
    first = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if first is None or first.suffix != ".json":
        return [] if first is None else [first]
    shards = json.loads(first.read_text()).get("weight_map", {}).values()
    return [first, *(folder / file for file in sorted(set(shards)) if (folder / file).is_file())]


def local_digest(name: ForeignName) -> str:
    """sha256 of FILE; with a folder, of the lines `sha256  file name` of all its files; empty where there are none."""
    files = local_files(name)
    if len(files) < 2:
        return file_sha256(files[0]) if files else ""
    return hashlib.sha256("\n".join(f"{file_sha256(file)}  {file.name}" for file in files).encode()).hexdigest()


def file_sha256(path: str | Path) -> str:
    """sha256 of a local file or a URI; of a local one it is remembered until size or time of change differs."""
    from sapiens2.engine.storage import fingerprint

    if "://" in str(path):
        return fingerprint(str(path))[1]
    status = Path(path).stat()
    return _remembered(str(Path(path).absolute()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _remembered(path: str, size: int, changed_ns: int) -> str:
    """A plan and the run after it hash tens of GB once."""
    from sapiens2.engine.storage import fingerprint

    return fingerprint(path)[1]


def shown_name(name: ForeignName) -> str:
    """The name of a backbone as tables have it: fresh weights say so, local ones bear the start of their digest."""
    short = Path(name.name).name if name.library == "hf" and is_folder(name.name) else name.name
    if name.file == RANDOM:
        return f"{name.library}:{short}:{RANDOM}"
    digest = local_digest(name)
    return f"{name.library}:{short} ({digest[:SHOWN]})" if digest else f"{name.library}:{short}"
