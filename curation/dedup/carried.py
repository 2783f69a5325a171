"""What one run of dedup leaves for the next, so that only new pictures are compared.

Everything is about *points*: pictures that lead those with the same hash. A point that is as it was (id, hashes,
descriptor) keeps what was found of it; what changed counts as new, what went takes its neighbours' entries along.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curation.dedup.cells import Cells, Earlier, Found
from curation.dedup.evidence import NONE_COMPARED, Bounds, Compared, HashPairs, Pictures
from curation.dedup.hamming import MAX_RADIUS
from curation.dedup.hamming_across import pairs_across
from curation.dedup.near_lists import Lists

Ints = NDArray[np.int64]
_ROWS = 1 << 16  # fingerprints made at a time: bounds memory


@dataclass(frozen=True)
class Carried:
    """Points of a run and what was found of them; indices are into `image_ids`, which are sorted.

    fingerprint uint64 [N]: changes with hashes and descriptor. full bool [N]: the list holds as many as it may.
    mean [D] was subtracted from descriptors, or None. threshold: the lowest cosine in the lists.
    """

    image_ids: list[str]
    fingerprint: NDArray[np.uint64]
    full: NDArray[np.bool_]
    cells: Cells
    lists: Lists
    hashes: HashPairs
    compared: Compared
    mean: NDArray[np.float64] | None
    threshold: float


@dataclass(frozen=True)
class Known:
    """What a run knows of its points from the one before: in their rows."""

    earlier: Earlier
    hashes: HashPairs  # among old points
    compared: Compared  # among old points
    mean: NDArray[np.float64] | None
    threshold: float


def carry(
    image_ids: list[str],
    prints: NDArray[np.uint64],
    found: Found,
    hashes: HashPairs,
    compared: Compared,
    mean: NDArray[np.float64] | None,
    bounds: Bounds,
    threshold: float,
) -> Carried:
    """What this run leaves of the points with these ids and fingerprints."""
    full = found.lists.lengths(len(image_ids)) >= bounds.candidates_per_row
    return Carried(image_ids, prints, full, found.cells, found.lists, hashes, compared, mean, threshold)


def recall_to(image_ids: list[str], prints: NDArray[np.uint64], before: Carried, bounds: Bounds) -> Known:
    """What is known of the points with these ids, sorted, and fingerprints from an earlier run with the same bounds."""
    ids, known = np.array(image_ids, dtype="S"), np.array(before.image_ids, dtype="S")
    row = np.searchsorted(ids, known) if len(ids) else np.zeros(len(known), np.int64)
    row = np.minimum(row, max(len(ids) - 1, 0))
    same = (ids[row] == known) & (prints[row] == before.fingerprint) if len(ids) else np.zeros(len(known), bool)
    to = np.where(same, row, -1)  # row of each earlier point, -1 where it is gone
    old = np.zeros(len(ids), bool)
    old[to[same]] = True
    places = np.zeros((len(ids), before.cells.probes), np.int64)
    places[to[same]] = before.cells.places[same]
    lists = _moved_lists(before.lists, to)
    was_full = np.zeros(len(ids), bool)
    was_full[to[same]] = before.full[same]
    short = np.flatnonzero(was_full & (lists.lengths(len(ids)) < bounds.candidates_per_row))
    cells = replace(before.cells, places=places)
    earlier = Earlier(old, cells, lists, short)
    compared = _moved(before.compared, to)
    return Known(earlier, _moved_hashes(before.hashes, to), compared, before.mean, before.threshold)


def more_hash_pairs(points: Pictures, known: Known, min_hash_quality: float) -> HashPairs:
    """All pairs of trusted hashes up to distance 8, as find_hash_pairs finds them: new points against all."""
    trusted = np.flatnonzero(points.hash_quality >= min_hash_quality)
    fresh = trusted[~known.earlier.old[trusted]]
    codes, mirror = points.phash, points.mirror
    near = _across(codes, codes, fresh, trusted)
    sides = (_across(codes, mirror, fresh, trusted), _across(mirror, codes, fresh, trusted))
    mirrored = tuple(np.concatenate(part) for part in zip(*sides, strict=True))
    old = known.hashes
    return HashPairs(
        trusted,
        *_least(np.concatenate([old.near, near[0]]), np.concatenate([old.near_distance, near[1]])),
        *_least(np.concatenate([old.mirrored, mirrored[0]]), np.concatenate([old.mirrored_distance, mirrored[1]])),
    )


def fingerprints(points: Pictures, min_hash_quality: float) -> NDArray[np.uint64]:
    """uint64 [N]: another number, almost surely, for other hashes, another trust in them, or another descriptor."""
    dim = points.vectors.shape[1]
    draw = np.random.default_rng(0).integers(1, 2**63, dim + 3, dtype=np.uint64) | np.uint64(1)
    out = points.phash * draw[dim] + points.mirror * draw[dim + 1]
    out += (points.hash_quality >= min_hash_quality).astype(np.uint64) * draw[dim + 2]
    for start in range(0, len(out), _ROWS):
        bits = np.ascontiguousarray(points.vectors[start : start + _ROWS], np.float32).view(np.uint32)
        out[start : start + _ROWS] += (bits.astype(np.uint64) * draw[:dim]).sum(axis=1, dtype=np.uint64)
    return out


def _across(left: NDArray[np.uint64], right: NDArray[np.uint64], fresh: Ints, all_rows: Ints) -> tuple[Ints, Ints]:
    """(pairs i < j, distance) of left codes of new rows and right codes of all."""
    i, j, distance = pairs_across(left[fresh], right[all_rows], MAX_RADIUS)
    a, b = fresh[i], all_rows[j]
    apart = a != b
    pairs = np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1)[apart]
    return pairs, distance[apart].astype(np.int64)


def _least(pairs: Ints, distance: Ints) -> tuple[Ints, Ints]:
    """Each pair once, at its least distance, sorted."""
    order = np.lexsort((distance, pairs[:, 1], pairs[:, 0]))
    pairs, distance = pairs[order], distance[order]
    first = np.ones(len(pairs), bool)
    first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[first], distance[first]


def _both(pairs: Ints, to: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """(pairs in the new rows, which of them have both ends); order of ids is kept, so i < j still."""
    moved = to[pairs]
    return moved, np.asarray((moved >= 0).all(axis=1), dtype=bool)


def _moved_lists(lists: Lists, to: Ints) -> Lists:
    row, near = to[lists.row], to[lists.near]
    here = (row >= 0) & (near >= 0)
    return Lists(row[here], near[here], lists.cosine[here])


def _moved_hashes(hashes: HashPairs, to: Ints) -> HashPairs:
    near, has = _both(hashes.near, to)
    mirrored, has_too = _both(hashes.mirrored, to)
    return HashPairs(
        np.zeros(0, np.int64),
        near[has],
        hashes.near_distance[has],
        mirrored[has_too],
        hashes.mirrored_distance[has_too],
    )


def _moved(compared: Compared, to: Ints) -> Compared:
    if not len(compared.pairs):
        return NONE_COMPARED
    pairs, has = _both(compared.pairs, to)
    return Compared(pairs[has], compared.agreed[has], compared.distance[has])
