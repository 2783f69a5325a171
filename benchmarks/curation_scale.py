"""How the global stages grow: filter, dedup, cluster, balance and the plan of export on synthetic rows.

Every size runs in a process of its own on N generated rows (measurements, hashes, boxes, embeddings; one row in twenty
is a copy of another: half with its very hash, half with two to eight bits changed). Seconds are the process's own (user
and system, over all its threads), which other load on the machine does not lengthen much; peaks are of the resident
memory during a step, tables included. `hashes` is the exact search of radius 8 within dedup, taken out of dedup's own
line. Filter and the plan of export take less than two seconds at small sizes: they are repeated for that long, and the
median counts. Prints a table with fitted exponents and the slopes between neighbouring sizes, then how the seconds of
`sapiens2 plan curate` compare with the measured ones; the last line is JSON:

    python benchmarks/curation_scale.py --rows 10000 100000 1000000

`--stages filter export` measures only these. What comes before them is then made, not measured: without dedup each row
that filter kept is a group of its own, without balance every fifth of them is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa

from components.curation_plan import hash_seconds, shipped
from curation.dedup.hamming import distinct_pairs
from curation.models.copy_descriptor import DIMS
from curation.stages import balance, cluster, dedup, export
from curation.stages import filter as filters
from curation.stages.score_config import EMBEDDING_DIMS
from curation.tables import SCORE_COLUMNS, scores_schema

COPIES = 0.05
SCENES_PER_ROWS = 50  # rows that share a scene, on average
STEPS = ("filter", "hashes", "dedup", "cluster", "balance", "export")
REPEATED = ("filter", "export")  # cheap ones, whose single measurement would be that of a cold cache
REPEAT_FOR_S = 2.0


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


class Watch:
    """Runs steps on n rows and notes own seconds, wall seconds and peak memory in bytes of each in `found`."""

    def __init__(self, n: int) -> None:
        self.n, self.found = n, dict[str, dict[str, float]]()
        self.searched = np.zeros(2)

    def search(self, codes: Any, radius: int) -> Any:
        """The exact search of hashes, timed apart."""
        pairs, seconds = timed(lambda: distinct_pairs(codes, radius))
        self.searched += seconds
        return pairs

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """What `work` returns; a cheap step is repeated, the median of its times counts."""
        peak_bytes()
        times: list[tuple[float, float]] = []
        while not times or (name in REPEATED and sum(wall for _, wall in times) < REPEAT_FOR_S):
            result, seconds = timed(work)
            times.append(seconds)
        middle = np.median(times, axis=0) - (self.searched if name == "dedup" else 0)
        row = {"seconds": float(middle[0]), "wall": float(middle[1]), "peak_bytes": peak_bytes()}
        if name == "export":
            rows = sum(len(plan.image_ids) for plan in result)
            row |= {"rows_in": rows, "kept": rows}
        else:
            noted = ("rows_in", "kept", "agreement", "descriptor_recall_low", "descriptor_probes", "clusters")
            row |= {k: result.metrics[k] for k in noted if k in result.metrics}
        self.found[name] = row
        print(f"{self.n} {name}: {row}", file=sys.stderr, flush=True)
        return result if name == "export" else result.tables["data"]


def timed(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """(what `work` returns, its own and its wall seconds)."""
    began, wall = time.process_time(), time.monotonic()
    result = work()
    return result, (time.process_time() - began, time.monotonic() - wall)


def measure(n: int, stages: Sequence[str] = STEPS) -> dict[str, dict[str, float]]:
    """Rows in and kept, own seconds, wall seconds, and peak memory in bytes, of each of these stages on n rows."""
    images, detections, scores = tables(n)
    config = filters.FilterConfig(
        min_person_px=350, min_person_score=0.02, max_aspect=4, min_realism=0.05, max_text_ratio=0.95
    ).model_copy(update=dict.fromkeys(("min_exposure", "max_exposure", "min_contrast", "min_sharpness")))
    config = config.model_copy(update={"max_flatness": None, "max_text_person_overlap": None})
    watch = Watch(n)
    filtered = watch.step("filter", lambda: filters.run(images, detections, scores, config))
    deduped = filtered.filter(filtered["keep"]).append_column("group_id", filtered.filter(filtered["keep"])["image_id"])
    if "dedup" in stages:
        settings = dedup.DedupConfig(shuffle_from=1)
        search = watch.search
        deduped = watch.step(
            "dedup", lambda: dedup.run(images, scores, filtered, settings, detections=detections, search=search)
        )
        seconds, wall = watch.searched.tolist()
        watch.found["hashes"] = watch.found["dedup"] | {"seconds": seconds, "wall": wall}
    chosen = deduped.set_column(1, "keep", pa.array(np.arange(len(deduped)) % 5 > 0))
    if "cluster" in stages:
        clusters = watch.step("cluster", lambda: cluster.run(scores, deduped, cluster.ClusterConfig()))
    if "balance" in stages:
        settled = balance.BalanceConfig()
        chosen = watch.step("balance", lambda: balance.run(images, detections, scores, deduped, clusters, settled))
    if "export" in stages:
        watch.step("export", lambda: export.plan(chosen, deduped, export.ExportConfig()))
    return {name: watch.found[name] for name in STEPS if name in watch.found and name in stages}


def growth(runs: dict[int, dict[str, dict[str, float]]], name: str) -> tuple[float, list[float]]:
    """(exponent of time in rows over all sizes, slopes between neighbouring sizes)."""
    rows = np.log([run[name]["rows_in"] for run in runs.values()])
    seconds = np.log([max(run[name]["seconds"], 1e-3) for run in runs.values()])
    slopes = np.diff(seconds) / np.diff(rows)
    return float(np.polyfit(rows, seconds, 1)[0]), slopes.tolist()


PLANNED = ("filter", "hashes", "dedup", "cluster", "balance")  # of export the plan rates the writing, not the order


def plan_seconds(name: str, rows: float) -> float:
    """What `sapiens2 plan curate` reckons for a step on so many rows, from the shipped rates."""
    if name == "hashes":
        return hash_seconds(rows)
    return shipped("builtin").steps[name].seconds(rows)


def foretold(runs: dict[int, dict[str, dict[str, float]]], name: str) -> float:
    """Seconds of the largest size as the smaller ones foretell them: a straight line through their logarithms."""
    *smaller, largest = runs.values()
    rows = np.log([run[name]["rows_in"] for run in smaller])
    line = np.polyfit(rows, np.log([max(run[name]["seconds"], 1e-3) for run in smaller]), 1)
    return float(np.exp(np.polyval(line, np.log(largest[name]["rows_in"]))))


def hold_against_plan(runs: dict[int, dict[str, dict[str, float]]], stages: Sequence[str]) -> dict[str, Any]:
    """Prints the plan's seconds, and the smaller sizes' forecast of the largest, as shares of the measured."""
    told: dict[str, Any] = {}
    for name in (name for name in stages if name in PLANNED):
        shares = {n: plan_seconds(name, run[name]["rows_in"]) / run[name]["seconds"] for n, run in runs.items()}
        told[name] = {"plan": shares}
        text = ", ".join(f"{share:.2f} at {n:,}" for n, share in shares.items())
        if len(runs) > 2:
            told[name]["foretold"] = foretold(runs, name) / runs[max(runs)][name]["seconds"]
            text += f"; foretold for {max(runs):,} by the smaller sizes: {told[name]['foretold']:.2f}"
        print(f"{name:<8} the plan's seconds, as a share of the measured: {text}")
    return told


def main() -> None:
    """Every size in its own process, then the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--stages", nargs="+", choices=STEPS, default=STEPS, help="measure only these")
    parser.add_argument("--one", type=int)
    arguments = parser.parse_args()
    stages = [name for name in STEPS if name in arguments.stages]
    for name, needs in (("hashes", "dedup"), ("balance", "cluster")):
        if name in stages and needs not in stages:
            parser.error(f"--stages {name} needs {needs} as well")
    if arguments.one:
        print(json.dumps(measure(arguments.one, stages)))
        return
    runs = {}
    for n in sorted(arguments.rows):
        began = time.monotonic()
        command = [sys.executable, __file__, "--one", str(n), "--stages", *stages]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        runs[n] = json.loads(done.stdout.splitlines()[-1])
        for name in stages:
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
    for name in stages:
        if len(runs) > 1:
            exponents[name], slopes = growth(runs, name)
            steps = ", ".join(f"{slope:.2f}" for slope in slopes)
            print(f"{name:<8} time grows as rows ^ {exponents[name]:.2f} (between neighbouring sizes: {steps})")
    print(json.dumps({"runs": runs, "exponents": exponents, "plan": hold_against_plan(runs, stages)}))


if __name__ == "__main__":
    main()
