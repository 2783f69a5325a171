"""Pretraining learns from real photographs: the short form of benchmarks/learning.py, with its goals.

Needs SAPIENS2_ACCEPTANCE: a folder with data/pool. Three to five minutes on two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "learning.py"


@pytest.mark.timeout(1200)
def test_pretraining_learns_on_photographs(acceptance: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--short", "--pool", str(acceptance / "data" / "pool")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["held_out_pictures"] > 30 and told["training_pictures"] > 200
    failed = [goal for goal, came_true in told["verdicts"].items() if not came_true]
    assert not failed, f"{failed}: {told}"
