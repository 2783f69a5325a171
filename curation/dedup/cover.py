"""From evidence to decisions: each picture is kept, or stands under a kept one that it is joined to by an edge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curation.dedup.carried import Carried, Known, carry, fingerprints, more_hash_pairs, recall_to
from curation.dedup.cells import Found, all_lists, lists_in_cells, more_lists
from curation.dedup.evidence import (
    NONE_COMPARED,
    Bounds,
    Edges,
    HashPairs,
    Near,
    Pictures,
    Thumbnails,
    find_hash_pairs,
    leaders,
    weigh,
)
from curation.dedup.features import mean_row, pair_cosines, unit_rows
from curation.dedup.hamming import Search
from curation.dedup.percolation import Percolation, examine
from curation.dedup.representatives import representatives


@dataclass(frozen=True)
class Cover:
    """Edges over all rows, and for each row its representative (itself when kept) and the edge that leads there."""

    edges: Edges
    representative: NDArray[np.int64]
    edge: NDArray[np.int64]  # index into edges, -1 for kept rows
    guard: Percolation
    carried: Carried  # for a later run on more pictures


def cover_copies(
    pictures: Pictures,
    quality: NDArray[np.float64],
    bounds: Bounds,
    thumbnails: Thumbnails | None,
    search: Search | None = None,
    before: Carried | None = None,
) -> Cover:
    """Edges among the leaders, their greedy cover, and both carried over to the rows that follow a leader.

    pictures: sorted by id. quality: float [N], higher is better, no two equal. search: as hamming_pairs takes it.
    before: what an earlier run with the same bounds left; its centroids are used, and what it compared is not compared
    again. Raises ValueError when hashes merge by chance.
    """
    leader = leaders(pictures, quality, bounds.min_hash_quality)
    lead = np.flatnonzero(leader == np.arange(len(leader)))
    points = pictures.take(lead)
    prints = fingerprints(points, bounds.min_hash_quality)
    known = None if before is None else recall_to(points.image_ids, prints, before, bounds)
    if known is None:
        hashes = find_hash_pairs(points, bounds.min_hash_quality, search)
    else:
        hashes = more_hash_pairs(points, known, bounds.min_hash_quality)
    guard = _guard(points, hashes, bounds)
    edges, carried = _edges(points, prints, hashes, bounds, thumbnails, known)
    _, chosen = representatives(edges.pairs, quality[lead])
    position = np.zeros(len(leader), np.int64)
    position[lead] = np.arange(len(lead))
    representative = lead[chosen[position[leader]]]
    whole = replace(edges, pairs=lead[edges.pairs])
    return _carry_over(whole, leader, representative, guard, carried)


def _edges(
    points: Pictures,
    prints: NDArray[np.uint64],
    hashes: HashPairs,
    bounds: Bounds,
    thumbnails: Thumbnails | None,
    known: Known | None,
) -> tuple[Edges, Carried]:
    """Every edge that the evidence carries; without `thumbnails` nothing is confirmed by the pictures themselves.

    The descriptors of the points are brought to unit length where they are: they are the largest thing in memory.
    """
    mean = known.mean if known is not None else mean_row(points.vectors) if bounds.centre else None
    unit = unit_rows(points.vectors, mean=mean, in_place=True)
    loose = bounds.min_cosine if thumbnails is None else bounds.candidate_cosine
    if known is not None and known.threshold != loose:
        raise ValueError(
            f"the earlier run looked for descriptors down to a cosine of {known.threshold}, this one to {loose}: give "
            f"both the pictures, or neither"
        )
    found = _near(unit, loose, bounds, known)
    pairs = found.lists.pairs(len(unit))
    near = Near(pairs, pair_cosines(unit, pairs[:, 0], pairs[:, 1]))
    earlier = NONE_COMPARED if known is None else known.compared
    edges, compared = weigh(unit, points.image_ids, hashes, near, bounds, thumbnails, earlier)
    return replace(edges, search=found.search), carry(
        points.image_ids, prints, found, hashes, compared, mean, bounds, loose
    )


def _near(unit: NDArray[np.float32], loose: float, bounds: Bounds, known: Known | None) -> Found:
    """Of each descriptor the nearest: among all up to `exact_rows` rows, above that in cells, or as it was done."""
    k = bounds.candidates_per_row
    if known is not None:
        return more_lists(unit, known.earlier, k, loose, min_recall=bounds.min_recall)
    if len(unit) <= bounds.exact_rows:
        return all_lists(unit, k, loose)
    return lists_in_cells(unit, k, loose, min_recall=bounds.min_recall)


def _carry_over(
    edges: Edges,
    leader: NDArray[np.int64],
    representative: NDArray[np.int64],
    guard: Percolation,
    carried: Carried,
) -> Cover:
    """Edges of the rows that follow a leader: to it (equal hashes), and to its representative by the leader's edge."""
    index = {(int(a), int(b)): k for k, (a, b) in enumerate(edges.pairs)}
    pairs, kind, distance = edges.pairs.tolist(), edges.kind.tolist(), edges.distance.tolist()
    edge = np.full(len(leader), -1)

    def join(row: int, other: int, how: int, far: float) -> int:
        pair = (min(row, other), max(row, other))
        if pair not in index:
            index[pair] = len(pairs)
            pairs.append(list(pair))
            kind.append(how)
            distance.append(far)
        return index[pair]

    for row in np.flatnonzero(representative != np.arange(len(leader))).tolist():
        first, last = int(leader[row]), int(representative[row])
        if first != row:
            edge[row] = join(row, first, 0, 0.0)
        if last != first:
            via = index[min(first, last), max(first, last)]
            edge[row] = join(row, last, kind[via], distance[via])
    whole = replace(
        edges,
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        kind=np.array(kind, dtype=np.int64),
        distance=np.array(distance, dtype=np.float64),
    )
    return Cover(whole, representative, edge, guard, carried)


def _guard(points: Pictures, hashes: HashPairs, bounds: Bounds) -> Percolation:
    where = np.full(len(points.phash), -1)
    where[hashes.trusted] = np.arange(len(hashes.trusted))
    guard = examine(
        points.phash[hashes.trusted],
        where[hashes.near],
        hashes.near_distance,
        radius=bounds.hash_radius,
        max_chain_hops=bounds.max_chain_hops,
    )
    if guard.refusal is not None:
        raise ValueError(f"dedup refuses to merge by hash: {guard.refusal}")
    return guard
