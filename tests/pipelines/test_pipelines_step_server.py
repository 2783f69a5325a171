"""Steps that are forked from a loaded interpreter: processes of their own, with the results of plainly started ones."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from micro_runs import digests

from components import kfp as steps
from components.artifacts import Store
from components.settings import Settings
from components.steps import STEPS
from pipelines.compile import compile_pipeline
from pipelines.step_server import StepServer, runs_the_executor

PROGRAM = """
import os, sys
from kfp import dsl

def probe(what: str, path: str):
    import cv2
    if what == "leave":
        sys.exit(2)
    if what == "die":
        os.kill(os.getpid(), 9)
    with open(path, "a") as file:
        print(os.getpid(), os.getpgrp(), os.environ.get("TOLD"), hasattr(cv2, "mark"), file=file)
    cv2.mark = True
"""


@pytest.fixture(scope="module")
def server():
    started = StepServer()
    assert started.ready.wait(120)
    return started


def execute(server, what, path):
    values = {"inputs": {"parameterValues": {"what": what, "path": str(path)}}}
    values["outputs"] = {"outputFile": str(path.parent / "out.json")}
    arguments = ["--executor_input", json.dumps(values), "--function_to_execute", "probe"]
    return server.execute(PROGRAM, arguments, {**os.environ, "TOLD": "yes"})


def test_every_step_has_a_process_of_its_own_that_starts_as_the_last_one_did(server, tmp_path):
    found = tmp_path / "found.txt"
    assert execute(server, "write", found) == execute(server, "write", found) == 0
    (first, *rest), second = (line.split() for line in found.read_text().splitlines())
    assert len({first, second[0], str(os.getpid())}) == 3
    assert rest == second[1:] == [str(os.getpgrp()), "yes", "False"]  # in our group; with our words; nothing left over
    assert "TOLD" not in os.environ


def test_how_a_step_ended_is_known(server, tmp_path):
    assert execute(server, "leave", tmp_path / "x") == 2
    assert execute(server, "die", tmp_path / "x") == -signal.SIGKILL
    assert execute(server, "write", tmp_path / "x") == 0


def test_commands_of_our_components_are_taken_and_no_others():
    for component in steps.COMPONENTS.values():
        container = component.component_spec.implementation.container
        assert runs_the_executor([*container.command, *container.args])
    shell, flag, script, program = container.command
    assert not runs_the_executor([shell, flag, f"python3 -m pip install x && {script}", program])
    assert not runs_the_executor(["sh", "-c", "echo", "hello"])


def test_loading_starts_no_thread_and_asks_no_device():
    """Neither would survive a fork: a pool without its threads hangs, a CUDA context is dead."""
    code = """
import os, torch
def asked(*_): raise AssertionError("a device was asked")
for name in ("_cuda_getDeviceCount", "_cuda_init", "_cuda_getDevice"):
    if hasattr(torch._C, name):
        setattr(torch._C, name, asked)
import pipelines.step_interpreter
print(sorted(open(f"/proc/self/task/{each}/comm").read().strip() for each in os.listdir("/proc/self/task")))
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # its pool is made again in a fork
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert set(eval(done.stdout)) <= {"python", "jemalloc_bg_thd"}  # jemalloc (pyarrow's) has its own fork handlers


RUN = """
import json, sys
from pathlib import Path
from pipelines import driver
from pipelines.step_server import StepServer

server = StepServer() if sys.argv[2] == "forked" else None
assert server is None or server.ready.wait(300)
driver.run(json.loads(Path(sys.argv[1]).read_text()), ".", server)
"""


def test_a_forked_step_makes_what_a_plain_one_makes(micro_run, tmp_path):
    package = compile_pipeline("stage:finetune-pose", tmp_path / "stage.yaml")
    made = {}
    for start in ("plain", "forked"):
        root = tmp_path / start
        shutil.copytree(micro_run[0], root)
        shutil.rmtree(root / "pose")
        store = Store(str(root))
        found = {"backbone": store.latest("backbone"), "probe": store.latest(STEPS["probe"].latest_name)}
        arguments = {f"{role}_manifest": store.storage.full(f"{a.folder}/manifest.json") for role, a in found.items()}
        arguments |= {"root": str(root), "code_version": "x"}
        arguments["settings"] = Settings(preset="micro").as_dict()
        spec = tmp_path / "spec.json"
        spec.write_text(json.dumps({"package": str(package), "arguments": arguments, "ray": False}))
        command = [sys.executable, "-c", RUN, str(spec), start]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, start_new_session=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (version,) = store.versions("pose")
        made[start] = (version, store.get("pose", version).manifest.digest)
    assert made["plain"] == made["forked"] == digests(micro_run[0])["finetune-pose"]
