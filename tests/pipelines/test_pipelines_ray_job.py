"""`ray job submit -- sapiens2 train ...` against a Ray head that the user started."""

import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ray_head import BIN

from components.artifacts import Store

DOCS = Path(__file__).parents[2] / "docs"


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


def kill_the_step_of(root):
    """SIGKILL the process of a job that works under this root, and what it has started."""
    drivers = [p for p in psutil.process_iter(["cmdline"]) if {str(root), "train"} <= set(p.info["cmdline"] or ())]
    assert drivers
    for driver in drivers:
        for process in (*driver.children(recursive=True), driver):
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.mark.timeout(500)
def test_fine_tuning_and_evaluation_are_jobs_and_the_same_command_again_resumes(ray_head, micro_run, tmp_path):
    url, environment = ray_head
    root = tmp_path / "root"
    shutil.copytree(micro_run[0], root)
    store = Store(str(root))
    before, told = store.versions("pose"), ("--preset", "micro", "--root", root)
    length = ("--set", "finetune.engine.steps=60", "--set", "finetune.engine.checkpoint_every=10")
    tune = ("sapiens2", "train", "finetune", "--task", "pose", *length, *told)
    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(submit, url, environment, *tune)
        deadline = time.monotonic() + 120
        while not (saved := list(root.glob("pose/*/work/step_*/complete.json"))):
            assert not killed.done() and time.monotonic() < deadline
            time.sleep(0.05)
        kill_the_step_of(root)
        assert killed.result().returncode != 0 and store.versions("pose") == before
    done = submit(url, environment, *tune)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (version,) = set(store.versions("pose")) - set(before)
    steps = [int(step) for step in re.findall(r"\[finetune-pose\] (\d+)/60 steps loss", done.stdout)]
    assert steps and min(steps) > min(int(path.parent.name.removeprefix("step_")) for path in saved)
    judged = submit(url, environment, "sapiens2", "evaluate", "pose", *told)
    assert judged.returncode == 0, judged.stdout[-3000:] + judged.stderr[-3000:]
    judges = store.latest("evaluation-pose").manifest.inputs
    assert [ref.version for ref in judges if ref.kind == "pose"] == [version]


def test_the_job_api_refuses_a_stranger(ray_head):
    url, _ = ray_head
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/api/jobs/", timeout=5)
    assert refused.value.code in (401, 403)


def test_prometheus_finds_the_metrics_that_the_docs_name(ray_head):
    """The names in docs/cluster.md, on the page of a head that had a job."""
    url, environment = ray_head
    done = submit(url, environment, "python", "-c", "import ray; ray.init(); print('ended')")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    named = set(re.findall(r"`(ray_[a-z_]+)`", (DOCS / "cluster.md").read_text()))
    assert {"ray_node_cpu_utilization", "ray_tasks"} <= named
    deadline = time.monotonic() + 60  # Ray counts tasks every ten seconds
    while missing := named - metrics_at(environment["METRICS_PORT"]):
        assert time.monotonic() < deadline, missing
        time.sleep(1)


def metrics_at(port):
    """The names of the samples on a page for Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        return {re.split(r"[{ ]", line)[0] for line in page.read().decode().splitlines() if line.startswith("ray_")}


def test_a_ray_that_the_docs_start_by_hand_listens_on_loopback_alone(ray_head):
    url, environment = ray_head
    (head,) = [
        p for p in psutil.Process().children() if f"--metrics-export-port={environment['METRICS_PORT']}" in p.cmdline()
    ]
    family = [head, *head.children(recursive=True)]
    listening = [c.laddr for p in family for c in p.net_connections("inet") if c.status == "LISTEN"]
    assert {int(url.rpartition(":")[2]), int(environment["METRICS_PORT"])} <= {address.port for address in listening}
    assert {address.ip.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}, listening
