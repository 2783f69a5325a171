"""Two tasks learn, from random weights and within five minutes of one core, what holds for people never seen.

Needs SAPIENS2_ACCEPTANCE, since it takes that long; of its data MakeHuman's bodies, which are measured beside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tasks_learn.py"


@pytest.mark.timeout(1600)
def test_points_and_pose_are_learned(tmp_path: Path) -> None:
    root = os.environ.get("SAPIENS2_ACCEPTANCE")
    if not root:
        pytest.skip("set SAPIENS2_ACCEPTANCE to the folder that holds data/labelled/makehuman")
    told = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--tasks", "pointmap,pose", "--makehuman"]
    told += [f"{root}/data/labelled/makehuman", "--scenes", "512", "--test", "64"]
    done = subprocess.run(told, capture_output=True, text=True, timeout=1500)
    assert done.stdout.strip(), done.stderr[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    rows = {row["task"]: row for row in outcome["rows"] if row["on"] == "held out"}
    assert rows["pointmap"]["goal met"] and rows["pose"]["goal met"], rows
    for row in rows.values():
        for value, low, _ in row["gains"].values():
            assert value >= 0.3 and low > 0.1, row
    assert {row["on"] for row in outcome["rows"]} == {"held out", "MakeHuman"}
