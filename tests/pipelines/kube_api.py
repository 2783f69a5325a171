"""The part of a Kubernetes API that RayJobs need, on loopback, with an operator that runs them on a given Ray."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import kubernetes_validate

from components.ray_jobs import connect

PREFIX = "/apis/ray.io/v1/namespaces/"
# Fields of KubeRay 1.6's RayJob, RayCluster and group specs, as its API reference lists them.
SPEC = {
    *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint", "jobId"),
    *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "managedBy", "metadata", "rayClusterSpec"),
    *("preRunningDeadlineSeconds", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig"),
    *("submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"),
}
CLUSTER = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec"),
    *("headServiceAnnotations", "managedBy", "rayVersion", "suspend", "workerGroupSpecs"),
}
GROUP = {
    *("groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "idleTimeoutSeconds"),
    *("numOfHosts", "scaleStrategy", "suspend", "serviceType", "enableIngress", "headService", "resources", "labels"),
}


def validate_rayjob(body):
    """Raises ValueError for a field that KubeRay does not know; pod templates by Kubernetes' own schema, strictly."""
    spec = body["spec"]
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
    for what, found, known in [
        ("spec", spec, SPEC),
        ("cluster", cluster, CLUSTER),
        *(("group", g, GROUP) for g in groups),
    ]:
        if set(found) - known:
            raise ValueError(f"unknown in {what}: {sorted(set(found) - known)}")
    for group in groups:
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]}
        kubernetes_validate.validate(template, "1.31", strict=True)
        if any(not isinstance(value, str) for value in group["rayStartParams"].values()):
            raise ValueError("rayStartParams are strings")


class KubeApi:
    """The server, its RayJobs by name, and what was asked of it. `secrets`: name -> key -> text in base64."""

    def __init__(self, dashboard, secrets):
        self.dashboard, self.secrets = dashboard, secrets
        self.jobs, self.made, self.deleted = {}, [], []
        self.ray = connect(dashboard)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def kubeconfig(self, path):
        """A kubeconfig file that points here."""
        named = {"clusters": [{"name": "c", "cluster": {"server": self.url}}], "users": [{"name": "u", "user": {}}]}
        named |= {"contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"}
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **named}))
        return path

    def create(self, namespace, body):
        validate_rayjob(body)
        name, spec = body["metadata"]["name"], body["spec"]
        if (namespace, name) in self.jobs:
            return 409, {"kind": "Status", "message": "exists"}
        self.jobs[namespace, name] = body
        self.made.append(body)
        container = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        environment = {entry["name"]: self._value(entry) for entry in container["env"]}
        self.ray.submit_job(
            entrypoint=spec["entrypoint"], submission_id=spec["jobId"], runtime_env={"env_vars": environment}
        )
        return 201, body

    def _value(self, entry):
        if "value" in entry:
            return entry["value"]
        reference = entry["valueFrom"]["secretKeyRef"]
        return base64.b64decode(self.secrets[reference["name"]][reference["key"]]).decode()

    def show(self, namespace, name):
        body = self.jobs.get((namespace, name))
        if body is None:
            return 404, {"kind": "Status", "code": 404}
        state = self.ray.get_job_status(body["spec"]["jobId"]).value
        deployment = {"SUCCEEDED": "Complete", "STOPPED": "Complete", "FAILED": "Failed"}.get(state, "Running")
        status = {"jobStatus": state, "jobDeploymentStatus": deployment, "jobId": body["spec"]["jobId"]}
        return 200, {**body, "status": {**status, "dashboardURL": self.dashboard.removeprefix("http://")}}

    def delete(self, namespace, name):
        body = self.jobs.pop((namespace, name), None)
        if body is None:
            return 404, {"kind": "Status", "code": 404}
        self.deleted.append(name)
        self.ray.stop_job(body["spec"]["jobId"])  # as KubeRay's finalizer does
        return 200, {"kind": "Status", "status": "Success"}

    def _handler(api):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def _handle(self):
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                namespace, _, name = urlsplit(self.path).path.removeprefix(PREFIX).partition("/rayjobs")
                name = name.strip("/")
                try:
                    if self.command == "POST":
                        code, answer = api.create(namespace, json.loads(data))
                    else:
                        code, answer = (api.delete if self.command == "DELETE" else api.show)(namespace, name)
                except Exception as error:
                    code, answer = 422, {"kind": "Status", "message": f"{type(error).__name__}: {error}"}
                text = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = _handle

        return Handler
