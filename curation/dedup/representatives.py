"""Which of a set of duplicates stays: a greedy best-first cover, not one per component.

In a chain of near-duplicates (a burst, a turning catalogue figure) the ends look nothing alike. Keeping one picture per
connected component drops pictures that nothing kept resembles; a greedy cover keeps a picture for each one it drops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]


def representatives(edges: ArrayLike, quality: ArrayLike) -> tuple[NDArray[np.bool_], Ints]:
    """(keep bool [N], representative int64 [N]) from edges int [E, 2] and quality float [N], best first, ties by index.

    Kept rows stand for themselves; a dropped row's representative is its best kept neighbour. Every dropped row has a
    kept neighbour, no two kept rows share an edge. Self edges and repeated edges change nothing. Raises ValueError for
    edges out of range or a quality that is not a number.
    """
    worth = np.asarray(quality, dtype=np.float64)
    pairs = checked_edges(edges, len(worth))
    if np.isnan(worth).any():
        raise ValueError(f"quality of row {int(np.argmax(np.isnan(worth)))} is not a number; give every row one")
    starts, neighbours = adjacency(pairs, len(worth))
    representative = np.arange(len(worth))
    decided = np.diff(starts) == 0  # rows without neighbours stay
    for row in np.lexsort((np.arange(len(worth)), -worth)):
        if decided[row]:
            continue
        around = neighbours[starts[row] : starts[row + 1]]
        # Those already decided have a better representative; none of them is kept, or `row` would be decided too.
        fresh = around[~decided[around]]
        representative[fresh] = row
        decided[fresh] = True
        decided[row] = True
    return representative == np.arange(len(worth)), representative


def groups(edges: ArrayLike, n: int) -> Ints:
    """The connected component of each of `n` rows, named by its smallest row: int64 [n]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = checked_edges(edges, n)
    if n == 0:
        return np.zeros(0, np.int64)
    graph = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return first[label].astype(np.int64)


def adjacency(edges: Ints, n: int) -> tuple[Ints, Ints]:
    """(starts [n + 1], neighbours): the neighbours of row k are neighbours[starts[k]:starts[k + 1]]; no self edges."""
    proper = edges[edges[:, 0] != edges[:, 1]]
    source = np.concatenate([proper[:, 0], proper[:, 1]])
    target = np.concatenate([proper[:, 1], proper[:, 0]])
    order = np.argsort(source, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=n))]).astype(np.int64)
    return starts, target[order]


def checked_edges(edges: ArrayLike, n: int) -> Ints:
    """Edges as int64 [E, 2]; ValueError when they have another shape or name a row outside 0..n - 1."""
    pairs = np.asarray(edges, dtype=np.int64)
    if pairs.size == 0:
        return np.zeros((0, 2), np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"edges must have the shape [E, 2], got {list(pairs.shape)}")
    if pairs.min() < 0 or pairs.max() >= n:
        raise ValueError(f"edges name rows {pairs.min()}..{pairs.max()}, but there are {n} rows")
    return pairs
