"""One step inside the image of infra/docker makes what it makes outside.

    podman build -f infra/docker/Dockerfile -t localhost/sapiens2:dev .

The image must be of this code. SAPIENS2_IMAGE names another, SAPIENS2_CONTAINER another command than `podman run` or
`docker run`; where raising limits is forbidden, podman is tried with other ones.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pipelines"))
from micro_runs import digests, sapiens2

from pipelines.sample_pool import build_sample_pool

IMAGE = os.environ.get("SAPIENS2_IMAGE", "localhost/sapiens2:dev")
RESTRICTED = "podman --runtime runc run --ulimit nofile=4096:4096 --ulimit nproc=8192:8192"


@pytest.fixture(scope="module")
def run():
    """The command that runs the image, without what is run in it."""
    tool = next((name for name in ("podman", "docker") if shutil.which(name)), None)
    given = os.environ.get("SAPIENS2_CONTAINER")
    ways = [given] if given else [f"{tool} run", *([RESTRICTED] if tool == "podman" else [])] if tool else []
    if not ways:
        pytest.skip("needs podman or docker: apt-get install podman")
    program = shlex.split(ways[0])[0]
    if subprocess.run([program, "image", "inspect", IMAGE], capture_output=True).returncode:
        pytest.skip(f"needs the image {IMAGE}: {program} build -f infra/docker/Dockerfile -t {IMAGE} .")
    for way in ways:
        command = [*shlex.split(way), "--rm", "--network", "none"]
        tried = subprocess.run([*command, IMAGE, "true"], capture_output=True, text=True)
        if tried.returncode not in (125, 126):  # of the program itself: it could not start the container
            return command
    pytest.skip(f"{program} starts no container here (SAPIENS2_CONTAINER may name a way): {tried.stderr.strip()}")


def test_a_step_in_the_image_makes_what_it_makes_outside(run, tmp_path):
    tmp_path.chmod(0o777)  # the image's user is another
    build_sample_pool(tmp_path / "pool", size="micro")
    step = ("step", "ingest", "--preset", "micro", "--pool")
    sapiens2(*step, tmp_path / "pool", root=tmp_path / "outside", cwd=tmp_path)
    inside = [*run, "-v", f"{tmp_path}:/data", IMAGE, "sapiens2", *step, "/data/pool", "--root", "/data/inside"]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(tmp_path / "inside") == digests(tmp_path / "outside") != {}


def test_the_image_runs_as_nobody_special_and_has_no_compiler(run):
    said = subprocess.run([*run, IMAGE, "sh", "-c", "id -u; command -v gcc pip; env"], capture_output=True, text=True)
    first, *rest = said.stdout.splitlines()
    assert first == "1000" and not [line for line in rest if line.startswith("/")]
    assert "RAY_AUTH_MODE=token" in rest
