"""A RayJob of its own for a step: KubeRay makes a cluster sized for it, runs the job, and takes the cluster away."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from components.job import JobFailed
from components.placement import Placement
from components.ray_jobs import Cancellation, Cancelled, cancellable, follow

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEPLOYMENT_ENDED = {"Complete": "SUCCEEDED", "Failed": "FAILED", "ValidationFailed": "FAILED"}
KEPT_S = 600  # how long KubeRay keeps an ended RayJob, for whoever looks


def manifest(name: str, entrypoint: str, step: str, place: Placement) -> dict[str, Any]:
    """The RayJob resource: plain data, no secret in it."""
    labels = {"app.kubernetes.io/name": "sapiens2", "app.kubernetes.io/component": step}
    if place.queue:
        labels[QUEUE_LABEL] = place.queue
    spec: dict[str, Any] = {
        "entrypoint": entrypoint,
        "jobId": name,
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEPT_S,
        "backoffLimit": 0,
        "rayClusterSpec": _cluster(place),
    }
    if place.driver_cpus:
        spec["entrypointNumCpus"] = place.driver_cpus
    if place.driver_gpus:
        spec["entrypointNumGpus"] = place.driver_gpus
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "RayJob",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


def _cluster(place: Placement) -> dict[str, Any]:
    alone = place.workers == 0 and place.max_workers is None
    most = place.max_workers or place.workers
    grows = most > place.workers  # only Ray's autoscaler, which runs beside the head, asks the Kubernetes API anything
    head = (place.cpus, place.memory, place.gpus) if alone else (place.head_cpus, place.head_memory, 0)
    cluster: dict[str, Any] = {
        "rayVersion": package_version("ray"),
        "authOptions": {"mode": "token", "secretName": place.token_secret},
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0"} | ({} if alone else {"num-cpus": "0"}),
            "template": _pod("ray-head", place, *head, asks_kubernetes=grows),
        },
    }
    if not alone:
        cluster["enableInTreeAutoscaling"] = grows
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": place.workers,
                "minReplicas": place.workers,
                "maxReplicas": most,
                "rayStartParams": {},
                "template": _pod("ray-worker", place, place.cpus, place.memory, place.gpus),
            }
        ]
    return cluster


def _pod(
    container: str, place: Placement, cpus: float, memory: str, gpus: int, *, asks_kubernetes: bool = False
) -> dict[str, Any]:
    amount = {"cpu": f"{cpus:g}", "memory": memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in place.env.items()]
    env.append({"name": "RAY_USAGE_STATS_ENABLED", "value": "0"})
    for secret, keys in place.secrets.items():
        env += [{"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}} for key in keys]
    spec: dict[str, Any] = {
        "containers": [
            {
                "name": container,
                "image": place.image,
                "env": env,
                "resources": {"requests": dict(amount), "limits": dict(amount)},
                "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "automountServiceAccountToken": asks_kubernetes,
    }
    if place.node_selector:
        spec["nodeSelector"] = dict(place.node_selector)
    if place.service_account:
        spec["serviceAccountName"] = place.service_account
    return {"metadata": {"labels": {"app.kubernetes.io/name": "sapiens2"}}, "spec": spec}


def run_rayjob(
    name: str, entrypoint: str, step: str, place: Placement, before_start: Callable[[], None] = lambda: None
) -> str:
    """Make a RayJob and see it to its end, its log on our stdout; returns `SUCCEEDED`, `FAILED` or `STOPPED`.

    One of that name that is at work is followed. It is deleted at the end, and when this process is asked to end.
    Raises ValueError when the Kubernetes API refuses, JobFailed when the pods do not come up, Cancelled.
    """
    if not place.image:
        raise ValueError(f"placement of {step}: mode rayjob needs `image`, the container image of the Ray pods")
    resource = _Resource(name, place.namespace or _own_namespace())
    with cancellable() as cancellation:
        try:
            _create(resource, manifest(name, entrypoint, step, place), before_start, cancellation)
            client = _await_dashboard(resource, place, cancellation)
            state = follow(client, name, resource.state, place.poll_s, cancellation)
        except (Cancelled, KeyboardInterrupt):
            print(f"deleting RayJob {name}", flush=True)
            with suppress(Exception):
                resource.delete()
            raise
    if state == "SUCCEEDED":
        resource.delete()
    return state


def _create(
    resource: _Resource, body: dict[str, Any], before_start: Callable[[], None], cancellation: Cancellation
) -> None:
    try:
        there = resource.get()
    except ConnectionError as error:
        raise ValueError(f"RayJob {resource.namespace}/{resource.name} cannot be made: {error}") from error
    if there is not None and _state(there) not in ("SUCCEEDED", "FAILED", "STOPPED"):
        print(f"RayJob {resource.name} is at work already: following it", flush=True)
        return
    if there is not None:
        resource.delete()
        while resource.get() is not None:
            cancellation.sleep(0.5)
    before_start()
    resource.create(body)
    print(f"made RayJob {resource.namespace}/{resource.name}", flush=True)


def _await_dashboard(resource: _Resource, place: Placement, cancellation: Cancellation) -> Any:
    """A client of the job's own cluster, for its log; None when the job ended first or no dashboard answers."""
    deadline = time.monotonic() + place.start_timeout_s
    while True:
        status = _seen(resource)
        if status.get("dashboardURL") and status.get("jobStatus"):
            break
        if status.get("jobDeploymentStatus") in DEPLOYMENT_ENDED:
            return None
        if time.monotonic() > deadline:
            raise JobFailed(
                f"RayJob {resource.name} in {resource.namespace} is {status.get('jobDeploymentStatus') or 'not begun'} "
                f"after {place.start_timeout_s:.0f} s: see `kubectl describe rayjob {resource.name}`"
            )
        cancellation.sleep(min(place.poll_s, 2.0))
    from components.ray_jobs import connect

    url = status["dashboardURL"]
    try:
        return connect(url if "://" in url else f"http://{url}")
    except ValueError as error:
        print(f"no log from here: {error}; `kubectl logs` has it", flush=True)
        return None


def _seen(resource: _Resource) -> dict[str, Any]:
    """The status, or nothing yet while the API does not answer."""
    with suppress(ConnectionError):
        return (resource.get() or {}).get("status") or {}
    return {}


class _Resource:
    """One RayJob, through the Kubernetes API."""

    def __init__(self, name: str, namespace: str) -> None:
        from kubernetes import client, config
        from urllib3.exceptions import HTTPError

        try:
            config.load_incluster_config()
        except config.ConfigException:
            try:
                config.load_kube_config(os.environ.get("KUBECONFIG"))
            except config.ConfigException as error:
                raise ValueError(f"mode rayjob needs a Kubernetes API: {error}") from error
        self.name, self.namespace = name, namespace
        self._api: Any = client.CustomObjectsApi()
        self._refusal: type[Exception] = client.ApiException
        self._lost: type[Exception] = HTTPError

    def create(self, body: dict[str, Any]) -> None:
        try:
            self._api.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, body)
        except self._refusal as error:
            text = " ".join(str(getattr(error, "body", "") or error).split())[:300]
            raise ValueError(f"the Kubernetes API refused RayJob {self.namespace}/{self.name}: {text}") from error

    def get(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._api.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, self.name
            )
        except (self._refusal, self._lost) as error:
            if getattr(error, "status", None) == 404:
                return None
            raise ConnectionError(f"the Kubernetes API: {str(error)[:300]}") from error
        return found

    def delete(self) -> None:
        try:
            self._api.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, self.name)
        except self._refusal as error:
            if getattr(error, "status", None) != 404:
                raise

    def state(self) -> str:
        """As the Jobs API names it; a RayJob that somebody deleted was stopped."""
        found = self.get()
        return "STOPPED" if found is None else _state(found)


def _state(found: dict[str, Any]) -> str:
    status = found.get("status") or {}
    deployment = DEPLOYMENT_ENDED.get(status.get("jobDeploymentStatus", ""))
    if deployment == "SUCCEEDED" and status.get("jobStatus") == "STOPPED":
        return "STOPPED"
    return deployment or "RUNNING"


def _own_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.is_file() else "default"
