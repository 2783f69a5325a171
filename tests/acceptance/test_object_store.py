"""A whole run with its root on Ceph's object gateway, a server that checks keys, clocks and checksums as they are."""

import os
import sys
import tempfile
from pathlib import Path

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
import ceph
from micro_runs import digests, sapiens2

from components.steps import STEPS
from components.storage import Storage, StorageError
from pipelines.sample_pool import build_sample_pool

SWITCHES = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")


@pytest.fixture(scope="module")
def store():
    """The URL of a gateway, whose keys are in the environment."""
    if ceph.missing():
        pytest.skip(f"needs {', '.join(ceph.missing())}: apt-get install radosgw ceph-mon ceph-osd ceph-mgr")
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="ceph-", dir="/tmp") as folder, ceph.gateway(Path(folder)) as told:
        url, key, secret = told
        names = {"ENDPOINT_URL": url, "ACCESS_KEY_ID": key, "SECRET_ACCESS_KEY": secret, "REGION": "us-east-1"}
        os.environ |= {f"AWS_{name}": value for name, value in names.items()}
        os.environ |= dict.fromkeys(SWITCHES, "when_required")
        boto3.client("s3").create_bucket(Bucket="sapiens2")
        yield url
    os.environ.clear()
    os.environ.update(before)


def test_what_is_wrong_is_said(store, monkeypatch):
    with pytest.raises(StorageError, match=r"bucket nowhere at http.* refuses .NoSuchBucket.*: create the bucket"):
        Storage("s3://nowhere/root").reach()
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with pytest.raises(StorageError, match=r"SignatureDoesNotMatch.*mend AWS_SECRET_ACCESS_KEY"):
            Storage("s3://sapiens2/root").reach()
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_ACCESS_KEY_ID", "another")
        with pytest.raises(StorageError, match=r"InvalidAccessKeyId.*mend AWS_ACCESS_KEY_ID"):
            Storage("s3://sapiens2/root").reach()
    Storage("s3://sapiens2/root").ensure_writable()
    for name in SWITCHES:
        monkeypatch.delenv(name)
    try:
        Storage("s3://sapiens2/root").ensure_writable()
    except StorageError as error:  # Ceph before 18
        assert all(f"{name}=when_required" in str(error) for name in SWITCHES)


@pytest.mark.timeout(900)
def test_a_whole_run_is_that_of_a_local_root(store, tmp_path):
    pool = build_sample_pool(tmp_path / "pool", size="micro")
    for root in ("s3://sapiens2/run", tmp_path / "root"):
        done = sapiens2("run", "--pool", pool, "--preset", "micro", root=root, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert digests("s3://sapiens2/run") == digests(tmp_path / "root")
    assert len(digests(tmp_path / "root")) == len(STEPS)
    verified = sapiens2("artifacts", "verify", root="s3://sapiens2/run", cwd=tmp_path, check=False)
    assert verified.returncode == 0, verified.stdout[-2000:]
