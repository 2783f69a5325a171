"""How the global stages grow: filter, dedup, cluster, balance and the plan of export on synthetic rows, one core.

Every size runs in a process of its own on N generated rows (measurements, hashes, boxes, embeddings; one row in twenty
is a copy of another), so that its memory is its own. Time is the process's own (user and system), which other load on
the machine does not lengthen much. Prints a table with the fitted exponents, and JSON as the last line:

    python benchmarks/curation_scale.py --rows 10000 30000 100000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa

from curation.models.copy_descriptor import DIMS
from curation.stages import balance, cluster, dedup, export
from curation.stages import filter as filters
from curation.stages.score_config import EMBEDDING_DIMS
from curation.tables import SCORE_COLUMNS, scores_schema

COPIES = 0.05
SCENES_PER_ROWS = 50  # rows that share a scene, on average
STEPS = ("filter", "dedup", "cluster", "balance", "export")


def unit(x: Any) -> Any:
    """Rows of length one, float32."""
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def lists(x: Any) -> pa.Array:
    """A matrix as a column of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(x, np.float32).ravel()), x.shape[1])


def tables(n: int, seed: int = 0) -> tuple[pa.Table, pa.Table, pa.Table]:
    """images without bytes, detections, scores of n pictures."""
    rng = np.random.default_rng(seed)
    ids = pa.array([f"{value:032x}" for value in range(n)])
    of = np.where(rng.random(n) < COPIES, rng.integers(0, n, n), np.arange(n))  # whose copy a row is
    codes = _codes(n, rng)
    images = pa.table(
        {
            "image_id": ids,
            "source": pa.array([f"{i % 97}/{i}.jpg" for i in range(n)]),
            "width": pa.array(rng.integers(500, 2000, n), pa.int32()),
            "height": pa.array(rng.integers(500, 2000, n), pa.int32()),
            "n_bytes": pa.array(rng.integers(50_000, 500_000, n)),
            "phash": pa.array(codes[of]),
            "phash_mirror": pa.array(_codes(n, rng)[of]),
            "phash_quality": pa.array(np.ones(n, np.float32)),
            "licence": pa.array([None] * n, pa.string()),
        }
    )
    side = rng.integers(300, 900, n).astype(np.float32)
    boxes = np.stack([np.full(n, 20.0), np.full(n, 20.0), 20 + side, 20 + 1.6 * side], axis=1)
    nested = pa.ListArray.from_arrays(pa.array(np.arange(n + 1), pa.int32()), lists(boxes))
    best = pa.ListArray.from_arrays(pa.array(np.arange(n + 1), pa.int32()), pa.array(rng.random(n).astype(np.float32)))
    detections = pa.table({"image_id": ids, "boxes": nested, "box_scores": best})
    scenes = rng.standard_normal((max(2, n // SCENES_PER_ROWS), EMBEDDING_DIMS["builtin"])).astype(np.float32)
    place = rng.integers(0, len(scenes), n)[of]
    noise = rng.standard_normal((n, scenes.shape[1])).astype(np.float32)
    copies = unit(rng.standard_normal((n, DIMS["builtin"])))[of]
    columns: dict[str, Any] = {"image_id": ids, "scored": pa.array([True] * n)}
    for name, kind in SCORE_COLUMNS:
        columns[name] = pa.array(rng.random(n).astype(np.float32)) if kind == pa.float32() else pa.nulls(n, kind)
    columns["yaw_deg"] = pa.array((rng.standard_normal(n) * 40).astype(np.float32))
    columns["face_count"] = pa.array(rng.integers(0, 3, n), pa.int32())
    columns |= {"embedding": lists(unit(scenes[place] + noise)), "copy_embedding": lists(copies)}
    schema = scores_schema(EMBEDDING_DIMS["builtin"], DIMS["builtin"])
    return images, detections, pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _codes(n: int, rng: Any) -> Any:
    """Hashes with 32 ones each, as imagehash.phash makes them."""
    order = np.argsort(rng.random((n, 64), dtype=np.float32), axis=1)[:, :32].astype(np.uint64)
    return np.bitwise_or.reduce(np.left_shift(np.uint64(1), order), axis=1)


def measure(n: int) -> dict[str, dict[str, float]]:
    """Rows in and kept, own seconds, and peak memory in bytes so far, of each step on n rows."""
    images, detections, scores = tables(n)
    config = filters.FilterConfig(
        min_person_px=350, min_person_score=0.02, max_aspect=4, min_realism=0.05, max_text_ratio=0.95
    ).model_copy(update=dict.fromkeys(("min_exposure", "max_exposure", "min_contrast", "min_sharpness")))
    config = config.model_copy(update={"max_flatness": None, "max_text_person_overlap": None})
    found: dict[str, dict[str, float]] = {}

    def step(name: str, work: Any) -> Any:
        began, wall = time.process_time(), time.monotonic()
        result = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found[name] = {"seconds": time.process_time() - began, "wall": time.monotonic() - wall, "peak_bytes": peak}
        if name != "export":
            found[name] |= {k: result.metrics[k] for k in ("rows_in", "kept")}
            return result.tables["data"]
        return result

    filtered = step("filter", lambda: filters.run(images, detections, scores, config))
    deduped = step("dedup", lambda: dedup.run(images, scores, filtered, dedup.DedupConfig(), detections=detections))
    clusters = step("cluster", lambda: cluster.run(scores, deduped, cluster.ClusterConfig()))
    chosen = step(
        "balance",
        lambda: balance.run(images, detections, scores, deduped, clusters, balance.BalanceConfig()),
    )
    plans = step("export", lambda: export.plan(chosen, deduped, export.ExportConfig()))
    rows = sum(len(plan.image_ids) for plan in plans)
    found["export"] |= {"rows_in": rows, "kept": rows}
    return found


def main() -> None:
    """Every size in its own process, then the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--one", type=int)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    runs = {}
    for n in sorted(arguments.rows):
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(n)], stdout=subprocess.PIPE, text=True, check=True
        )
        runs[n] = json.loads(done.stdout.splitlines()[-1])
        for name, row in runs[n].items():
            print(
                f"{n:>9} {name:<8} {row['rows_in']:>9.0f} in {row['seconds']:8.2f} s {row['peak_bytes'] / 1e9:6.2f} GB"
            )
    exponents = {}
    for name in STEPS:
        rows = [run[name]["rows_in"] for run in runs.values()]
        if len(rows) > 1:
            seconds = [max(run[name]["seconds"], 1e-3) for run in runs.values()]
            exponents[name] = float(np.polyfit(np.log(rows), np.log(seconds), 1)[0])
            print(f"{name:<8} time grows as rows ^ {exponents[name]:.2f}")
    print(json.dumps({"runs": runs, "exponents": exponents}))


if __name__ == "__main__":
    main()
