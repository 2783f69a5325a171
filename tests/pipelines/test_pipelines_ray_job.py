"""`ray job submit -- sapiens2 train ...` against a Ray head that the user started."""

import shutil
import subprocess
import urllib.error
import urllib.request

import pytest
from ray_head import BIN

from components.artifacts import Store


def submit(url, environment, *command):
    """`ray job submit --address URL -- COMMAND`, waited for."""
    return subprocess.run(
        [str(BIN / "ray"), "job", "submit", "--address", url, "--", *map(str, command)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


@pytest.mark.timeout(500)
def test_training_is_submitted_as_a_job_and_leaves_a_version(ray_head, micro_run, tmp_path):
    url, environment = ray_head
    root = tmp_path / "root"
    shutil.copytree(micro_run[0], root)
    before = Store(str(root)).versions("backbone")
    command = ("sapiens2", "train", "pretrain", "--preset", "micro", "--set", "pretrain.engine.seed=3", "--root", root)
    done = submit(url, environment, *command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    after = Store(str(root)).versions("backbone")
    (new,) = set(after) - set(before)
    manifest = Store(str(root)).get("backbone", new).manifest
    assert manifest.config["engine"]["seed"] == 3
    assert manifest.digest != Store(str(root)).get("backbone", before[0]).manifest.digest


def test_the_job_api_refuses_a_stranger(ray_head):
    url, _ = ray_head
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/api/jobs/", timeout=5)
    assert refused.value.code in (401, 403)
