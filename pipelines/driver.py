"""The process that runs a pipeline here: one Ray, kfp.local, a neutral working directory.

`sapiens2 run` starts it as a child, in a process group of its own, and watches; its output is the log of the run.
Called as `python -m pipelines.driver SPEC.json`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from pipelines.step_server import StepServer, start_steps_from

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 3.0  # for a training step to save its state


def main(spec_path: str) -> None:
    """Run the pipeline that the specification names with its arguments; exit code 1 when a step failed."""
    end_with_parent()
    spec: dict[str, Any] = json.loads(Path(spec_path).read_text())
    server = StepServer() if spec.get("fork", True) else None  # first, so that it loads while the rest starts
    with tempfile.TemporaryDirectory(prefix="sapiens2-") as neutral:
        os.chdir(neutral)  # so that a folder of the caller's cannot shadow a package
        try:
            run(spec, neutral, server)
        finally:
            os.chdir("/")


def run(spec: dict[str, Any], folder: str, server: StepServer | None) -> None:
    """Run `spec["pipeline"]` of pipelines.pipelines through kfp.local, or a compiled one at `spec["package"]`.

    Steps are forked by `server` once it is ready; without one, kfp.local starts each.
    """
    from kfp import components, local

    from components.ray_session import ray_session
    from pipelines import pipelines

    with ray_session() if spec["ray"] else nullcontext():
        signal.signal(signal.SIGTERM, _end_group)  # again: ray.init has put its own in place
        runner = local.SubprocessRunner(use_venv=False)
        if server is not None:
            start_steps_from(server)
        local.init(runner=runner, pipeline_root=f"{folder}/kfp", raise_on_error=True, enable_caching=False)
        package = spec.get("package")
        pipeline = components.load_component_from_file(package) if package else getattr(pipelines, spec["pipeline"])()
        try:
            pipeline(**spec["arguments"])
        except RuntimeError as error:
            print(f"pipeline failed: {error}", flush=True)
            sys.exit(1)


def end_with_parent() -> None:
    """End the whole group when this process is asked to end, or (on Linux) when its parent is killed."""
    signal.signal(signal.SIGTERM, _end_group)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_group(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os.killpg(os.getpgrp(), signal.SIGKILL)
    sys.exit(143)


if __name__ == "__main__":
    main(sys.argv[1])
