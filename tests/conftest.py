"""Shared fixtures: an S3 server on loopback, quiet libraries, acceptance data."""

import os
import uuid
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("YOLO_CONFIG_DIR", "/tmp")
os.environ["SAPIENS2_OFFLINE"] = "1"
os.environ.setdefault("COLUMNS", "160")  # of tables in what commands print
if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core; spinning threads of several would starve each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

S3_SECRET = "planted-s3-secret-4e1b"  # to be found nowhere but in the environment


@pytest.fixture(scope="session")
def s3_server():
    """A moto S3 server on a free loopback port, named by the environment as a user would."""
    server_module = pytest.importorskip("moto.server", reason="needs moto[server] from the dev dependencies")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": S3_SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    yield names["AWS_ENDPOINT_URL"]
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value
    server.stop()


@pytest.fixture
def s3_root(s3_server):
    """A fresh prefix in a bucket of the S3 server."""
    import boto3

    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/root"


@pytest.fixture(params=["local", "s3"])
def any_root(request, tmp_path):
    """A root on disk, and one on S3."""
    return str(tmp_path / "root") if request.param == "local" else request.getfixturevalue("s3_root")


@pytest.fixture(scope="session")
def acceptance():
    """The folder of acceptance data, laid out as data/ and models/."""
    folder = os.environ.get("SAPIENS2_ACCEPTANCE")
    if not folder:
        pytest.skip("needs SAPIENS2_ACCEPTANCE: a folder with data/ and models/")
    return Path(folder).resolve()
