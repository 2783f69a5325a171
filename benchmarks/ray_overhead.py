"""What Ray Data and the commits cost: decode + hash of 0.5 MP JPEGs as a step of ours, beside a bare loop.

The pictures lie on disk, in files of 250. Bare: one process reads file after file, decodes, hashes, and keeps the
hashes. Ours: the same function through `map_partitions` with one worker; every partition is written as Parquet with its
digest and marker, as a step's are. Wall seconds, the two in turns. A run starts Ray once for all its steps, so that is
a line of its own; what the step needs until its worker is at work is part of ours, and the pace from the first commit
to the last is told too. Ray's workers run at the nice value of the loop, not 15 above it as Ray has them, so that other
work on the machine slows both alike. Prints a table; the last line is JSON:

    python benchmarks/ray_overhead.py --rows 10000
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from decode_hash import photographs

os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112, Ray's own spelling

from components.attempt import Attempt
from components.partitions import Worker, map_partitions
from components.progress import Progress
from components.ray_session import ray_session
from curation.images import Header, Reject, phash, read_header
from curation.images.decode import decode_grey

SIZE = (816, 612)  # 0.5 megapixels
DISTINCT, PER_FILE = 200, 250
TARGET = 0.15


class DecodeHash:
    """A file of pictures to their hashes; the work of both ways."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, pid: str, payload: None) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        rows = pq.read_table(self.folder / f"{pid}.parquet")
        greys = []
        for data in rows["bytes"].to_pylist():
            header = read_header(data)
            assert isinstance(header, Header)
            grey = decode_grey(data, header, min_side=phash.MIN_SIDE_PX)
            assert not isinstance(grey, Reject)
            greys.append(phash.thumbnail(grey))
        codes, mirrors, _ = phash.hashes(np.stack(greys))
        table = pa.table({"image_id": rows["image_id"], "phash": pa.array(codes), "phash_mirror": pa.array(mirrors)})
        return {"data": table}, {"rows": len(rows)}


def write_pictures(folder: Path, rows: int) -> list[str]:
    """Parquet files of pictures; their names without ending. A picture is repeated, an id is not."""
    made, names = photographs(SIZE, min(DISTINCT, rows)), []
    for start in range(0, rows, PER_FILE):
        ids = range(start, min(start + PER_FILE, rows))
        table = pa.table({"image_id": [f"{i:032x}" for i in ids], "bytes": [made[i % len(made)] for i in ids]})
        names.append(f"{start:08d}")
        pq.write_table(table, folder / f"{names[-1]}.parquet", compression="none")
    return names


def bare(folder: Path, names: list[str]) -> list[int]:
    """The hashes, by a loop."""
    work, codes = DecodeHash(folder), []
    for name in names:
        codes += work(name, None)[0]["data"]["phash"].to_pylist()
    return codes


def ours(folder: Path, names: list[str], root: Path) -> list[int]:
    """The hashes, by a step on Ray with one worker."""
    attempt = Attempt(str(root), "filtered", "v1")
    worker = Worker(attempt, partial(DecodeHash, folder))
    records = map_partitions(worker, dict.fromkeys(names), Progress("filter"), workers=1)
    files = [entry.path for name in names for entry in records[name].files]
    return [code for path in files for code in pq.read_table(root / path)["phash"].to_pylist()]


def pace(root: Path) -> float:
    """Seconds from the first commit to the last, scaled from the partitions between them to all."""
    times = sorted(path.stat().st_mtime for path in root.glob("filtered/v1/parts/*.json"))
    return (times[-1] - times[0]) * len(times) / max(len(times) - 1, 1)


def seconds(work: Any) -> tuple[float, list[int]]:
    """(wall seconds, the hashes)."""
    began = time.monotonic()
    codes = work()
    return time.monotonic() - began, codes


def main() -> None:
    """Turns of both, then the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    times: dict[str, list[float]] = {"bare loop": [], "ours": [], "its pace": [], "Ray's start": []}
    with tempfile.TemporaryDirectory(prefix="ray-overhead-") as name:
        folder = Path(name)
        names = write_pictures(folder, arguments.rows)
        for turn in range(arguments.repeats):
            took, wanted = seconds(lambda: bare(folder, names))
            times["bare loop"].append(took)
            began, root = time.monotonic(), folder / f"root{turn}"
            with ray_session():
                times["Ray's start"].append(time.monotonic() - began)
                took, codes = seconds(partial(ours, folder, names, root))
            times["ours"].append(took)
            times["its pace"].append(pace(root))
            assert codes == wanted, "both ways give the same hashes"
    for way, all_of in times.items():
        told = ", ".join(f"{value:.1f}" for value in all_of)
        rate = f"{arguments.rows / statistics.median(all_of):8.1f} pictures a second" if "start" not in way else ""
        print(f"{way:<12} {statistics.median(all_of):8.1f} s {rate} (turns: {told})")
    result: dict[str, Any] = {"benchmark": "ray_overhead", "rows": arguments.rows, "seconds": times}
    for way in ("ours", "its pace"):
        shares = [a / b - 1 for a, b in zip(times[way], times["bare loop"], strict=True)]
        result[f"{way}, overhead"] = statistics.median(shares)
        turns = ", ".join(f"{share:+.1%}" for share in shares)
        print(f"{way} takes {statistics.median(shares):+.1%} (turns: {turns}); the target is at most {TARGET:.0%}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
