"""Pairs of pictures whose copy descriptors are close: exact, by brute force in blocks (FAISS inner product)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_QUERIES = 4096
SLACK = 1e-3  # float32 sums depend on the number of threads; candidates are taken a little below the threshold
_RESCORED = 65536  # rows or pairs that are held in float64 at a time: bounds memory


def feature_pairs(
    x: NDArray[np.float32], threshold: float, *, centre: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Every pair i < j with cosine >= `threshold`, as (i, j, cosine), sorted by i then j.

    x: float32 [N, D]; rows of zeros belong to no pair. centre: subtract the mean row first, for descriptors with a
    large common part. The cosine is summed in float64 and rounded to 1e-6, the same on every machine. Raises
    ValueError for another shape, numbers that are not finite, or a threshold outside (0, 1].
    """
    import faiss

    unit = unit_rows(x, centre)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be a cosine in (0, 1], got {threshold}")
    none = np.zeros(0, np.int64)
    if len(unit) < 2:
        return none, none, np.zeros(0)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    found_i, found_j = [none], [none]
    for start in range(0, len(unit), _QUERIES):
        limits, _, near = index.range_search(unit[start : start + _QUERIES], threshold - SLACK)
        query = start + np.repeat(np.arange(len(limits) - 1), np.diff(limits).astype(np.int64))
        upper = near > query
        found_i.append(query[upper])
        found_j.append(near[upper].astype(np.int64))
    i, j = np.concatenate(found_i), np.concatenate(found_j)
    cosine = pair_cosines(unit, i, j)
    close = cosine >= threshold
    i, j, cosine = i[close], j[close], cosine[close]
    order = np.lexsort((j, i))
    return i[order], j[order], cosine[order]


def nearest_pairs(
    x: NDArray[np.float32], k: int, threshold: float, *, centre: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pairs i < j with cosine >= `threshold` where one is among the `k` nearest rows of the other; as feature_pairs.

    At a loose threshold the number of pairs grows with N squared; of nearest neighbours there are at most k N.
    """
    import faiss

    unit = unit_rows(x, centre)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    none = np.zeros(0, np.int64)
    if len(unit) < 2:
        return none, none, np.zeros(0)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    near = np.concatenate(
        [index.search(unit[s : s + _QUERIES], min(k + 1, len(unit)))[1] for s in range(0, len(unit), _QUERIES)]
    )
    row = np.repeat(np.arange(len(unit)), near.shape[1])
    pairs = np.stack([np.minimum(row, near.ravel()), np.maximum(row, near.ravel())], axis=1)
    pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    i, j = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    cosine = pair_cosines(unit, i, j)
    close = cosine >= threshold
    return i[close], j[close], cosine[close]


def pair_cosines(unit: NDArray[np.float32], i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cosine of each pair of rows of unit length, in float64, rounded to 1e-6."""
    out = np.zeros(len(i))
    for start in range(0, len(i), _RESCORED):
        block = slice(start, start + _RESCORED)
        out[block] = (unit[i[block]].astype(np.float64) * unit[j[block]]).sum(axis=1)
    return np.round(out, 6)


def unit_rows(
    x: NDArray[np.float32],
    centre: bool = False,
    *,
    mean: NDArray[np.float64] | None = None,
    in_place: bool = False,
) -> NDArray[np.float32]:
    """The rows scaled to unit length, rows of zeros left as they are; checked as feature_pairs says.

    mean [D]: what is subtracted, in place of the mean of these rows. in_place: write over `x`, to spare its memory.
    """
    _check(x)
    if mean is None and centre:
        mean = mean_row(x)
    out = x if in_place else np.empty(x.shape, np.float32)
    for start in range(0, len(x), _RESCORED):
        rows = x[start : start + _RESCORED].astype(np.float64)
        if mean is not None:
            rows[rows.any(axis=1)] -= mean
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        out[start : start + _RESCORED] = rows / np.maximum(lengths, 1e-12)
    return out


def mean_row(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean [D] of the rows that are not zeros; zeros where there are none."""
    _check(x)
    total, count = np.zeros(x.shape[1]), 0
    for start in range(0, len(x), _RESCORED):
        rows = x[start : start + _RESCORED]
        total += rows.sum(axis=0, dtype=np.float64)
        count += int(rows.any(axis=1).sum())
    return total / max(count, 1)


def _check(x: NDArray[np.float32]) -> None:
    if x.ndim != 2:
        raise ValueError(f"descriptors must have the shape [N, D], got {list(x.shape)}")
    sound = np.isfinite(x).all(axis=1)
    if not sound.all():
        raise ValueError(f"descriptor {int(np.argmin(sound))} holds numbers that are not finite")
