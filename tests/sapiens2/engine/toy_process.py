"""Runs the toy objective in processes of its own: alone, to be killed, or as ranks of one run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Process = subprocess.Popen[str]


class Toy:
    """Starts toy_run.py over one pair of folders."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out, self.state = folder, folder / "out", folder / "state"

    def start(self, *options: str, **variables: str) -> Process:
        """One process; `variables` are added to its environment."""
        environment = os.environ | {"PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1"} | variables
        command = [sys.executable, str(HERE / "toy_run.py"), str(self.out), str(self.state), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def ranks(self, number: int, *options: str) -> list[dict[str, Any]]:
        """What each of `number` ranks reports at the end."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(number)}
        started = [self.start(*options, RANK=str(r), LOCAL_RANK=str(r), **shared) for r in range(number)]
        return [finish(process) for process in started]


def finish(process: Process) -> dict[str, Any]:
    """Wait for a process and read the line that it prints last."""
    told, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints
    return json.loads(told.splitlines()[-1])
