"""Whole runs of the micro preset: one undisturbed run that many tests look at."""

import os
import shutil

import pytest
from filelock import FileLock
from micro_runs import sapiens2
from ray_head import started_head

from pipelines.sample_pool import build_sample_pool


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all xdist workers of this test run have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def micro_pool(shared):
    """A dozen files, people among them."""
    with FileLock(shared / "pool.lock"):
        return build_sample_pool(shared / "micro", size="micro")


@pytest.fixture(scope="session")
def micro_run(tmp_path_factory, shared, micro_pool):
    """(root, what the command printed) of one full run that nothing disturbed: made once, copied for each worker."""
    kept, told = shared / "root", shared / "stdout.txt"
    with FileLock(shared / "run.lock"):
        if not told.exists():
            done = sapiens2("run", "--pool", micro_pool, "--preset", "micro", root=kept, cwd=shared, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            told.write_text(done.stdout)
    return shutil.copytree(kept, tmp_path_factory.mktemp("micro") / "root"), told.read_text()


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory):
    """(URL of its dashboard, environment for clients) of one Ray head that the tests of a module send jobs to.

    An idle head costs as much in two minutes as the start of another.
    """
    with started_head(tmp_path_factory.mktemp("head")) as head:
        yield head
