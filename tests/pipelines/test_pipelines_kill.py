"""kill -9 in the middle of anything; the same command again goes on, and every digest is that of a calm run."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from micro_runs import digests, sapiens2

from pipelines.local_run import _ended_with_us

POINTS = {  # a glob below the root whose first match is the moment to kill
    "ingest": "images/*/staging/*.json",
    "score": "scores/*/parts/*.json",
    "pretrain": "backbone/*/work/step_*/*",
}
PATIENCE_SECONDS = 300


def kill_tree(pid):
    """SIGKILL a process and everything below it, at once."""
    process = psutil.Process(pid)
    family = [*process.children(recursive=True), process]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=20)


def run_and_kill(root, pool, cwd, moment):
    """Start the run, kill it when a file matches `moment`; whether it was still running then."""
    command = [sys.executable, "-m", "pipelines.cli", "run", "--pool", str(pool), "--preset", "micro"]
    environment = {**os.environ, "COLUMNS": "160"}
    with subprocess.Popen(
        [*command, "--root", str(root)], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and not any(root.glob(moment)):
            assert time.monotonic() < deadline, f"nothing matched {moment}"
            time.sleep(0.02)
        running = process.poll() is None
        if running:
            kill_tree(process.pid)
    return running


def test_nothing_goes_on_unseen_when_the_watching_process_is_killed(micro_pool, tmp_path):
    """With Ray up: it replaces signal handlers, and its agents are children too."""
    root = tmp_path / "root"
    command = [sys.executable, "-m", "pipelines.cli", "run", "--only", "curation", "--pool", str(micro_pool)]
    command += ["--preset", "micro", "--set", "detect.workers=1", "--root", str(root)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(root.glob("detections/*/lease.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) > 5
        process.kill()
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    assert len(gone) + len(alive) == len(family)


@pytest.mark.timeout(900)
def test_a_run_killed_three_times_ends_as_a_calm_one(micro_run, micro_pool, tmp_path):
    root = tmp_path / "root"
    for step, moment in POINTS.items():
        assert run_and_kill(root, micro_pool, tmp_path, moment), f"the run ended before {step} could be killed"
        assert step not in digests(root), f"{step} was committed before the kill"
    done = sapiens2("run", "--pool", micro_pool, "--preset", "micro", root=root, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert digests(root) == digests(micro_run[0])


def test_a_second_request_to_end_does_not_leave_the_child_behind():
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    with pytest.raises(KeyboardInterrupt), _ended_with_us(child) as asked:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        while not asked:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert child.poll() is not None and asked == [signal.SIGTERM] * 2
