"""A KFP API server (v2beta1) on loopback that checks what it is sent and runs it through kfp.local.

What a request may hold comes from the official client's models and the pipeline-spec protobufs, not from our code.
"""

import json
import os
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as models
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.local_run import read_progress

STATES = {"running": "RUNNING", "done": "SUCCEEDED", "reused": "SUCCEEDED", "failed": "FAILED"}
API = "/apis/v2beta1"


class Refused(Exception):
    """A request that the server answers with 400."""


def checked(body, model):
    """The body, when it is what the official model defines: its fields and no others, down the tree."""
    known = {json_name: name for name, json_name in model.attribute_map.items()}
    for key, value in body.items():
        if key not in known:
            raise Refused(f"{model.__name__} has no field {key!r}")
        kind = getattr(models, model.openapi_types[known[key]], None)
        if isinstance(kind, type) and hasattr(kind, "openapi_types") and isinstance(value, dict):
            checked(value, kind)
        elif kind is not None and hasattr(kind, "allowable_values") and value not in kind.allowable_values:
            raise Refused(f"{key}={value!r} is none of {kind.allowable_values}")
    return body


def pipeline_documents(sent):
    """(pipeline spec, platform spec or None), each parsed by its protobuf: an unknown field is refused."""
    spec = sent.get("pipeline_spec", sent)
    platform = sent.get("platform_spec")
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(spec["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
        if platform:
            json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        raise Refused(f"pipeline_spec: {error}") from error
    return spec, platform


def checked_parameters(spec, given):
    """As the API server does it: every parameter defined, every required one there."""
    defined = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    unknown = set(given) - set(defined)
    missing = {n for n, d in defined.items() if not d.get("isOptional") and "defaultValue" not in d} - set(given)
    if unknown or missing:
        raise Refused(f"parameters: unknown {sorted(unknown)}, missing {sorted(missing)}")


class KfpApi:
    """The server and what it was told. `execute=False` runs nothing, and says that every run is in state `idle_as`."""

    def __init__(self, folder, *, execute=True, token=None):
        self.folder, self.executes, self.token = folder, execute, token
        self.experiments, self.runs, self.recurring, self.pipelines = {}, {}, {}, {}
        self.bodies, self.outages, self.idle_as = [], 0, "PENDING"
        self._children, self._starter = [], ThreadPoolExecutor(1)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        for child in self._children:
            if child.poll() is None:
                child.terminate()
                child.wait(timeout=20)
        self._starter.shutdown()

    def create_run(self, body):
        checked(body, models.V2beta1Run)
        spec, platform = pipeline_documents(self._spec(body))
        given = (body.get("runtime_config") or {}).get("parameters") or {}
        checked_parameters(spec, given)
        if body["experiment_id"] not in self.experiments:
            raise Refused(f"experiment {body['experiment_id']} does not exist")
        run_id = str(uuid.uuid4())
        run = {**body, "run_id": run_id, "state": self.idle_as, "created_at": datetime.now(UTC).isoformat()}
        self.runs[run_id] = run
        if self.executes:
            self._start(run, spec, platform, given)
        return run

    def _spec(self, body):
        reference = body.get("pipeline_version_reference")
        return self.pipelines[reference["pipeline_id"]] if reference else body["pipeline_spec"]

    def _start(self, run, spec, platform, given):
        folder = self.folder / run["run_id"]
        folder.mkdir(parents=True)
        documents = [spec, *([platform] if platform else [])]
        (folder / "pipeline.yaml").write_text(yaml.safe_dump_all(documents))
        order = {"package": str(folder / "pipeline.yaml"), "arguments": given, "ray": False}
        order["fork"] = len(spec["root"]["dag"]["tasks"]) > 5  # preloading pays for itself only then
        (folder / "order.json").write_text(json.dumps(order))
        environment = {**os.environ, "SAPIENS2_PROGRESS": str(folder / "progress")}
        run["log"], run["progress"] = folder / "log", folder / "progress"
        with run["log"].open("wb") as sink:
            run["child"] = self._start_process(
                [sys.executable, "-m", "pipelines.driver", str(folder / "order.json")],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        self._children.append(run["child"])

    def _start_process(self, command, **options):
        """From a thread that stays: a driver ends with the thread that started it, and a request's thread soon does."""
        return self._starter.submit(subprocess.Popen, command, **options).result()

    def show_run(self, run_id):
        run = self.runs[run_id]
        if "child" in run:
            code = run["child"].poll()
            run["state"] = "RUNNING" if code is None else "SUCCEEDED" if code == 0 else "FAILED"
            tasks = [
                {"display_name": name, "state": STATES[r["state"]]}
                | ({"error": {"code": 2, "message": r["error"]}} if r["state"] == "failed" else {})
                for name, r in read_progress(run["progress"]).items()
            ]
            run["run_details"] = {"task_details": tasks}
        shown = {k: v for k, v in run.items() if k not in ("child", "log", "progress")}
        return checked(shown, models.V2beta1Run)

    def create_recurring(self, body):
        checked(body, models.V2beta1RecurringRun)
        spec, _ = pipeline_documents(self._spec(body))
        checked_parameters(spec, body["runtime_config"].get("parameters") or {})
        cron = (body["trigger"].get("cron_schedule") or {}).get("cron")
        if cron is not None and len(cron.split()) != 6:
            raise Refused(f"cron {cron!r} has not six fields")
        identifier = str(uuid.uuid4())
        self.recurring[identifier] = {**body, "recurring_run_id": identifier}
        return self.recurring[identifier]

    def create_experiment(self, body):
        checked(body, models.V2beta1Experiment)
        made = {**body, "experiment_id": str(uuid.uuid4())}
        self.experiments[made["experiment_id"]] = made
        return made

    def list_experiments(self, query):
        (predicate,) = json.loads(query["filter"][0])["predicates"]
        assert (predicate["operation"], predicate["key"]) in (("EQUALS", "display_name"), (1, "display_name"))
        found = [e for e in self.experiments.values() if e["display_name"] == predicate["stringValue"]]
        return {"experiments": found}

    def upload(self, query, content_type, data):
        message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + data)
        (part,) = [p for p in message.iter_parts() if p.get_filename()]
        spec = next(iter(yaml.safe_load_all(part.get_payload(decode=True))))
        pipeline_documents(spec)
        made = {"pipeline_id": str(uuid.uuid4()), "display_name": query["name"][0]}
        self.pipelines[made["pipeline_id"]] = spec
        return made

    def answer(self, method, path, query, content_type, data):
        if path == f"{API}/pipelines/upload":
            return self.upload(query, content_type, data)
        body = json.loads(data) if data else None
        if body is not None:
            self.bodies.append(body)
        match method, path.removeprefix(API).strip("/").split("/"):
            case "GET", ["healthz"]:
                return {"multi_user": False}
            case "GET", ["experiments"]:
                return self.list_experiments(query)
            case "POST", ["experiments"]:
                return self.create_experiment(body)
            case "POST", ["runs"]:
                return self.show_run(self.create_run(body)["run_id"])
            case "GET", ["runs", run_id] if run_id in self.runs:
                return self.show_run(run_id)
            case "POST", ["recurringruns"]:
                return self.create_recurring(body)
        return None


def handler_for(api):
    """The HTTP side: JSON in, JSON out, 400 with a reason for what the checks refuse."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _respond(self, code, value):
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _handle(self):
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            where = urlsplit(self.path)
            if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
                return self._respond(401, {"error": "unauthenticated"})
            if api.outages and where.path.startswith(f"{API}/runs/"):
                api.outages -= 1
                return self._respond(503, {"error": "upstream connect error"})
            try:
                content_type = self.headers.get("Content-Type", "")
                answer = api.answer(self.command, where.path, parse_qs(where.query), content_type, data)
            except Refused as problem:
                return self._respond(400, {"code": 3, "message": str(problem)})
            return self._respond(200 if answer is not None else 404, answer or {"error": "not found"})

        do_GET = do_POST = _handle

    return Handler
