"""Steps as forks of one interpreter that has loaded what steps need, so that starting one costs milliseconds.

kfp.local starts every step as `sh -ec '... python3 -m kfp.dsl.executor_main ...'`, and most of a small step's time goes
into loading PyTorch once more. Here the same executor gets the same program, arguments and environment in a process of
its own, forked by multiprocessing's fork server. Until the server has loaded everything, and for a command of another
shape, kfp.local starts the step itself.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

INTERPRETER = "pipelines.step_interpreter"
# What KFP makes of a component that needs no package installed.
SCRIPT = """program_path=$(mktemp -d)
printf "%s" "$0" > "$program_path/ephemeral_component.py"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "$program_path/ephemeral_component.py" "$@"
"""


class StepServer:
    """The fork server of one run. It ends with this process, and is in its process group."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([INTERPRETER])
        self.ready = threading.Event()
        threading.Thread(target=self._load, name="step-server", daemon=True).start()

    def _load(self) -> None:
        """Start the server and wait for it: it forks nothing before it has loaded everything."""
        if self._run("nothing") == 0:
            self.ready.set()
        else:
            print("the interpreter for steps could not load; each step starts one of its own", flush=True)

    def execute(self, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run KFP's executor on a component's source in a new process; its exit code, negative for a signal."""
        return self._run("execute", program, list(arguments), dict(environment))

    def _run(self, function: str, *arguments: Any) -> int:
        process = self._context.Process(target=_call, args=(function, *arguments))
        try:
            process.start()
        except (EOFError, OSError) as error:  # the server has ended
            print(f"no process from the interpreter for steps: {error!r}", flush=True)
            return 1
        process.join()
        code = process.exitcode
        process.close()
        assert code is not None
        return code


def _call(function: str, *arguments: Any) -> None:
    getattr(importlib.import_module(INTERPRETER), function)(*arguments)


def start_steps_from(server: StepServer) -> None:
    """Have kfp.local start the steps of this process through `server`, as soon as that is ready."""
    from kfp.local import subprocess_task_handler
    from kfp.local.status import Status
    from kfp.local.subprocess_task_handler import SubprocessTaskHandler

    class ForkedTaskHandler(SubprocessTaskHandler):  # type: ignore[misc, valid-type, unused-ignore]
        """Handles a task of SubprocessRunner; kfp.local finds it under the name of the plain one."""

        def run(self) -> Status:
            if not (server.ready.is_set() and runs_the_executor(self.full_command)):
                result: Status = super().run()
                return result
            program, *arguments = self.full_command[3:]
            code = server.execute(program, arguments, {**os.environ, **self.env_vars})
            return Status.SUCCESS if code == 0 else Status.FAILURE

    subprocess_task_handler.SubprocessTaskHandler = ForkedTaskHandler


def runs_the_executor(command: Sequence[str]) -> bool:
    """Whether a command is `sh -ec SCRIPT PROGRAM ARGUMENTS`: a program for the executor and nothing else."""
    return len(command) > 3 and list(command[:2]) == ["sh", "-ec"] and command[2].split() == SCRIPT.split()
