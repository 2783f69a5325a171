"""A step as a job of a Ray cluster and as a RayJob: the same artifact, its log here, and cancelled when we are."""

import base64
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import yaml
from broken_link import BrokenLink
from kube_api import KubeApi

from components import kfp_entry
from components.artifacts import Store
from components.placement import VARIABLE, Placement, Placements
from components.ray_jobs import Cancelled, connect, run_job
from components.rayjob import run_rayjob
from components.settings import Settings
from pipelines.compile import compile_pipeline

SECRET = "planted-secret-9f3c"
PLACE = {"poll_s": 0.3, "image": "sapiens2:test", "secrets": {"sapiens2-s3": ("PLANTED_KEY",)}}


@pytest.fixture
def cluster(ray_head, monkeypatch):
    """The dashboard's URL, with the client's side of the token in the environment."""
    url, environment = ray_head
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return url


@pytest.fixture
def kube(cluster, tmp_path, monkeypatch):
    """An emulated Kubernetes API whose operator runs RayJobs on the cluster."""
    api = KubeApi(cluster, {"sapiens2-s3": {"PLANTED_KEY": base64.b64encode(SECRET.encode()).decode()}})
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
    yield api
    api.close()


def without_filter(micro_run, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(micro_run[0], root)
    shutil.rmtree(root / "filtered")
    shutil.rmtree(root / "events", ignore_errors=True)
    return root


def run_filter(root, tmp_path, settings):
    """The filter step as its KFP component runs it; what it wrote as its output."""
    store = Store(str(root))
    inputs = {
        role: SimpleNamespace(path="/nowhere", uri=store.storage.full(f"{store.latest(role).folder}/manifest.json"))
        for role in ("images", "detections", "scores")
    }
    out = SimpleNamespace(path=str(tmp_path / "out" / "filtered"), metadata={})
    facts = SimpleNamespace(path=str(tmp_path / "out" / "facts"), log_metric=lambda *_: None)
    kfp_entry.run("filter", inputs, out, facts, str(root), settings.as_dict())
    return out


@pytest.mark.parametrize("mode", ["jobs", "rayjob"])
def test_a_step_elsewhere_makes_what_it_makes_here(mode, micro_run, kube, cluster, tmp_path, monkeypatch, capsys):
    root = without_filter(micro_run, tmp_path)
    monkeypatch.setenv(VARIABLE, Placement(mode=mode, address=cluster, **PLACE).to_json())
    out = run_filter(root, tmp_path, Settings(preset="micro"))
    here = Store(str(micro_run[0])).latest("filtered")
    made = Store(str(root)).latest("filtered")
    assert (made.version, made.manifest.digest) == (here.version, here.manifest.digest)
    assert out.metadata["version"] == here.version
    assert Path(out.path).read_bytes() == made.manifest.dump()
    printed = capsys.readouterr().out
    assert printed.count(f"filter: made filtered={here.version}") == 1  # the job's own log, once
    assert len(kube.made) == (mode == "rayjob") == len(kube.deleted)
    assert not (root / "jobs" / "filter").exists() and not list(root.glob("jobs/*/order.json"))
    written = [path for path in root.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()] and SECRET not in printed
    assert SECRET not in str(kube.made)


def test_what_the_user_can_mend_is_told_as_if_it_had_run_here(micro_run, cluster, tmp_path, monkeypatch, capsys):
    root = without_filter(micro_run, tmp_path)
    monkeypatch.setenv(VARIABLE, Placement(mode="jobs", address=cluster, poll_s=0.3).to_json())
    with pytest.raises(SystemExit) as ended:
        run_filter(root, tmp_path, Settings(preset="micro", overrides={"filter.min_person_px": -1}))
    assert ended.value.code == 2
    assert "error: filter: filter.min_person_px: Input should be" in capsys.readouterr().out


def interrupt_when(condition):
    """Send this process SIGTERM as soon as the condition holds."""

    def watch():
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and not condition():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def is_running(client, name):
    return any(job.submission_id == name and job.status.value == "RUNNING" for job in client.list_jobs())


def test_cancelling_the_step_cancels_the_job(cluster):
    client = connect(cluster)
    interrupt_when(lambda: is_running(client, "cancelled-job"))
    with pytest.raises(Cancelled):
        run_job(cluster, "cancelled-job", "sleep 300", poll_s=0.2)
    assert client.get_job_status("cancelled-job").value == "STOPPED"


def test_cancelling_the_step_deletes_the_rayjob(kube, cluster):
    client = connect(cluster)
    interrupt_when(lambda: is_running(client, "cancelled-rayjob"))
    with pytest.raises(Cancelled):
        run_rayjob("cancelled-rayjob", "sleep 300", "filter", Placement(mode="rayjob", **PLACE))
    assert kube.deleted == ["cancelled-rayjob"] and not kube.jobs


def test_a_lost_connection_costs_nothing(cluster, capsys):
    """Cut while the job prints; it goes on, its log is whole, and a second caller finds it instead of a new one."""
    where = urlsplit(cluster)
    link = BrokenLink(where.hostname, where.port)
    line = 'import time; [print("line", i, flush=True) or time.sleep(0.15) for i in range(40)]'
    client = connect(cluster)

    def cut():
        while not is_running(client, "patient-job"):
            time.sleep(0.05)
        time.sleep(1.5)
        link.break_now()
        time.sleep(1.5)
        link.cut = False

    threading.Thread(target=cut, daemon=True).start()
    state = run_job(f"http://127.0.0.1:{link.port}", "patient-job", f"python -c '{line}'", poll_s=0.2)
    link.close()
    assert state == "SUCCEEDED" and len([j for j in client.list_jobs() if j.submission_id == "patient-job"]) == 1
    lines = [text for text in capsys.readouterr().out.splitlines() if text.startswith("line ")]
    assert lines == [f"line {i}" for i in range(40)]


def test_a_cluster_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"no Ray Jobs API answers at http://127\.0\.0\.1:9"):
        connect("http://127.0.0.1:9")


def test_the_kubernetes_api_says_why_it_refuses(kube):
    with pytest.raises(ValueError, match=r"refused RayJob default/bad: .*ValidationError"):
        run_rayjob(
            "bad",
            "true",
            "filter",
            Placement(mode="rayjob", image="x", cpus=1, env={"A=B": "c"}, memory="4Gi").model_copy(
                update={"memory": ["not", "a", "quantity"]}
            ),
        )


def test_a_compiled_pipeline_says_where_each_step_runs(tmp_path):
    placements = Placements(
        {"mode": "rayjob", "image": "registry/sapiens2:1", "secrets": {"sapiens2-s3": ["AWS_SECRET_ACCESS_KEY"]}},
        {
            "pretrain": {"gpus": 8, "workers": 4, "queue": "training"},
            "card": {"mode": "attach", "cpus": 4, "memory": "8Gi", "gpus": 1, "node_selector": {"pool": "big"}},
            "finetune": {"gpus": 1},
            "finetune-pose": {"gpus": 2},
        },
    )
    spec, platform = yaml.safe_load_all(compile_pipeline("full", tmp_path / "ir.yaml", placements).read_text())
    by_step = {
        task["taskInfo"]["name"]: spec["components"][task["componentRef"]["name"]]["executorLabel"]
        for task in spec["root"]["dag"]["tasks"].values()
    }
    containers = {n: spec["deploymentSpec"]["executors"][e]["container"] for n, e in by_step.items()}
    environment = {n: {e["name"]: e["value"] for e in c.get("env", [])} for n, c in containers.items()}
    place = {n: Placement.model_validate_json(e[VARIABLE]) for n, e in environment.items()}
    assert {c["image"] for c in containers.values()} == {"registry/sapiens2:1"}
    assert (place["pretrain"].gpus, place["pretrain"].workers, place["pretrain"].queue) == (8, 4, "training")
    assert (place["finetune-pose"].gpus, place["finetune-normal"].gpus) == (2, 1)
    assert containers["card"]["resources"]["resourceMemoryLimit"] == "8Gi"
    assert containers["card"]["resources"]["accelerator"]["resourceCount"] == "1"
    assert "accelerator" not in containers["pretrain"]["resources"]  # its pod only watches
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert kubernetes[by_step["card"]]["nodeSelector"]["labels"] == {"pool": "big"}
    for name, label in by_step.items():
        secrets = {s["secretName"]: [k["envVar"] for k in s["keyToEnv"]] for s in kubernetes[label]["secretAsEnv"]}
        assert secrets.pop("sapiens2-s3") == ["AWS_SECRET_ACCESS_KEY"]
        assert secrets == ({} if name == "card" else {"sapiens2-ray-token": ["RAY_AUTH_TOKEN"]})
