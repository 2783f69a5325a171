"""The whole curation on 1, 2 and 4 workers, and without Ray: one digest of every step.

Starts a Ray of four places on this machine, whatever its cores, so that four workers are four processes; while a run
is on, the processes of its pools are counted. The run without Ray (0 workers) does everything in one process a step and
is the one that the others are compared with; the others also find near hashes by the shuffle on Ray. The exit code is
1 where any digest differs, or where fewer processes worked at once than were asked for. The last line is JSON:

    python benchmarks/worker_counts.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from kill_points import committed

from pipelines.sample_pool import build_sample_pool
from sapiens2.launch import prepare_environment

STEPS = ("ingest", "detect", "score", "export")  # those that spread their pictures over workers
PLACES = 4
ACTOR = "ray::MapWorker"  # how Ray Data titles a process of a pool


def command(pool: Path, root: Path, workers: int) -> list[str]:
    """The run, as a user starts it; partitions of two files, so that every worker gets some."""
    line = ["run", "--only", "curation", "--pool", str(pool), "--preset", "micro", "--root", str(root)]
    sets = ["ingest.rows_per_partition=2", "export.rows_per_shard=2", f"dedup.shuffle_from={1 if workers else 10**9}"]
    sets += [f"{step}.workers={workers}" for step in STEPS]
    return [sys.executable, "-m", "pipelines.cli", *line, *(word for one in sets for word in ("--set", one))]


def pool_processes(ray: psutil.Process) -> int:
    """How many processes of a pool there are below Ray at this moment."""
    found = 0
    for process in ray.children(recursive=True):
        try:
            found += process.cmdline()[:1] != [] and process.cmdline()[0].startswith(ACTOR)
        except psutil.Error:
            continue
    return found


def run(pool: Path, root: Path, workers: int, environment: dict[str, str]) -> tuple[int, float]:
    """(most processes of a pool at once, seconds). Raises RuntimeError when the run fails."""
    began, most = time.monotonic(), 0
    with subprocess.Popen(
        command(pool, root, workers), cwd=root.parent, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            most = max(most, pool_processes(psutil.Process()))
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"the run on {workers} workers failed with {process.returncode}")
    return most, time.monotonic() - began


def main() -> None:
    """Each number of workers on a root of its own, then the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    counts = [0, *parser.parse_args().workers]
    prepare_environment(starts=True)
    import ray

    ray.init(
        address="local", num_cpus=max(PLACES, *counts), include_dashboard=False, log_to_driver=False,
        _node_ip_address="127.0.0.1", object_store_memory=400_000_000,
    )  # fmt: skip
    told, equal, enough = {}, True, True
    with tempfile.TemporaryDirectory(prefix="worker-counts-") as name:
        folder = Path(name)
        pool = build_sample_pool(folder / "pool", size="micro")
        print(f"{'workers':>8}{'at once':>9}{'seconds':>9}{'steps':>7}  digests as without Ray", flush=True)
        for workers in counts:
            there = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address} if workers else {}
            root = folder / f"of{workers}"
            most, seconds = run(pool, root, workers, there)
            digests = committed(root)
            same = digests == committed(folder / "of0")
            equal, enough = equal and same, enough and most == workers
            told[workers] = {"at_once": most, "seconds": round(seconds, 1), "same": same}
            compared = sum(digest is not None for digest in digests.values())
            print(f"{workers:>8}{most:>9}{seconds:>9.0f}{compared:>7}  {'yes' if same else 'no'}", flush=True)
    ray.shutdown()
    print(json.dumps({"benchmark": "worker_counts", "runs": told, "digests_equal": equal, "processes": enough}))
    sys.exit(0 if equal and enough else 1)


if __name__ == "__main__":
    main()
