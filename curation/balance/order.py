"""Water-filling down a tree, as an order of its rows: the first t of them are the even allocation of t places.

Every node hands its places to its children in turn, one each, until a child has no more rows; so does each child. Going
up from the leaves, the order of a node is the round robin of the orders of its children. The first t rows of the root
are then the exact integer water level for t, at every node at once and for every t.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curation.balance.hierarchy import Tree

Ints = NDArray[np.int64]


def filling_order(tree: Tree, quality: NDArray[np.float64], seed: int) -> Ints:
    """The rows in the order in which they are taken, int64 [N]: best quality first within a leaf, ties by index.

    Which child comes first in a turn is drawn once from the seed.
    """
    n = len(tree.leaf)
    generator = np.random.default_rng(seed)
    turn = rank_within(tree.leaf, np.lexsort((np.arange(n), -quality)))
    cluster = tree.leaf
    for level, size in enumerate(tree.sizes):
        parent = tree.parents[level][cluster] if level < len(tree.parents) else np.zeros(n, np.int64)
        lot = generator.permutation(size)[cluster]
        turn = rank_within(parent, np.lexsort((lot, turn)))
        cluster = parent
    order = np.empty(n, np.int64)
    order[turn] = np.arange(n)
    return order


def rank_within(group: Ints, order: Ints) -> Ints:
    """The place of each row among the rows of its group, when all rows are visited in `order`: 0, 1, ..."""
    grouped = order[np.argsort(group[order], kind="stable")]
    sizes = np.bincount(group[grouped]) if len(group) else np.zeros(0, np.int64)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(group), np.int64)
    rank[grouped] = np.arange(len(group)) - np.repeat(starts, sizes)
    return rank
