"""OpenLineage events reach a receiver that is named by OPENLINEAGE_URL, and a receiver that is down costs nothing."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from openlineage_rules import officially, problems
from test_components_store import commit

from components.artifacts import Store
from components.attempt import Attempt
from components.events import emit
from components.progress import Progress
from components.run_step import StepContext
from components.steps import STEPS


@pytest.fixture
def receiver():
    """(address, events received) of an HTTP server on loopback."""
    events = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            events.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", events
    server.shutdown()
    thread.join()
    server.server_close()


def context(root):
    return StepContext(STEPS["filter"], None, {}, Store(root), Attempt(root, "filtered", "v1"), Progress("filter"))


def test_events_go_to_the_receiver_and_to_a_file(receiver, tmp_path, monkeypatch):
    address, events = receiver
    monkeypatch.setenv("OPENLINEAGE_URL", address)
    emit("START", context(str(tmp_path)), None)
    emit("FAIL", context(str(tmp_path)), None, error=ValueError("too dark"))
    assert [event["eventType"] for _, event in events] == ["START", "FAIL"]
    assert events[1][1]["run"]["facets"]["errorMessage"]["message"] == "too dark"
    files = [json.loads(path.read_text()) for path in sorted((tmp_path / "events").glob("*.json"))]
    assert [event["job"]["name"] for event in files] == ["filter", "filter"]


def test_a_receiver_that_is_down_is_said_and_costs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 0}')
    emit("START", context(str(tmp_path)), None)
    assert "did not take the event" in capsys.readouterr().out
    assert len(list((tmp_path / "events").glob("*.json"))) == 1


def test_every_event_is_what_openlineage_asks_for(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    root = str(tmp_path)
    images = commit(root, "images", "i1")
    step = context(root)
    step.inputs["images"] = images
    made = commit(root, "filtered", "v1", inputs=[])
    emit("START", step, None)
    emit("COMPLETE", step, made)
    emit("FAIL", step, None, error=ValueError("too <dark>"))
    events = [json.loads(path.read_text()) for path in sorted((tmp_path / "events").glob("*.json"))]
    assert [event["eventType"] for event in events] == ["START", "COMPLETE", "FAIL"]
    assert [problems(event) for event in events] == [[], [], []]
    assert [officially(event) for event in events] == events
    assert len({event["run"]["runId"] for event in events}) == 1
    (output,) = events[1]["outputs"]
    assert output["facets"]["version"]["datasetVersion"] == "v1"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == made.rows()
    (read,) = events[0]["inputs"]
    assert (read["namespace"], read["name"]) == (root, "images")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda e: e.pop("schemaURL"), "schemaURL"),
        (lambda e: e.update(eventType="DONE"), "DONE"),
        (lambda e: e.update(eventTime="2026-01-01T00:00:00"), "date-time"),
        (lambda e: e["run"].update(runId="7"), "uuid"),
        (lambda e: e["run"].update(facets={"mine": {}}), "_producer"),
    ],
)
def test_an_event_that_breaks_the_specification_is_found(tmp_path, monkeypatch, change, problem):
    monkeypatch.delenv("OPENLINEAGE_SPEC", raising=False)
    emit("START", context(str(tmp_path)), None)
    (path,) = (tmp_path / "events").glob("*.json")
    event = json.loads(path.read_text())
    change(event)
    assert problem in " ".join(problems(event))


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.pop("eventTime"),
        lambda e: e.update(eventTime="yesterday"),
        lambda e: e.update(eventType="DONE"),
        lambda e: e.update(mine=1),
        lambda e: e["run"].update(runId="7"),
        lambda e: e["run"]["facets"]["errorMessage"].pop("message"),
        lambda e: e["run"]["facets"]["errorMessage"].update(message=7),
        lambda e: e["run"]["facets"]["errorMessage"].update(_schemaURL="https://x/1/#/$defs/ErrorMessageRunFacet"),
        lambda e: e["outputs"][0]["facets"]["version"].update(datasetVersion=1),
        lambda e: e["outputs"][0]["outputFacets"]["outputStatistics"].update(rowCount="3"),
    ],
)
def test_what_openlineages_own_classes_refuse_is_found(tmp_path, monkeypatch, change):
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    made = commit(str(tmp_path), "filtered", "v1", inputs=[])
    emit("FAIL", context(str(tmp_path)), made, error=ValueError("too dark"))
    (path,) = (tmp_path / "events").glob("*.json")
    event = json.loads(path.read_text())
    assert officially(event) == event
    change(event)
    with pytest.raises((ValueError, TypeError)):
        officially(event)
