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
from components.settings import Settings
from components.steps import STEPS, pipeline_steps

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
def test_who_may_reach_which_port_of_ray(overlay):
    """All ports for Ray's own pods alone; the dashboard for who submits, the metrics for Prometheus; else nothing."""
    (policy,) = [r for r in built(overlay) if r["kind"] == "NetworkPolicy"]
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    reach = {}
    for rule in policy["spec"]["ingress"]:
        ports = tuple(each["port"] for each in rule.get("ports", [])) or "all"
        reach.setdefault(ports, []).extend(said(source["podSelector"]) for source in rule["from"])
    assert reach == {
        "all": ["sapiens2"],
        (8265,): ["pipelines.kubeflow.org/v2_component=true", "ray.io/originated-from-crd=RayJob", "kuberay-operator"],
        (8080,): ["prometheus"],
    }
    (cluster,) = [r for r in built(overlay) if r["kind"] == "RayCluster"]
    chosen = policy["spec"]["podSelector"]["matchLabels"].items()
    assert all(chosen <= t["template"]["metadata"]["labels"].items() for t in pod_templates(cluster))


def said(selector):
    """The one label that a pod selector asks for."""
    pairs = list(selector.get("matchLabels", {}).items())
    pairs += [(e["key"], *e["values"]) for e in selector.get("matchExpressions", []) if e["operator"] == "In"]
    ((name, value),) = pairs
    return value if name == "app.kubernetes.io/name" else f"{name}={value}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_autoscalers_pod_holds_a_key_to_kubernetes(overlay):
    (cluster,) = [r for r in built(overlay) if r["kind"] == "RayCluster"]
    (account,) = [r for r in built(overlay) if r["kind"] == "ServiceAccount"]
    assert account["automountServiceAccountToken"] is False
    head, *workers = [template["template"]["spec"] for template in pod_templates(cluster)]
    assert "serviceAccountName" not in head and "automountServiceAccountToken" not in head  # KubeRay sets its own
    job = yaml.safe_load((INFRA / "k8s/templates/rayjob-pretrain.yaml").read_text())
    for pod in [*workers, *(template["template"]["spec"] for template in pod_templates(job))]:
        assert pod["serviceAccountName"] == account["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_has_few_rights_and_room_that_is_counted(overlay):
    (cluster,) = [r for r in built(overlay) if r["kind"] == "RayCluster"]
    for template in pod_templates(cluster):
        pod = template["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


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


@pytest.mark.parametrize(("name", "overlay"), [("placement.kind.yaml", "kind"), ("placement.example.yaml", "prod")])
def test_a_placement_speaks_of_the_cluster_of_its_overlay(name, overlay):
    """Image, store and address of a step's work are those of the RayCluster and the launcher beside it."""
    resources = built(overlay)
    (cluster,) = [r for r in resources if r["kind"] == "RayCluster"]
    containers = [c for t in pod_templates(cluster) for c in t["template"]["spec"]["containers"]]
    (image,) = {container["image"] for container in containers}
    variables = [variable for container in containers for variable in container["env"]]
    (endpoint,) = {variable["value"] for variable in variables if variable["name"] == "AWS_ENDPOINT_URL"}
    placements = Placements.from_yaml(INFRA / name)
    for place in map(placements.of, STEPS.values()):
        assert (place.image, place.env["AWS_ENDPOINT_URL"]) == (image, endpoint)
        assert place.address == f"http://{cluster['metadata']['name']}-head-svc:8265"
    (launcher,) = [r for r in resources if r["kind"] == "ConfigMap"]
    provider = yaml.safe_load(launcher["data"]["providers"])["s3"]["default"]
    assert provider["endpoint"] == endpoint.split("://")[1] and provider["disableSSL"] is endpoint.startswith("http:")


def test_the_placement_of_the_runbook_fits_a_laptop():
    """No step asks for a GPU, a queue or pods of its own, and the worker pod has room for the workers of a stage."""
    placements = Placements.from_yaml(INFRA / "placement.kind.yaml")
    for place in map(placements.of, STEPS.values()):
        assert (place.mode, place.gpus, place.queue) == ("jobs", 0, "")
    (cluster,) = [r for r in built("kind") if r["kind"] == "RayCluster"]
    (worker,) = cluster["spec"]["workerGroupSpecs"]
    processors = worker["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]
    stages = [Settings().config(step) for step in pipeline_steps("curation")]
    assert int(processors) >= max(getattr(config, "workers", 0) for config in stages)


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
    grows = cluster.get("enableInTreeAutoscaling", False)
    assert [pod["automountServiceAccountToken"] for pod in pods] == [grows] + [False] * (len(pods) - 1)
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
    # `pip install` would ask for what the lock's overrides left out, as ultralytics' own opencv-python.
    assert any("uv pip sync" in line and "--require-hashes requirements.lock" in line for line in lines)
    assert "USER 1000" in lines and not any(line.startswith("ENV") and "KEY" in line for line in lines)
