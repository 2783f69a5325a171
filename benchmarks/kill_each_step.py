"""kill -9 of the whole process tree in the middle of every step of a micro run, one after the other, on one root.

After each kill the same command starts again. In the end every digest must be that of a run nobody disturbed. Prints a
table and, as its last line, one JSON object. Takes about 15 minutes on 2 cores:

    python benchmarks/kill_each_step.py
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from components.artifacts import Store
from components.plan import PlannedStep, plan
from components.settings import Settings
from components.steps import STEPS, TASKS, pipeline_steps
from curation.stages.ingest import list_sources
from pipelines.sample_pool import build_sample_pool

SETTINGS = Settings(preset="micro")
PATIENCE_SECONDS = 600


def command(pool: Path, root: Path) -> list[str]:
    """The run, as a user starts it."""
    line = ("run", "--pool", str(pool), "--preset", "micro", "--root", str(root))
    return [sys.executable, "-m", "pipelines.cli", *line]


def planned(pool: Path, root: Path) -> list[PlannedStep]:
    """Every step with the version that it will have, in the order in which kfp.local comes to it."""
    listing = list_sources(str(pool), SETTINGS.config(STEPS["ingest"]))
    steps = plan(pipeline_steps(), SETTINGS, Store(str(root)), source=listing)
    by_name = {each.step.name: each for each in steps}
    tasks = [f"{family}-{task}" for task in TASKS for family in ("finetune", "evaluate")]
    curation = ("ingest", "detect", "score", "filter", "dedup", "cluster", "balance", "export")
    return [by_name[name] for name in (*curation, "pretrain", "probe", *tasks, "card", "report")]


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything below it."""
    process = psutil.Process(pid)
    family = [*process.children(recursive=True), process]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=20)


def kill_in(step: PlannedStep, pool: Path, root: Path, folder: Path) -> tuple[bool, float]:
    """Start the run, kill it when `step` has begun; (whether the step was uncommitted then, seconds)."""
    begun = root / step.step.kind / step.version / "lease.json"
    began = time.monotonic()
    with subprocess.Popen(command(pool, root), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not begun.exists():
            if time.monotonic() - began > PATIENCE_SECONDS:
                kill_tree(run.pid)
                raise RuntimeError(f"{step.step.name} did not begin within {PATIENCE_SECONDS} s")
            time.sleep(0.01)
        if run.poll() is None:
            kill_tree(run.pid)
    return not Store(str(root)).committed(step.step.kind, step.version), time.monotonic() - began


def digests(root: Path, steps: list[PlannedStep]) -> dict[str, str | None]:
    """The digest of every step of the plan."""
    store = Store(str(root))
    return {each.step.name: store.get(each.step.kind, each.version).manifest.digest for each in steps}


def main() -> None:
    """Kill in every step, finish, compare."""
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        folder = Path(name)
        pool = build_sample_pool(folder / "pool", size="micro")
        calm, shaken = folder / "calm", folder / "shaken"
        subprocess.run(command(pool, calm), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        steps = planned(pool, shaken)
        print(f"{'killed in':<24}{'before its commit':>18}{'seconds':>10}", flush=True)
        hits = 0
        for step in steps:
            uncommitted, seconds = kill_in(step, pool, shaken, folder)
            hits += uncommitted
            print(f"{step.step.name:<24}{'yes' if uncommitted else 'no':>18}{seconds:>10.1f}", flush=True)
        subprocess.run(command(pool, shaken), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        equal = digests(calm, steps) == digests(shaken, steps)
    print(json.dumps({"steps": len(steps), "killed_before_commit": hits, "digests_equal": equal}))
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
