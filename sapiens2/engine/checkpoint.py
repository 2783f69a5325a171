"""Saved states of a run: `<state>/step_<n>/` with the data first and the marker last.

The marker lists every file with its size and sha256, so a state is either complete and provable or it does not count.
A local root is written in place, a remote one staged in a temporary folder and uploaded; the format is torch's
distributed checkpoint, which reads back at any number of ranks.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from sapiens2.engine import storage
from sapiens2.engine.world import World, gather_objects

MARKER = "complete.json"
_PREFIX = "step_"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """A complete saved state."""

    step: int
    uri: str
    files: dict[str, dict[str, Any]] = field(repr=False)
    note: dict[str, Any] = field(repr=False)


def save(tensors: dict[str, Tensor], note: dict[str, Any], *, root: str, step: int, world: World) -> Saved:
    """Write the state after `step` steps; returns once it is complete. Collective over all ranks.

    `note` is small JSON-able data kept in the marker. A torn state of the same step is replaced.
    """
    target = storage.join(root, f"{_PREFIX}{step}")
    if world.leads:
        _remove(target)
    gather_objects(None, world)
    with _staging(target) as folder:
        _write_data(tensors, folder, world)
        mine = _own_files(folder, world)
        files = {path.name: _describe(path) for path in mine}
        if storage.is_remote(target):
            for path in mine:
                storage.upload(path, storage.join(target, path.name))
    listing = {name: about for part in gather_objects(files, world) for name, about in part.items()}
    marker = {"format": 1, "step": step, "ranks": world.size, "files": listing, "note": note}
    if world.leads:
        storage.write_bytes(storage.join(target, MARKER), json.dumps(marker, sort_keys=True).encode())
    gather_objects(None, world)
    return Saved(step, target, listing, note)


@contextmanager
def _staging(target: str) -> Iterator[Path]:
    if storage.is_remote(target):
        with tempfile.TemporaryDirectory(prefix="sapiens2-state-") as folder:
            yield Path(folder)
    else:
        folder_path = storage.local_path(target)
        folder_path.mkdir(parents=True, exist_ok=True)
        yield folder_path


def _write_data(tensors: dict[str, Tensor], folder: Path, world: World) -> None:
    # One file per rank, fsynced; with one process no group is needed.
    writer = dcp.FileSystemWriter(folder, single_file_per_rank=True, sync_files=True)
    with _no_remark_on_one_process():
        dcp.save(dict(tensors), storage_writer=writer, process_group=world.group, no_dist=world.size == 1)


@contextmanager
def _no_remark_on_one_process() -> Iterator[None]:
    # torch warns each time that it assumes a single process, which is what no_dist says.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _own_files(folder: Path, world: World) -> list[Path]:
    paths = sorted(folder.glob(f"__{world.rank}_*"))
    return [*paths, folder / ".metadata"] if world.leads else paths


def _describe(path: Path) -> dict[str, Any]:
    size, sha256 = storage.fingerprint(str(path))
    return {"bytes": size, "sha256": sha256}


def saved_states(root: str) -> list[Saved]:
    """Every state with a marker, the newest first; not verified yet."""
    found = []
    for name in storage.folders(root):
        number = name.removeprefix(_PREFIX)
        uri = storage.join(root, name)
        if name.startswith(_PREFIX) and number.isdigit() and storage.exists(storage.join(uri, MARKER)):
            marker = json.loads(storage.read_bytes(storage.join(uri, MARKER)))
            found.append(Saved(int(number), uri, marker["files"], marker["note"]))
    return sorted(found, key=lambda saved: saved.step, reverse=True)


def damage(saved: Saved) -> str | None:
    """What is wrong with a saved state's files, or None if every one has the size and sha256 of the marker."""
    for name, about in saved.files.items():
        uri = storage.join(saved.uri, name)
        if not storage.exists(uri):
            return f"{name} is missing"
        if storage.fingerprint(uri) != (about["bytes"], about["sha256"]):
            return f"{name} is not what was written"
    return None


def newest(root: str) -> Saved | None:
    """The newest state that is complete and verified; damaged ones are passed over with a warning."""
    for saved in saved_states(root):
        problem = damage(saved)
        if problem is None:
            return saved
        _log.warning("ignoring the saved state %s: %s", saved.uri, problem)
    return None


def load(saved: Saved, prepare: Callable[[list[str]], dict[str, Tensor]], *, world: World) -> None:
    """Read a saved state into the tensors that `prepare(names)` returns, in place. Collective over all ranks.

    Raises ValueError if the state belongs to another model.
    """
    with _fetched(saved) as folder:
        reader = dcp.FileSystemReader(folder)
        held = reader.read_metadata().state_dict_metadata
        tensors = prepare(list(held))
        _check_same_model(held, tensors, saved.uri)
        with _no_remark_on_one_process():
            dcp.load(tensors, storage_reader=reader, process_group=world.group, no_dist=world.size == 1)


@contextmanager
def _fetched(saved: Saved) -> Iterator[Path]:
    if not storage.is_remote(saved.uri):
        yield storage.local_path(saved.uri)
        return
    with tempfile.TemporaryDirectory(prefix="sapiens2-state-") as folder:
        for name in saved.files:
            storage.download(storage.join(saved.uri, name), Path(folder) / name)
        yield Path(folder)


def _check_same_model(held: dict[str, Any], tensors: dict[str, Tensor], uri: str) -> None:
    mend = "continue with the configuration that wrote it, or give another state folder"
    odd = sorted(set(held) ^ set(tensors))
    if odd:
        where = "only in the saved state" if odd[0] in held else "not in the saved state"
        raise ValueError(f"{uri} belongs to another model: {odd[0]} is {where}; {mend}")
    for name, about in held.items():
        assert isinstance(about, TensorStorageMetadata)
        if about.size != tensors[name].shape:
            shapes = f"{tuple(about.size)} there, {tuple(tensors[name].shape)} here"
            raise ValueError(f"{uri} belongs to another model: {name} is {shapes}; {mend}")


def retain(root: str, keep: int) -> None:
    """Delete all but the newest `keep` states and torn ones older than the newest verified state.

    Nothing is deleted unless a verified state that is newer than all deleted ones exists.
    """
    best = newest(root)
    if best is None:
        return
    complete = [saved.step for saved in saved_states(root) if saved.step <= best.step]
    kept = set(complete[:keep])
    for name in storage.folders(root):
        number = name.removeprefix(_PREFIX)
        if name.startswith(_PREFIX) and number.isdigit() and int(number) < best.step and int(number) not in kept:
            _remove(storage.join(root, name))


def _remove(uri: str) -> None:
    # The marker goes first: a deletion that is interrupted must not leave a state that looks complete.
    storage.delete_file(storage.join(uri, MARKER))
    storage.delete_folder(uri)
