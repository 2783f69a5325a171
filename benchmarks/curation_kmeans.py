"""Clusters and an even selection from them, beside flat k-means of FAISS and the published hierarchical recipe.

N rows of D numbers around concepts of very unequal size, each with attributes that follow its concept. Three ways from
there to a selection of TARGET rows, each on one thread, seconds by the process's own time:

- ours: `hierarchical_kmeans` to the sizes given, then `allocate` with caps and floors on the attributes;
- flat: `faiss.Kmeans` to the number of leaves, as many iterations, then as many rows of every cluster as come nearest
  to the target;
- recipe: Vo et al. 2024 (Automatic Data Curation for Self-Supervised Learning), written from the paper: k-means level
  by level, each followed by rounds of k-means on the rows nearest to every centroid, then the same number of rows of
  every cluster from the top down.

Inertia is the sum of 1 - cosine of every row to the nearest of all leaves. Prints a table and JSON as the last line:

    python benchmarks/curation_kmeans.py --rows 100000 --dim 256 --sizes 5000 1000 --repeats 2
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np

from curation.balance import allocate, hierarchical_kmeans
from curation.balance.divergence import kl_to_uniform

ITERATIONS = 20
RESAMPLINGS = 10
AXES = {
    "pose": ("frontal", "left", "right", "left_profile", "right_profile", "no_face"),
    "count": ("one", "two", "few", "many"),
    "light": ("dark", "dim", "bright", "very_bright"),
}
CAP, FLOOR = 1.2, 0.8  # of an even share of the target


def pool(n: int, dim: int, seed: int) -> tuple[Any, dict[str, Any]]:
    """(unit rows float32 [n, dim], axis -> bins [n]): a few concepts hold most rows, in a few bins."""
    rng = np.random.default_rng(seed)
    concepts = max(2, n // 100)
    worth = 1.0 / np.arange(1, concepts + 1)
    concept = rng.choice(concepts, n, p=worth / worth.sum())
    x = rng.standard_normal((concepts, dim), dtype=np.float32)[concept]
    x += rng.uniform(0.5, 1.2, (concepts, 1)).astype(np.float32)[concept] * rng.standard_normal((n, dim), np.float32)
    attributes = {}
    for axis, names in AXES.items():
        usual = rng.choice(len(names), concepts, p=np.array([0.5**k for k in range(len(names))]) / _halves(len(names)))
        odd = rng.random(n) < 0.3
        attributes[axis] = np.array(names)[np.where(odd, rng.integers(0, len(names), n), usual[concept])]
    return x / np.linalg.norm(x, axis=1, keepdims=True), attributes


def _halves(n: int) -> float:
    return sum(0.5**k for k in range(n))


def faiss_kmeans(x: Any, k: int, seed: int) -> Any:
    """Centroids of FAISS's spherical k-means, float32 [k, dim]."""
    made = faiss.Kmeans(x.shape[1], k, niter=ITERATIONS, spherical=True, seed=seed, min_points_per_centroid=1)
    made.train(x)
    return np.asarray(made.centroids)


def nearest(x: Any, centroids: Any) -> tuple[Any, Any]:
    """(cosine [n], centroid [n]) of the nearest of all centroids."""
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(centroids)
    cosine, at = index.search(np.ascontiguousarray(x), 1)
    return cosine[:, 0], at[:, 0]


def ours(x: Any, attributes: Any, sizes: list[int], target: int, seed: int) -> tuple[Any, Any]:
    """(leaf centroids, kept rows) of this project."""
    tree = hierarchical_kmeans(x, sizes, seed=seed)
    even = {axis: target / len(names) for axis, names in AXES.items()}
    caps, floors = (
        {axis: {name: int(share * even[axis]) for name in names} for axis, names in AXES.items()}
        for share in (CAP, FLOOR)
    )
    found = allocate(tree, target, attributes=attributes, caps=caps, floors=floors, quality=np.zeros(len(x)), seed=seed)
    return tree.centroids[0], np.flatnonzero(found.keep)


def flat(x: Any, attributes: Any, sizes: list[int], target: int, seed: int) -> tuple[Any, Any]:
    """The same of one level of k-means and equal numbers of each cluster."""
    centroids = faiss_kmeans(x, sizes[0], seed)
    member = nearest(x, centroids)[1]
    return centroids, sampled([member], np.arange(len(x)), target, np.random.default_rng(seed))


def recipe(x: Any, attributes: Any, sizes: list[int], target: int, seed: int) -> tuple[Any, Any]:
    """The same of the published recipe: resampled k-means at every level, equal numbers from the top down."""
    level, leaves, paths = x, None, np.arange(len(x))
    members = []
    for size in sizes:
        centroids = faiss_kmeans(level, size, seed)
        cosine, member = nearest(level, centroids)
        for _ in range(RESAMPLINGS):
            closest = nearest_members(cosine, member, max(1, len(level) // size // 2))
            centroids = faiss_kmeans(level[closest], size, seed)
            cosine, member = nearest(level, centroids)
        leaves = centroids if leaves is None else leaves
        paths = member[paths]
        members.append(paths)
        level = centroids
    return leaves, sampled(members, np.arange(len(x)), target, np.random.default_rng(seed))


def nearest_members(cosine: Any, member: Any, count: int) -> Any:
    """The `count` rows of every cluster that are nearest to its centroid, fewer where it has fewer."""
    order = np.lexsort((-cosine, member))
    starts = np.searchsorted(member[order], np.arange(member.max() + 1))
    return order[np.arange(len(order)) - starts[member[order]] < count]


def sampled(levels: list[Any], rows: Any, target: int, rng: Any) -> Any:
    """About `target` of `rows`: the same number of each cluster of the last level, or all it has, and so on down.

    levels: cluster of every row at each level, leaves first.
    """
    if not levels:
        return rng.permutation(rows)[:target]
    _, member = np.unique(levels[-1][rows], return_inverse=True)
    counts = np.bincount(member)
    each = min(range(counts.max() + 1), key=lambda k: abs(target - int(np.minimum(counts, k).sum())))
    parts = np.split(rows[np.argsort(member, kind="stable")], np.cumsum(counts)[:-1])
    chosen = [sampled(levels[:-1], part, min(each, len(part)), rng) for part in parts]
    return np.concatenate(chosen) if chosen else rows[:0]


def result(x: Any, attributes: Any, seconds: float, centroids: Any, kept: Any) -> dict[str, float]:
    """What is compared."""
    divergence = [
        kl_to_uniform([int((attributes[axis][kept] == name).sum()) for name in names]) for axis, names in AXES.items()
    ]
    inertia = float((1 - nearest(x, np.ascontiguousarray(centroids))[0].astype(np.float64)).sum())
    return {
        "seconds": seconds,
        "inertia": inertia,
        "selected": len(kept),
        "kl": float(np.mean(divergence)),
    }


WAYS: dict[str, Callable[..., tuple[Any, Any]]] = {"ours": ours, "flat": flat, "recipe": recipe}


def main() -> None:
    """Every way in turn, `repeats` times; the recipe, which takes longest, once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 1000])
    parser.add_argument("--target", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    x, attributes = pool(options.rows, options.dim, 0)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for repeat in range(options.repeats):
        for name, way in WAYS.items():
            if name != "recipe" or repeat == 0:
                began = time.process_time()
                centroids, kept = way(x, attributes, options.sizes, options.target, repeat)
                found[name].append(result(x, attributes, time.process_time() - began, centroids, kept))
                print(name, found[name][-1], flush=True)
    mean = {name: {k: float(np.mean([r[k] for r in rows])) for k in rows[0]} for name, rows in found.items()}
    print(f"{'':<8}{'seconds':>10}{'inertia':>12}{'of flat':>9}{'selected':>10}{'KL of attributes':>18}")
    for name, row in mean.items():
        share = row["inertia"] / mean["flat"]["inertia"]
        print(
            f"{name:<8}{row['seconds']:>10.1f}{row['inertia']:>12.1f}{share:>9.4f}{row['selected']:>10.0f}"
            f"{row['kl']:>18.4f}"
        )
    print(json.dumps({"options": vars(options), "runs": found, "mean": mean}))


if __name__ == "__main__":
    main()
