"""`--retry-failed` on the command line and in a pipeline's step: what is planned is what is made."""

import json
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from micro_runs import sapiens2_here

from components.artifacts import Store
from components.plan import plan
from components.settings import Settings
from components.steps import STEPS
from curation.stages.ingest import list_sources
from pipelines.chosen_settings import settings_of
from pipelines.compile import compile_pipeline
from pipelines.run_command import _settled

SETTINGS = ("--preset", "micro", "--set", "ingest.allow_private_addresses=true", "--set", "ingest.fetch_retries=0")


@pytest.fixture
def host(micro_pool):
    """A host that serves the people of the micro pool, but for those in its `down`."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(micro_pool / "people"))

        def do_GET(self):
            if self.path[1:] in self.server.down:
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *_):
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.down = set()
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def pool(host, micro_pool, tmp_path):
    """A list of them, of which one address fails for now."""
    names = sorted(path.name for path in (micro_pool / "people").glob("*.jpg"))
    host.down.add(names[0])
    made = tmp_path / "list.txt"
    made.write_text("".join(f"http://127.0.0.1:{host.server_port}/{name}\n" for name in names))
    return made


def tries(root):
    """The versions of `images` by try."""
    return {each.manifest.recipe["fetch_epoch"]: each.version for each in Store(str(root)).all("images")}


def test_what_failed_is_fetched_by_the_next_try_and_later_runs_stay_with_it(host, pool, tmp_path):
    root, step = tmp_path / "root", ("step", "ingest", "--pool", pool, *SETTINGS)
    planning = ("run", "--only", "curation", "--dry-run", "--pool", pool, *SETTINGS)

    def told(*arguments):
        return sapiens2_here(*arguments, root=root, cwd=tmp_path).stdout

    assert "1 address failed for now (server_error 1); --retry-failed tries again" in told(*step)
    host.down.clear()
    assert tries(root).keys() == {0} and tries(root)[0] in told(*planning)
    planned = told(*planning, "--retry-failed")
    assert "fetch_epoch 0 -> 1" in planned and "the pool changed" not in planned
    assert "failed for now" not in told(*step, "--retry-failed")
    assert tries(root).keys() == {0, 1} and tries(root)[1] in planned
    plain = told(*planning)
    assert tries(root)[1] in plain and "nothing to try again" not in plain
    assert "note: ingest: nothing to try again: no address of this list failed for now" in told(*step, "--retry-failed")
    assert tries(root).keys() == {0, 1}


def test_a_step_of_a_pipeline_settles_the_try_by_itself(host, pool, tmp_path):
    """As a recurring run of a cluster has it: the same pipeline, arguments and all, makes the next try."""
    root, order = tmp_path / "root", tmp_path / "order.json"
    overrides = {"ingest.allow_private_addresses": True, "ingest.fetch_retries": 0, "ingest.retry_failed": True}
    settings = Settings(preset="micro", overrides=overrides).as_dict()
    package = compile_pipeline("stage:ingest", tmp_path / "ingest.yaml")
    arguments = {"pool": str(pool), "root": str(root), "settings": settings, "code_version": ""}
    order.write_text(json.dumps({"package": str(package), "arguments": arguments, "ray": False}))
    for expected in ({0}, {0, 1}):
        subprocess.run([sys.executable, "-m", "pipelines.driver", str(order)], check=True, cwd=tmp_path, timeout=300)
        assert tries(root).keys() == expected
        host.down.clear()


def test_only_what_runs_ingest_takes_it(tmp_path):
    for command in (("run", "--only", "training"), ("step", "detect"), ("submit", "training", "--host", "http://h")):
        done = sapiens2_here(*command, "--retry-failed", root=tmp_path / "root", cwd=tmp_path, check=False)
        assert done.returncode == 2 and "--retry-failed is for what runs ingest" in done.stderr
    assert settings_of((), None, "builtin", "micro", retry_failed=True).overrides == {"ingest.retry_failed": True}


@pytest.mark.parametrize("retry", [(), ("--retry-failed",)])
def test_the_process_of_a_run_makes_the_try_that_was_planned(host, pool, tmp_path, retry):
    """A try that somebody else commits between the plan and the step does not make it another one."""
    root = tmp_path / "root"
    sapiens2_here("step", "ingest", "--pool", pool, *SETTINGS, root=root, cwd=tmp_path)
    chosen = settings_of(SETTINGS[3::2], None, "builtin", "micro", retry_failed=bool(retry))
    listing = list_sources(str(pool), chosen.config(STEPS["ingest"]))
    planned = plan((STEPS["ingest"],), chosen, Store(str(root)), source=listing)
    sapiens2_here("step", "ingest", "--pool", pool, *SETTINGS, "--set", "ingest.fetch_epoch=1", root=root, cwd=tmp_path)
    again = plan((STEPS["ingest"],), _settled(chosen, planned), Store(str(root)), source=listing)
    assert again[0].version == planned[0].version == tries(root)[len(retry)]
