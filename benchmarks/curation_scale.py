"""How the global stages grow: filter, dedup, cluster, balance and the plan of export on synthetic rows.

Every size runs in a process of its own on N generated rows (measurements, hashes, boxes, embeddings; one row in twenty
is a copy of another: half with its very hash, half with two to eight bits changed). Seconds are the process's own (user
and system, over all its threads), which other load on the machine does not lengthen much; peaks are of the resident
memory during a step, tables included. `hashes` is the exact search of radius 8 within dedup, taken out of dedup's own
line. Prints a table with fitted exponents and the slopes between neighbouring sizes, and JSON as the last line:

    python benchmarks/curation_scale.py --rows 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa

from curation.dedup.hamming import distinct_pairs
from curation.models.copy_descriptor import DIMS
from curation.stages import balance, cluster, dedup, export
from curation.stages import filter as filters
from curation.stages.score_config import EMBEDDING_DIMS
from curation.tables import SCORE_COLUMNS, scores_schema

COPIES = 0.05
SCENES_PER_ROWS = 50  # rows that share a scene, on average
STEPS = ("filter", "hashes", "dedup", "cluster", "balance", "export")


def normal(rng: Any, n: int, dim: int) -> Any:
    """Rows of length about one, float32 [n, dim]."""
    return rng.standard_normal((n, dim), dtype=np.float32) / np.float32(dim**0.5)


def unit(x: Any) -> Any:
    """Rows of length one, float32."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def lists(x: Any) -> pa.Array:
    """A matrix as a column of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(x, np.float32).ravel()), x.shape[1])


def tables(n: int, seed: int = 0) -> tuple[pa.Table, pa.Table, pa.Table]:
    """images without bytes, detections, scores of n pictures."""
    rng = np.random.default_rng(seed)
    ids = pa.array([f"{value:032x}" for value in range(n)])
    copied = rng.random(n) < COPIES
    of = np.where(copied, rng.integers(0, n, n), np.arange(n))  # whose copy a row is
    changed = np.flatnonzero(copied & (rng.random(n) < 0.5))
    hashes = [_codes(n, rng)[of] for _ in range(2)]
    for codes in hashes:
        codes[changed] = _swapped(codes[changed], rng)
    images = pa.table(
        {
            "image_id": ids,
            "source": pa.array([f"{i % 97}/{i}.jpg" for i in range(n)]),
            "width": pa.array(rng.integers(500, 2000, n), pa.int32()),
            "height": pa.array(rng.integers(500, 2000, n), pa.int32()),
            "n_bytes": pa.array(rng.integers(50_000, 500_000, n)),
            "phash": pa.array(hashes[0]),
            "phash_mirror": pa.array(hashes[1]),
            "phash_quality": pa.array(np.ones(n, np.float32)),
            "licence": pa.array([None] * n, pa.string()),
        }
    )
    return images, _detections(ids, rng), _scores(ids, of, copied, rng)


def _detections(ids: pa.Array, rng: Any) -> pa.Table:
    n = len(ids)
    side = rng.integers(300, 900, n).astype(np.float32)
    boxes = np.stack([np.full(n, 20.0), np.full(n, 20.0), 20 + side, 20 + 1.6 * side], axis=1)
    nested = pa.ListArray.from_arrays(pa.array(np.arange(n + 1), pa.int32()), lists(boxes))
    best = pa.ListArray.from_arrays(pa.array(np.arange(n + 1), pa.int32()), pa.array(rng.random(n).astype(np.float32)))
    return pa.table({"image_id": ids, "boxes": nested, "box_scores": best})


def _scores(ids: pa.Array, of: Any, copied: Any, rng: Any) -> pa.Table:
    """Embeddings scatter around scenes as much as scenes do; descriptors of a scene have a cosine of about 0.36."""
    n, dims = len(ids), (EMBEDDING_DIMS["builtin"], DIMS["builtin"])
    place = rng.integers(0, max(2, n // SCENES_PER_ROWS), n)[of]
    embedding, descriptor = (normal(rng, int(place.max()) + 1, dim)[place] for dim in dims)
    embedding += normal(rng, n, dims[0])
    descriptor *= np.float32(0.6)
    descriptor += np.float32(0.8) * normal(rng, n, dims[1])[of]
    descriptor[copied] += np.float32(0.3) * normal(rng, int(copied.sum()), dims[1])
    columns: dict[str, Any] = {"image_id": ids, "scored": pa.array(np.ones(n, bool))}
    for name, kind in SCORE_COLUMNS:
        columns[name] = pa.array(rng.random(n).astype(np.float32)) if kind == pa.float32() else pa.nulls(n, kind)
    columns["yaw_deg"] = pa.array((rng.standard_normal(n) * 40).astype(np.float32))
    columns["face_count"] = pa.array(rng.integers(0, 3, n), pa.int32())
    columns |= {"embedding": lists(unit(embedding)), "copy_embedding": lists(unit(descriptor))}
    schema = scores_schema(*dims)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _codes(n: int, rng: Any) -> Any:
    """Hashes with 32 ones each, as imagehash.phash makes them."""
    out = np.zeros(n, np.uint64)
    for start in range(0, n, 65536):
        rows = out[start : start + 65536]
        order = np.argsort(rng.random((len(rows), 64), dtype=np.float32), axis=1)[:, :32].astype(np.uint64)
        rows[:] = np.bitwise_or.reduce(np.left_shift(np.uint64(1), order), axis=1)
    return out


def _swapped(codes: Any, rng: Any) -> Any:
    """Codes with one to four ones made zeros and as many zeros ones: two to eight bits away."""
    bits = (codes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    shuffled = np.argsort(rng.random(bits.shape) + bits, axis=1)  # zeros in random order, then ones in random order
    swaps = rng.integers(1, 5, len(codes))
    for k in range(4):
        one, zero = (np.left_shift(np.uint64(1), shuffled[:, place].astype(np.uint64)) for place in (32 + k, k))
        codes = np.where(swaps > k, codes ^ one ^ zero, codes)
    return codes


def peak_bytes() -> int:
    """The largest resident memory since the last call of this, which starts the next measurement (Linux)."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(n: int) -> dict[str, dict[str, float]]:
    """Rows in and kept, own seconds, wall seconds, and peak memory in bytes, of each step on n rows."""
    images, detections, scores = tables(n)
    config = filters.FilterConfig(
        min_person_px=350, min_person_score=0.02, max_aspect=4, min_realism=0.05, max_text_ratio=0.95
    ).model_copy(update=dict.fromkeys(("min_exposure", "max_exposure", "min_contrast", "min_sharpness")))
    config = config.model_copy(update={"max_flatness": None, "max_text_person_overlap": None})
    found: dict[str, dict[str, float]] = {}
    searched = [0.0, 0.0]

    def search(codes: Any, radius: int) -> Any:
        began, wall = time.process_time(), time.monotonic()
        pairs = distinct_pairs(codes, radius)
        searched[0] += time.process_time() - began
        searched[1] += time.monotonic() - wall
        return pairs

    def step(name: str, work: Any) -> Any:
        peak_bytes()
        began, wall = time.process_time(), time.monotonic()
        result = work()
        found[name] = {"seconds": time.process_time() - began, "wall": time.monotonic() - wall}
        found[name]["peak_bytes"] = peak_bytes()
        print(f"{n} {name}: {found[name]}", file=sys.stderr, flush=True)
        if name != "export":
            found[name] |= {k: result.metrics[k] for k in ("rows_in", "kept")}
            noted = ("agreement", "descriptor_recall_low", "descriptor_probes", "clusters")
            found[name] |= {k: result.metrics[k] for k in noted if k in result.metrics}
            return result.tables["data"]
        return result

    filtered = step("filter", lambda: filters.run(images, detections, scores, config))
    settings = dedup.DedupConfig(shuffle_from=1)
    deduped = step("dedup", lambda: dedup.run(images, scores, filtered, settings, detections=detections, search=search))
    found["hashes"] = found["dedup"] | {"seconds": searched[0], "wall": searched[1]}
    for index, name in enumerate(("seconds", "wall")):
        found["dedup"][name] -= searched[index]
    clusters = step("cluster", lambda: cluster.run(scores, deduped, cluster.ClusterConfig()))
    chosen = step(
        "balance",
        lambda: balance.run(images, detections, scores, deduped, clusters, balance.BalanceConfig()),
    )
    plans = step("export", lambda: export.plan(chosen, deduped, export.ExportConfig()))
    rows = sum(len(plan.image_ids) for plan in plans)
    found["export"] |= {"rows_in": rows, "kept": rows}
    return found


def growth(runs: dict[int, dict[str, dict[str, float]]], name: str) -> tuple[float, list[float]]:
    """(exponent of time in rows over all sizes, slopes between neighbouring sizes)."""
    rows = np.log([run[name]["rows_in"] for run in runs.values()])
    seconds = np.log([max(run[name]["seconds"], 1e-3) for run in runs.values()])
    slopes = np.diff(seconds) / np.diff(rows)
    return float(np.polyfit(rows, seconds, 1)[0]), slopes.tolist()


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
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(n)], stdout=subprocess.PIPE, text=True, check=True
        )
        runs[n] = json.loads(done.stdout.splitlines()[-1])
        for name in STEPS:
            row = runs[n][name]
            print(
                f"{n:>9} {name:<8} {row['rows_in']:>9.0f} in {row['seconds']:8.2f} s, {row['wall']:8.2f} s of wall, "
                f"{row['peak_bytes'] / 1e9:6.2f} GB",
                flush=True,
            )
        steps = sum(row["wall"] for row in runs[n].values())
        print(
            f"{n:>9} {steps:.1f} s of wall in the steps, {time.monotonic() - began:.1f} s with the making of the rows"
        )
    exponents = {}
    for name in STEPS:
        if len(runs) > 1:
            exponents[name], slopes = growth(runs, name)
            steps = ", ".join(f"{slope:.2f}" for slope in slopes)
            print(f"{name:<8} time grows as rows ^ {exponents[name]:.2f} (between neighbouring sizes: {steps})")
    print(json.dumps({"runs": runs, "exponents": exponents}))


if __name__ == "__main__":
    main()
