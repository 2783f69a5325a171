"""A Ray head node as a user starts one, for tests of jobs."""

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
from contextlib import contextmanager
from pathlib import Path

import psutil

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


def listens(port, patience_s=60):
    """Whether a loopback port takes connections. Ray's client server is last, and its failure ends the head."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.3)
    return False


@contextmanager
def started_head(folder, attempts=3):
    """(URL, environment) of a head node as docs/cluster.md starts one: on loopback, with a token; stopped by its pid.

    Only its ports are not the usual ones; that of its metrics is METRICS_PORT in the environment.

    Ray gives a head 30 s to start, which a busy machine may exceed: then it is tried again.
    """
    gcs, dashboard, agent, client, metrics = free_ports(5)
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "METRICS_PORT": str(metrics),
    }
    environment.pop("RAY_ADDRESS", None)
    where = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # socket paths are short
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
        f"--metrics-export-port={metrics}",
        *("--node-ip-address=127.0.0.1", "--object-store-memory=300000000", f"--temp-dir={where}"),
    ]
    log, url = folder / "head.log", f"http://127.0.0.1:{dashboard}"
    with log.open("wb") as sink:
        for _ in range(attempts):
            process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environment)
            if became_ready(process, url, log) and listens(client):
                break
            stop(process)
        else:
            raise AssertionError(log.read_text()[-2000:])
        try:
            yield url, environment
        finally:
            stop(process)
            shutil.rmtree(where, ignore_errors=True)


def became_ready(process, url, log):
    """Whether the head came up whole: it says so itself, and its job API answers."""
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        if b"Ray runtime started" in log.read_bytes() and answers(url):
            return True
        time.sleep(0.3)
    return False


def stop(process):
    """End the head, which ends what it started, and soon after it what has not ended by then."""
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        psutil.wait_procs([psutil.Process(process.pid)], timeout=10)
        _, alive = psutil.wait_procs(family, timeout=1)
        for member in [*alive, process]:
            member.kill()
        process.wait()
