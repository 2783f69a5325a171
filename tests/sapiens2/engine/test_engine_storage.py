"""Storage and saved states on a real HTTP S3 server behave as on a local disk."""

from __future__ import annotations

import hashlib
import os
import socket
import uuid
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer
from safetensors.torch import load as load_tensors
from toy_run import ToyObjective, ToySource, toy_config

from sapiens2.engine import checkpoint, storage
from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.engine.loop import train


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="runs")
        yield "s3://runs"
    server.stop()


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    if request.param == "local":
        return str(request.getfixturevalue("tmp_path"))
    return f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}"


def test_files_and_folders(place: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    uri = storage.join(place, "a", "b", "file.bin")
    assert not storage.exists(uri) and storage.folders(place) == []
    data = os.urandom(100_000)
    storage.write_bytes(uri, b"old")
    storage.write_bytes(uri, data)
    assert storage.exists(uri) and storage.read_bytes(uri) == data
    assert storage.fingerprint(uri) == (len(data), hashlib.sha256(data).hexdigest())
    assert storage.folders(place) == ["a"] and storage.folders(storage.join(place, "a")) == ["b"]
    copy = tmp_path_factory.mktemp("copy") / "copy.bin"
    storage.download(uri, copy)
    storage.upload(copy, storage.join(place, "c", "again.bin"))
    assert storage.read_bytes(storage.join(place, "c", "again.bin")) == data
    storage.delete_folder(storage.join(place, "a"))
    storage.delete_folder(storage.join(place, "a"))
    assert not storage.exists(uri) and storage.folders(place) == ["c"]
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(uri)


def test_training_on_s3_stops_and_continues_as_on_disk(bucket: str, tmp_path: object) -> None:
    config = toy_config(steps=8, checkpoint_every=3)
    there, here = f"{bucket}/{uuid.uuid4().hex}", str(tmp_path)
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
