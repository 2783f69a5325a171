"""Shared fixtures: an S3 server on loopback, quiet libraries, acceptance data."""

import gc
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

HERE = Path(__file__).parent
LONGEST = (  # in about that order: two that build the micro preset's run, or start a Ray, do not follow each other
    "pipelines/test_pipelines_submit.py",
    "sapiens2/test_train.py",
    "pipelines/test_pipelines_kill.py",
    "pipelines/test_pipelines_ray_job.py",
    "sapiens2/tasks/test_tasks_training.py",
    "pipelines/test_pipelines_placement.py",
    "sapiens2/engine/test_engine_resume.py",
    "sapiens2/test_launch.py",
    "sapiens2/test_run_pretrain.py",
    "components/test_components_restart.py",
    "sapiens2/test_run_finetune.py",
    "components/test_components_prediction_ray.py",
    "pipelines/test_pipelines_step_server.py",
    "components/test_components_hamming_shuffle.py",
    "sapiens2/tasks/test_tasks_loader.py",
    "components/test_components_ray_session.py",
    "sapiens2/engine/test_engine_loader.py",
    "sapiens2/tasks/test_tasks_ranks.py",
    "sapiens2/engine/test_engine_parallel.py",
)

S3_SECRET = "planted-s3-secret-4e1b"  # to be found nowhere but in the environment


def pytest_collection_modifyitems(items):
    """Long files first: processes take files in this order, and the last ones to be taken are short."""
    places = {HERE / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Modules and tests stay to the end: no garbage collection need look at them, and training asks for many."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


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
