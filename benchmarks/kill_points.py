"""kill -9 of the whole process tree at random points of curation runs; in the end every digest is a calm run's.

A calm run counts the files that a run writes. On a new root the same command is then killed again and again, each time
when it has written a number of files that was drawn at random, and up to half a second later, until it once comes
through; then comes the next root. Prints a table and, as its last line, one JSON object:

    python benchmarks/kill_points.py --points 20
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_each_step import kill_tree

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


def files_below(root: Path) -> set[str]:
    """Paths of the files under the root; a folder that goes while it is listed counts as it was."""
    return {str(path) for path in root.rglob("*") if path.is_file()} if root.is_dir() else set()


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
    began, before = time.monotonic(), files_below(root)
    seen: set[str] = set()
    with subprocess.Popen(command(pool, root), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and len(seen) < files:
            if time.monotonic() - began > PATIENCE_SECONDS:
                kill_tree(run.pid)
                raise RuntimeError(f"no {files} files within {PATIENCE_SECONDS} s")
            time.sleep(0.01)
            seen |= files_below(root) - before
        if run.poll() is None:
            time.sleep(delay)
        running = run.poll() is None
        if running:
            kill_tree(run.pid)
        elif run.returncode:
            raise RuntimeError(f"the run on {root} failed with {run.returncode}")
    return running


def main() -> None:
    """A calm run, then killed ones until there were enough."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=20, help="kills")
    parser.add_argument("--per-root", type=int, default=5, help="kills of one root, about")
    parser.add_argument("--seed", type=int, default=0, help="of the points")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="kill-points-") as name:
        folder = Path(name)
        pool = build_sample_pool(folder / "pool", size="micro")
        began = time.monotonic()
        subprocess.run(command(pool, folder / "calm"), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        calm, files = committed(folder / "calm"), len(files_below(folder / "calm"))
        print(f"a calm run: {len(calm)} steps, {files} files, {time.monotonic() - began:.0f} s")
        print(f"{'kill':>4}{'root':>6}{'after files':>13}  {'at work on':<20}{'steps done':>11}", flush=True)
        kills, roots, equal = 0, 0, 0
        while kills < arguments.points:
            root, running = folder / f"root{roots}", True
            while running:
                wanted, delay = rng.randrange(1, 2 * files // arguments.per_root), rng.uniform(0, LONGEST_DELAY_SECONDS)
                enough = kills == arguments.points
                running = run_and_kill(pool, root, folder, sys.maxsize if enough else wanted, delay)
                if running:
                    kills += 1
                    print(
                        f"{kills:>4}{roots:>6}{wanted:>13}  {at_work(root):<20}{len(committed(root)):>11}", flush=True
                    )
            same = committed(root) == calm
            equal += same
            print(f"root {roots}: every digest is the calm run's: {'yes' if same else 'no'}", flush=True)
            roots += 1
    print(json.dumps({"benchmark": "kill_points", "kills": kills, "roots": roots, "digests_equal": equal}))
    sys.exit(0 if equal == roots else 1)


if __name__ == "__main__":
    main()
