"""kill -9 of the whole process tree at random points of a curation run, each on a root of its own; one final digest.

A calm run counts the files that a run writes. Every further run is killed when it has written a number of files that
was drawn at random, and up to half a second later; then the same command runs again. Every step must end with the
digest that the calm run gave it. Prints a table and, as its last line, one JSON object:

    python benchmarks/kill_points.py --points 20
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from components.artifacts import Store
from components.steps import STEPS
from pipelines.sample_pool import build_sample_pool

PATIENCE_SECONDS = 600
LONGEST_DELAY_SECONDS = 0.5
ORDER = ("images", "detections", "scores", "filtered", "deduped", "clusters", "selection", "shards", "dataset_card")


def command(pool: Path, root: Path) -> list[str]:
    """The run, as a user starts it; partitions of two files, so that there is much to be killed in."""
    line = ("run", "--only", "curation", "--pool", str(pool), "--preset", "micro", "--root", str(root))
    return [sys.executable, "-m", "pipelines.cli", *line, "--set", "ingest.rows_per_partition=2"]


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


def written(root: Path) -> int:
    """Files under the root; a folder that goes while it is counted counts as it was."""
    return sum(path.is_file() for path in root.rglob("*")) if root.is_dir() else 0


def committed(root: Path) -> dict[str, str | None]:
    """The digest of every step's latest artifact."""
    store = Store(str(root))
    found = {name: store.latest(step.latest_name) for name, step in STEPS.items()}
    return {name: artifact.manifest.digest for name, artifact in found.items() if artifact is not None}


def at_work(root: Path) -> str:
    """The kind of artifact that a run was making: the last that has a folder without a manifest."""
    begun = [kind for kind in ORDER if any(not (v / "manifest.json").exists() for v in (root / kind).glob("*"))]
    return begun[-1] if begun else "between two steps"


def run_and_kill(pool: Path, root: Path, folder: Path, files: int, delay: float) -> bool:
    """Start the run, kill it once it has written so many files; whether it was still running then."""
    began = time.monotonic()
    with subprocess.Popen(command(pool, root), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and written(root) < files:
            if time.monotonic() - began > PATIENCE_SECONDS:
                kill_tree(run.pid)
                raise RuntimeError(f"no {files} files within {PATIENCE_SECONDS} s")
            time.sleep(0.01)
        time.sleep(delay)
        running = run.poll() is None
        if running:
            kill_tree(run.pid)
    return running


def main() -> None:
    """A calm run, then one killed and finished run for every point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=20, help="runs to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the points")
    arguments = parser.parse_args()
    rng, rows = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory(prefix="kill-points-") as name:
        folder = Path(name)
        pool = build_sample_pool(folder / "pool", size="micro")
        began = time.monotonic()
        subprocess.run(command(pool, folder / "calm"), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        calm, files = committed(folder / "calm"), written(folder / "calm")
        print(f"a calm run: {len(calm)} steps, {files} files, {time.monotonic() - began:.0f} s")
        print(f"{'killed after files':>18}  {'at work on':<20}{'steps done':>11}{'still running':>14}{'digests':>9}")
        for point in range(arguments.points):
            root, wanted, delay = folder / f"at{point}", rng.randrange(files), rng.uniform(0, LONGEST_DELAY_SECONDS)
            running = run_and_kill(pool, root, folder, wanted, delay)
            before, where = committed(root), at_work(root)
            subprocess.run(command(pool, root), cwd=folder, check=True, stdout=subprocess.DEVNULL)
            equal = committed(root) == calm
            rows.append({"files": wanted, "where": where, "done": len(before), "running": running, "equal": equal})
            told = ("yes" if running else "no", "equal" if equal else "differ")
            print(f"{wanted:>18}  {where:<20}{len(before):>11}{told[0]:>14}{told[1]:>9}", flush=True)
    summary = {
        "points": len(rows),
        "killed_while_running": sum(bool(row["running"]) for row in rows),
        "digests_equal": sum(bool(row["equal"]) for row in rows),
    }
    print(json.dumps({"benchmark": "kill_points", **summary}))
    sys.exit(0 if summary["digests_equal"] == len(rows) else 1)


if __name__ == "__main__":
    main()
