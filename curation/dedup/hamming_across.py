"""Pairs of near codes between a few and many: the few are looked up in the tables of the many.

The tables are those of curation.dedup.hamming, so nothing is missed; but no two of the many are compared, which is what
makes a reference set, or one hundredth of new pictures, cheap.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from curation.dedup.hamming import Codes, Ints, Pairs, Table, checked, plan_blocks, tables_of

_CHUNK = 1 << 21  # candidates compared at once: bounds memory, not the result


def pairs_across(few: Codes, many: Codes, radius: int) -> Pairs:
    """Every (i, j, distance) with distance(few[i], many[j]) <= `radius`, sorted by i then j.

    few uint64 [M], many uint64 [N]; codes may repeat. Raises ValueError as hamming_pairs does.
    """
    checked(few, radius)
    checked(many, radius)
    i, j = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    if len(few) and len(many):
        # A pair of equal codes agrees on every block, so radius 0 is a search at radius 1 of which little is kept.
        blocks = plan_blocks(len(many), max(radius, 1))
        for table in tables_of(blocks, max(radius, 1)):
            for a, b in _found(table, few, many, radius):
                i.append(a)
                j.append(b)
    rows, others = np.concatenate(i), np.concatenate(j)
    order = np.lexsort((others, rows))
    rows, others = rows[order], others[order]
    return rows, others, np.bitwise_count(few[rows] ^ many[others])


def _found(table: Table, few: Codes, many: Codes, radius: int) -> Iterator[tuple[Ints, Ints]]:
    """The pairs that this table is the first to find."""
    shift, permuted = np.uint64(table.key_shift), table.permute(many)
    sorted_by = np.argsort(permuted)
    keys = permuted[sorted_by] >> shift
    wanted = table.permute(few) >> shift
    start, end = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
    total = np.concatenate([[0], np.cumsum(end - start)])
    first = 0
    while first < len(few):
        last = max(first + 1, int(np.searchsorted(total, total[first] + _CHUNK, "right")) - 1)
        counts = (end - start)[first:last]
        row = np.repeat(np.arange(first, last), counts)
        within = np.arange(len(row)) - np.repeat(total[first:last] - total[first], counts)
        other = sorted_by[start[row] + within]
        difference = few[row] ^ many[other]
        near = (np.bitwise_count(difference) <= radius) & table.finds_first(difference)
        yield row[near], other[near]
        first = last
