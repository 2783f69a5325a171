"""How long people wait for an answer on a root of many artifacts: `sapiens2 artifacts show` and `why`, and listing.

    python benchmarks/load.py --root ROOT [--artifacts 2000] [--calls 200] [--at-once 4] [--shared] [--only ask|list]
                              [--out FILE.json]

ROOT is a root with one whole run (`sapiens2 run --preset micro --root ROOT`). Its artifacts are multiplied in a copy:
versions of their own with their own manifests and tables' files, no two with the same bytes; with --shared they share
the files, as incremental versions do. Every call is a process of its own, interpreter start included; half of them ask
`show` of a random version, half `why` of a random image. Listing is measured once more with the copy on an S3 server
(moto, one Python process) on loopback, with the requests that it took.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.artifacts import Artifact, Store
from components.listing import WORTH_WRITING, keep_up
from components.manifest import FileEntry


def multiply(source: Path, target: Path, count: int, shared: bool) -> int:
    """Copy a root and multiply its artifacts to at least `count`; returns how many there are."""
    shutil.copytree(source, target)
    artifacts = list(Store(str(target)).all())
    made = len(artifacts)
    for copy in range(1, -(-count // made)):
        renamed = {(a.kind, a.version): f"{int(a.version, 16) ^ (copy << 32):016x}" for a in artifacts}
        for artifact in artifacts:
            version = renamed[artifact.kind, artifact.version]
            inputs = [
                ref.model_copy(update={"version": renamed.get((ref.kind, ref.version), ref.version)})
                for ref in artifact.manifest.inputs
            ]
            folder = target / artifact.kind / version
            folder.mkdir()
            files = (
                artifact.manifest.files
                if shared
                else [own(target, artifact, e, version) for e in artifact.manifest.files]
            )
            manifest = artifact.manifest.model_copy(update={"version": version, "inputs": inputs, "files": files})
            (folder / "manifest.json").write_bytes(manifest.dump())
            made += 1
    return made


def own(target: Path, artifact: Artifact, entry: FileEntry, version: str) -> FileEntry:
    """A copy of a table's file for another version: the same rows, other bytes."""
    if entry.table is None:
        return entry
    table = pq.read_table(target / entry.path)
    path = entry.path.replace(artifact.version, version)
    (target / path).parent.mkdir(exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"version": version}), target / path, compression="zstd")
    data = (target / path).read_bytes()
    return entry.model_copy(update={"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})


def timed(command: list[str]) -> float:
    """Wall seconds of a command that must succeed."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "pipelines.cli", *command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return time.perf_counter() - began


def ask(root: Path, calls: int, at_once: int, seed: int = 0) -> dict[str, Any]:
    """Half `show`, half `why`, `at_once` at a time; medians, 95 %, and CPU seconds of a call of each alone."""
    store, draw = Store(str(root)), random.Random(seed)
    versions = [f"{kind}={version}" for kind in store.kinds() for version in store.versions(kind)]
    ids = next(store.all("images")).read("images", ["image_id"])["image_id"].to_pylist()
    commands = []
    for call in range(calls):
        own = ["show", draw.choice(versions)] if call % 2 == 0 else ["why", draw.choice(ids)]
        commands.append(["artifacts", *own, "--root", str(root)])
    with ThreadPoolExecutor(at_once) as pool:
        seconds = list(pool.map(timed, commands))
    told: dict[str, Any] = {}
    for name, own in (("all", seconds), ("show", seconds[::2]), ("why", seconds[1::2])):
        ordered = sorted(own)
        told[name] = {"median_s": round(statistics.median(own), 3), "p95_s": round(ordered[int(0.95 * len(own))], 3)}
    for name, some in (("show", commands[:20:2]), ("why", commands[1:20:2])):
        told[name]["cpu_s"] = round(statistics.median(processor_time(command)[1] for command in some), 3)
    return told


def processor_time(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command, alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = timed(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def listing_on_s3(root: Path) -> dict[str, Any]:
    """Seconds and requests of `artifacts list` on an S3 server on loopback, and of a step's keeping of the index.

    "unindexed": the first on a root whose index is lost; "behind": as far behind as steps leave the index; then with
    the index.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
    os.environ.update(names | {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"})
    boto3.client("s3").create_bucket(Bucket="load")
    keys = fill(root)
    asked: Counter[str] = Counter()
    application = server._server.app

    def counted(environment: dict[str, Any], respond: Any) -> Any:
        listing = "list-type" in environment["QUERY_STRING"]
        asked["LIST" if listing else environment["REQUEST_METHOD"]] += 1
        return application(environment, respond)

    server._server.app = counted
    told: dict[str, Any] = {"keys": keys}
    try:
        for name in ("unindexed", "indexed", "behind", "indexed_again"):
            if name == "behind":
                told["published"] = published(root, asked)
            asked.clear()
            began, client = (
                time.process_time(),
                processor_time(["artifacts", "list", "--json", "--root", "s3://load/root"]),
            )
            told[name] = {
                "seconds": round(client[0], 2),
                "client_cpu_s": round(client[1], 2),
                "server_cpu_s": round(time.process_time() - began, 2),
                "requests": dict(asked),
            }
        return told
    finally:
        server.stop()


def published(root: Path, asked: Counter[str]) -> dict[str, Any]:
    """Seconds and requests of what a step does for the index, as the last versions of every kind are published."""
    storage, seconds, count = Store("s3://load/root").storage, [], Counter[str]()
    for kind, paths in last_published(root).items():
        for path in paths:
            put(root, path)
            asked.clear()
            began = time.perf_counter()
            keep_up(storage, kind)
            seconds.append(time.perf_counter() - began)
            count.update(asked)
    return {
        "steps": len(seconds),
        "median_s": round(statistics.median(seconds), 3),
        "longest_s": round(max(seconds), 3),
        "requests_each": {what: round(number / len(seconds), 1) for what, number in count.items()},
    }


def last_published(root: Path) -> dict[str, list[Path]]:
    """The manifests of every kind that come last: amid them the index is written anew, and is behind at their end."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.glob("*/*/manifest.json")):
        found.setdefault(path.parts[-3], []).append(path)
    return {kind: paths[: 2 * WORTH_WRITING - 1] for kind, paths in found.items()}


def put(root: Path, path: Path) -> None:
    """A file of the root into the server; of its own size only manifests and tags."""
    from moto.s3.models import s3_backends

    whole = path.name == "manifest.json" or "tags" in path.parts
    name = f"root/{path.relative_to(root)}"
    s3_backends["123456789012"]["aws"].put_object("load", name, path.read_bytes() if whole else b"")


def fill(root: Path) -> int:
    """Put the files of a root, but for the manifests that come last, into the server in this process; how many."""
    late = {path for paths in last_published(root).values() for path in paths}
    files = [path for path in root.rglob("*") if path.is_file() and path not in late]
    for path in files:
        put(root, path)
    return len(files)


def main() -> None:
    """Measure, print, and write the numbers where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--artifacts", type=int, default=2000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--shared", action="store_true", help="versions share the tables' files")
    parser.add_argument("--only", choices=("ask", "list"), help="only the 200 calls, or only the lists")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        told: dict[str, Any] = {"artifacts": multiply(options.root, root, options.artifacts, options.shared)}
        told |= {"calls": options.calls, "at_once": options.at_once, "cores": os.cpu_count()}
        told["load_average_before"] = round(os.getloadavg()[0], 1)
        told["help_s"] = round(statistics.median(timed(["--help"]) for _ in range(5)), 3)
        if options.only != "list":
            told |= ask(root, options.calls, options.at_once)
        if options.only != "ask":
            told["list_local_s"] = round(timed(["artifacts", "list", "--json", "--root", str(root)]), 2)
            told["list_s3"] = listing_on_s3(root)
    for name, figure in told.items():
        print(f"{name:20} {figure}")
    print(json.dumps(told))
    if options.out:
        options.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
