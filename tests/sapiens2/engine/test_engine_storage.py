"""Storage and saved states on a real HTTP S3 server behave as on a local disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from pyarrow import fs
from safetensors.torch import load as load_tensors
from toy_run import ToyObjective, ToySource, toy_config

from sapiens2.engine import checkpoint, storage
from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.engine.loop import train


def test_files_and_folders(any_root: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    uri = storage.join(any_root, "a", "b", "file.bin")
    assert not storage.exists(uri) and storage.folders(any_root) == []
    data = os.urandom(100_000)
    storage.write_bytes(uri, b"old")
    storage.write_bytes(uri, data)
    assert storage.exists(uri) and storage.read_bytes(uri) == data
    assert storage.fingerprint(uri) == (len(data), hashlib.sha256(data).hexdigest())
    assert storage.folders(any_root) == ["a"] and storage.folders(storage.join(any_root, "a")) == ["b"]
    copy = tmp_path_factory.mktemp("copy") / "copy.bin"
    storage.download(uri, copy)
    storage.upload(copy, storage.join(any_root, "c", "again.bin"))
    assert storage.read_bytes(storage.join(any_root, "c", "again.bin")) == data
    storage.delete_folder(storage.join(any_root, "a"))
    storage.delete_folder(storage.join(any_root, "a"))
    assert not storage.exists(uri) and storage.folders(any_root) == ["c"]
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(uri)


def test_training_on_s3_stops_and_continues_as_on_disk(s3_root: str, tmp_path: Path) -> None:
    config = toy_config(steps=8, checkpoint_every=3, tensorboard=True)
    there, here = s3_root, str(tmp_path)
    plain = train(ToyObjective(), ToySource(), config, out=f"{here}/out", state=f"{here}/state")
    asked = iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        train(
            ToyObjective(),
            ToySource(),
            config,
            out=f"{there}/out",
            state=f"{there}/state",
            control=Control(stop=lambda: next(asked)),
        )
    assert [saved.step for saved in checkpoint.saved_states(f"{there}/state")] == [5, 3]
    resumed = train(ToyObjective(), ToySource(), config, out=f"{there}/out", state=f"{there}/state")
    assert resumed.resumed_from == 5
    assert resumed.digest == plain.digest
    weights = load_tensors(storage.read_bytes(f"{there}/out/model.safetensors"))
    assert weights.keys() == ToyObjective().export_state().keys()
    assert len(storage.read_bytes(f"{there}/out/history.jsonl").splitlines()) == len(resumed.history)
    system, folder = storage.locate(f"{there}/out/tensorboard")
    (events,) = system.get_file_info(fs.FileSelector(folder))  # one file: that of the first attempt was replaced
    assert events.size > 1000
