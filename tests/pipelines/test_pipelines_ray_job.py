"""`ray job submit -- sapiens2 train ...` against a Ray head that the user started."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from components.artifacts import Store

BIN = Path(sys.executable).parent
TOKEN = "a-token-of-this-test-and-no-other-0123456789abcdef"


def free_ports(count):
    """Free loopback ports outside Ray's worker range 10002-19999."""
    found = []
    while len(found) < count:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if not 10002 <= port <= 19999:
            found.append(port)
    return found


def answers(url):
    """Whether the head's job API answers to the token."""
    request = urllib.request.Request(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def ray_head(tmp_path_factory):
    """The address of a head node with its job API on loopback, token-authenticated, stopped by its own pid."""
    gcs, dashboard, agent, client = free_ports(4)
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    where = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # socket paths are short
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        *("--node-ip-address=127.0.0.1", "--object-store-memory=300000000", f"--temp-dir={where}"),
    ]
    log = tmp_path_factory.mktemp("head") / "head.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environment)
        try:
            url, deadline = f"http://127.0.0.1:{dashboard}", time.monotonic() + 90
            while not answers(url):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.3)
            yield url, environment
        finally:
            if process.poll() is None:
                family = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
                _, alive = psutil.wait_procs([psutil.Process(process.pid), *family], timeout=10)
                for member in alive:
                    member.kill()
                process.wait()
            shutil.rmtree(where, ignore_errors=True)


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
