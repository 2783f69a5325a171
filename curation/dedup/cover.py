"""From evidence to decisions: each picture is kept, or stands under a kept one that it is joined to by an edge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curation.dedup.evidence import Bounds, Edges, HashPairs, Pictures, Thumbnails, find_edges, hash_pairs, leaders
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


def cover_copies(
    pictures: Pictures,
    quality: NDArray[np.float64],
    bounds: Bounds,
    thumbnails: Thumbnails | None,
    search: Search | None = None,
) -> Cover:
    """Edges among the leaders, their greedy cover, and both carried over to the rows that follow a leader.

    quality: float [N], higher is better, no two equal. search: as hamming_pairs takes it. Raises ValueError when hashes
    merge by chance.
    """
    leader = leaders(pictures, quality, bounds.min_hash_quality)
    lead = np.flatnonzero(leader == np.arange(len(leader)))
    points = pictures.take(lead)
    hashes = hash_pairs(points, bounds.min_hash_quality, search)
    guard = _guard(points, hashes, bounds)
    edges = find_edges(points, hashes, bounds, thumbnails)
    _, chosen = representatives(edges.pairs, quality[lead])
    position = np.zeros(len(leader), np.int64)
    position[lead] = np.arange(len(lead))
    representative = lead[chosen[position[leader]]]
    known = replace(edges, pairs=lead[edges.pairs])
    return _carry_over(known, leader, representative, guard)


def _carry_over(
    edges: Edges, leader: NDArray[np.int64], representative: NDArray[np.int64], guard: Percolation
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
    return Cover(whole, representative, edge, guard)


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
