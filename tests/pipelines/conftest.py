"""Whole runs of the micro preset: one undisturbed run that many tests look at."""

import pytest
from micro_runs import sapiens2
from ray_head import started_head

from pipelines.sample_pool import build_sample_pool


@pytest.fixture(scope="session")
def micro_pool(tmp_path_factory):
    """A dozen files, people among them."""
    return build_sample_pool(tmp_path_factory.mktemp("pool") / "micro", size="micro")


@pytest.fixture(scope="session")
def micro_run(tmp_path_factory, micro_pool):
    """(root, what the command printed) of one full run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("micro")
    done = sapiens2("run", "--pool", micro_pool, "--preset", "micro", root=folder / "root", cwd=folder, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "root", done.stdout


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory):
    """(URL of its dashboard, environment for clients) of one Ray head that several tests send jobs to."""
    with started_head(tmp_path_factory.mktemp("head")) as head:
        yield head
