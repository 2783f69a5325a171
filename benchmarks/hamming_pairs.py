"""All pairs of 64-bit hashes within 8 bits: this project beside FAISS and a plain loop, in one run, on one core.

Codes have 32 ones each, as imagehash.phash makes them; one in twenty is a copy of another with up to four swaps of a
one and a zero (distance up to 8). Exact methods must agree on the number of pairs, or the run fails.

    python benchmarks/hamming_pairs.py [--large | --small]

The plain loop (imagehash objects subtracted one by one) is timed on 1,000 codes and scaled by the square of the number
of codes. imagededup takes part at 20,000 codes, by its default search, where it can be imported (`pip install --no-deps
imagededup`; it takes minutes). `--large` adds 10 million codes at radius 4, with peak memory; `--small` stops after
20,000. Prints a table; the last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from curation.dedup import hamming_pairs

Codes = NDArray[np.uint64]
RADIUS = 8
_LOOP_CODES = 1_000


def make_codes(n: int, seed: int = 0) -> Codes:
    """n codes of 32 ones; the last twentieth are copies of others with up to four swapped pairs of bits."""
    rng = np.random.default_rng(seed)
    base = np.concatenate([_balanced(rng, min(250_000, n - start)) for start in range(0, n, 250_000)])
    copies = base[: n // 20].copy()
    for _ in range(4):
        swap = rng.random(len(copies)) < 0.7
        one, zero = _random_bit(rng, copies), _random_bit(rng, ~copies)
        copies ^= np.where(swap, one | zero, np.uint64(0))
    return rng.permutation(np.concatenate([base[: n - len(copies)], copies]))


def _balanced(rng: np.random.Generator, n: int) -> Codes:
    bits = np.argsort(rng.random((n, 64), dtype=np.float32), axis=1)[:, :32].astype(np.uint64)
    return np.bitwise_or.reduce(np.uint64(1) << bits, axis=1)


def _random_bit(rng: np.random.Generator, codes: Codes) -> Codes:
    """One of the bits that are set in each code, drawn at random."""
    found = np.zeros_like(codes)
    while (missing := found == 0).any():
        bit = np.uint64(1) << rng.integers(0, 64, len(codes), dtype=np.uint64)
        found = np.where(missing & (codes & bit != 0), bit, found)
    return found


def ours(codes: Codes, radius: int) -> int:
    return len(hamming_pairs(codes, radius)[0])


def faiss_flat(codes: Codes, radius: int) -> int:
    """Every code against every other, in C++."""
    import faiss

    index = faiss.IndexBinaryFlat(64)
    return _faiss_pairs(index, codes, radius)


def faiss_multi_hash(codes: Codes, radius: int) -> int:
    """Three bands of 21 bits with up to two flips: exact up to radius 3 x 3 - 1 = 8."""
    import faiss

    index = faiss.IndexBinaryMultiHash(64, 3, 21)
    index.nflip = 2
    return _faiss_pairs(index, codes, radius)


def _faiss_pairs(index: Any, codes: Codes, radius: int) -> int:
    import faiss

    faiss.omp_set_num_threads(1)
    data = codes.view(np.uint8).reshape(-1, 8)
    index.add(data)
    pairs = 0
    for start in range(0, len(data), 20_000):
        limits, _, found = index.range_search(data[start : start + 20_000], radius + 1)  # strictly below
        query = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits).astype(np.int64))
        pairs += int((found > query).sum())
    return pairs


def imagededup_default(codes: Codes, radius: int) -> int:
    """imagededup's search as it comes, in this process; it tells every pair from both sides."""
    from imagededup.methods import PHash

    told = {str(i): f"{int(code):016x}" for i, code in enumerate(codes)}
    found = PHash(verbose=False).find_duplicates(encoding_map=told, max_distance_threshold=radius, num_dist_workers=0)
    return sum(len(near) for near in found.values()) // 2


def plain_loop_seconds(codes: Codes, radius: int, n: int) -> float:
    """Seconds that subtracting imagehash objects pair by pair would take for n codes; measured on the first few."""
    import imagehash

    bits = np.unpackbits(codes[:_LOOP_CODES].view(np.uint8).reshape(-1, 8), axis=1).astype(bool)
    hashes = [imagehash.ImageHash(row.reshape(8, 8)) for row in bits]
    start = time.perf_counter()
    sum(hashes[i] - hashes[j] <= radius for i in range(len(hashes)) for j in range(i + 1, len(hashes)))
    return (time.perf_counter() - start) * (n / len(hashes)) ** 2


def timed(run: Callable[[Codes, int], int], codes: Codes, radius: int) -> tuple[float, int]:
    start = time.perf_counter()
    pairs = run(codes, radius)
    return time.perf_counter() - start, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="add 10 million codes at radius 4")
    parser.add_argument("--small", action="store_true", help="20,000 codes only")
    arguments = parser.parse_args()
    peers = [ours, faiss_flat, faiss_multi_hash]
    if importlib.util.find_spec("imagededup"):
        peers.append(imagededup_default)
    else:
        print("imagededup cannot be imported: it is left out")
    cases: list[tuple[int, int, tuple[Callable[[Codes, int], int], ...]]] = [
        (20_000, RADIUS, tuple(peers)),
        (300_000, RADIUS, (ours, faiss_multi_hash)),
        (300_000, 4, (ours,)),
    ]
    if arguments.small:
        cases = cases[:1]
    if arguments.large:
        cases.append((10_000_000, 4, (ours,)))
    rows: list[dict[str, Any]] = []
    for n, radius, methods in cases:
        codes = make_codes(n)
        for method in methods:
            seconds, pairs = timed(method, codes, radius)
            rows.append({"n": n, "radius": radius, "method": method.__name__, "seconds": seconds, "pairs": pairs})
        if n == 20_000:
            seconds = plain_loop_seconds(codes, radius, n)
            rows.append({"n": n, "radius": radius, "method": "plain_loop (scaled)", "seconds": seconds, "pairs": None})
        counts = {
            row["pairs"] for row in rows if row["n"] == n and row["radius"] == radius and row["pairs"] is not None
        }
        if len(counts) > 1:
            raise SystemExit(f"exact methods disagree at {n} codes, radius {radius}: {sorted(counts)}")
    report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    """The table, and the JSON line."""
    own = {(row["n"], row["radius"]): row["seconds"] for row in rows if row["method"] == "ours"}
    print(f"{'codes':>10} {'radius':>6} {'method':<20} {'seconds':>10} {'pairs':>9} {'x ours':>8}")
    for row in rows:
        row["times_ours"] = round(row["seconds"] / own[row["n"], row["radius"]], 2)
        row["seconds"] = round(row["seconds"], 3)
        pairs = "-" if row["pairs"] is None else row["pairs"]
        print(
            f"{row['n']:>10} {row['radius']:>6} {row['method']:<20} {row['seconds']:>10} {pairs:>9} "
            f"{row['times_ours']:>8}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")
    print(json.dumps({"benchmark": "hamming_pairs", "rows": rows, "peak_gib": round(peak, 2)}))


if __name__ == "__main__":
    main()
