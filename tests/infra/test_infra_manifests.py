"""The manifests under infra/: each builds, is what Kubernetes defines, pins what must agree, and holds no secret."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import validate

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))
from kube_api import CLUSTER, GROUP, validate_rayjob

from components.placement import Placement, Placements
from components.rayjob import manifest
from components.steps import STEPS

INFRA = Path(__file__).parents[2] / "infra"
OVERLAYS = sorted(path.name for path in (INFRA / "k8s/overlays").iterdir())
CUSTOM = {"ray.io/v1", "kueue.x-k8s.io/v1beta1"}
RELEASE = "1.31"


def built(overlay):
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl, which brings kustomize")
    command = ["kubectl", "kustomize", str(INFRA / "k8s/overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pod_templates(resource):
    """Every pod template of a RayCluster or RayJob, as a PodTemplate that Kubernetes' own schema knows."""
    spec = resource["spec"].get("rayClusterSpec") or resource["spec"]
    for group in (spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])):
        assert set(group) <= GROUP
        yield {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_kubernetes(overlay):
    resources = built(overlay)
    assert {"RayCluster", "Role", "RoleBinding", "NetworkPolicy", "ConfigMap"} <= {r["kind"] for r in resources}
    for resource in resources:
        if resource["apiVersion"] not in CUSTOM:
            validate(resource, RELEASE, strict=True)
        if resource["kind"] != "Namespace":
            assert resource["metadata"]["namespace"] == {"kind": "kubeflow", "prod": "sapiens2"}[overlay]
    (cluster,) = [r for r in resources if r["kind"] == "RayCluster"]
    assert set(cluster["spec"]) <= CLUSTER
    templates = list(pod_templates(cluster))
    for template in templates:
        validate(template, RELEASE, strict=True)
    images = {c["image"] for t in templates for c in t["template"]["spec"]["containers"]}
    assert len(images) == 1 and not images.pop().endswith(":latest")
    assert cluster["spec"]["rayVersion"] == version("ray")
    assert cluster["spec"]["authOptions"]["mode"] == "token"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_role_names_who_kfp_runs_steps_as(overlay):
    (binding,) = [r for r in built(overlay) if r["kind"] == "RoleBinding"]
    (role,) = [r for r in built(overlay) if r["kind"] == "Role"]
    who = {"kind": "pipeline-runner", "prod": "default-editor"}[overlay]
    assert [(s["name"], s["namespace"]) for s in binding["subjects"]] == [(who, role["metadata"]["namespace"])]
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "delete"]}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_launcher_knows_its_store_by_reference(overlay):
    (launcher,) = [r for r in built(overlay) if r["kind"] == "ConfigMap"]
    assert launcher["metadata"]["name"] == "kfp-launcher"
    assert launcher["data"]["defaultPipelineRoot"].startswith("s3://")
    credentials = yaml.safe_load(launcher["data"]["providers"])["s3"]["default"]["credentials"]
    assert credentials["fromEnv"] is False and credentials["secretRef"]["secretName"] == "sapiens2-s3"


def test_no_secret_lies_in_a_manifest():
    """Secrets come by reference: no Secret resource, and no value beside a name that says secret."""
    for path in INFRA.rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            assert document.get("kind") != "Secret", path
            for name, value in plain_environment(document):
                assert not re.search("SECRET|TOKEN|PASSWORD|ACCESS_KEY", name), (path, name, value)


def plain_environment(node):
    """(name, value) of every environment variable that a document sets in plain."""
    if isinstance(node, dict):
        if set(node) == {"name", "value"}:
            yield node["name"], node["value"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from plain_environment(each)


def test_the_template_of_a_training_is_a_rayjob():
    body = yaml.safe_load((INFRA / "k8s/templates/rayjob-pretrain.yaml").read_text())
    validate_rayjob(body)
    assert body["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")


def test_the_example_of_placements_is_one():
    placements = Placements.from_yaml(INFRA / "placement.example.yaml")
    assert placements.of(STEPS["pretrain"]).workers == 8 and placements.of(STEPS["filter"]).mode == "jobs"


@pytest.mark.parametrize(
    "place",
    [
        Placement(mode="rayjob", image="i"),
        Placement(
            mode="rayjob", image="i", workers=2, max_workers=4, gpus=8, queue="q", service_account="s", driver_cpus=1
        ).model_copy(update={"node_selector": {"pool": "a"}, "env": {"A": "b"}, "secrets": {"s": ("K",)}}),
    ],
)
def test_what_a_step_makes_is_a_rayjob(place):
    body = manifest("sapiens2-pretrain-0123456789ab", "true", "pretrain", place)
    validate_rayjob(body)
    cluster = body["spec"]["rayClusterSpec"]
    groups = cluster.get("workerGroupSpecs", [])
    pods = [template["template"]["spec"] for template in pod_templates(body)]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "sapiens2-ray-token"}
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods)
    if not place.workers:
        assert not groups and "num-cpus" not in cluster["headGroupSpec"]["rayStartParams"]
        return
    assert (groups[0]["replicas"], groups[0]["maxReplicas"], cluster["enableInTreeAutoscaling"]) == (2, 4, True)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # the driver's node does no work
    worker = pods[1]
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert worker["nodeSelector"] == {"pool": "a"}
    assert {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "K"}}} in worker["containers"][0]["env"]
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"


def test_the_image_has_what_the_lock_says_and_no_root():
    lines = (INFRA / "docker/Dockerfile").read_text().splitlines()
    assert any("--require-hashes -r requirements.lock" in line for line in lines)
    assert "USER 1000" in lines and not any(line.startswith("ENV") and "KEY" in line for line in lines)
