"""Near rows among very many by an exact FAISS index on a GPU, where there is one that works.

For comparisons of many with all: up to dedup.exact_rows pictures, and the brute-force sample that a recall is measured
on. Cells are too small for it. The index only says who may be near: cosines are computed again by who asks, so a row's
list is the one that the same comparison on the CPU gives.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Unit = NDArray[np.float32]  # [N, D], rows of unit length or zero
WORTH = 1 << 28  # comparisons below which moving the rows to the GPU would cost more than it saves
SHARD = 1 << 22  # rows on the GPU at a time: 8 GB of 512 numbers; a multiple of the tiles of near_lists
_ADDED, _QUERIES = 65_536, 4096  # rows at a time: bounds memory
_PROBE_SECONDS = 180
_PROBE = """
import faiss, numpy
x = numpy.eye(8, dtype="float32")
index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), 8)
index.add(x)
assert (index.search(x, 1)[1][:, 0] == numpy.arange(8)).all()
"""


@lru_cache(maxsize=1)
def usable() -> bool:
    """Whether FAISS sees a GPU and can search on it. Tried in a process of its own: an unfit build ends its process."""
    import faiss

    if not getattr(faiss, "get_num_gpus", int)():
        return False
    try:
        tried = subprocess.run([sys.executable, "-c", _PROBE], timeout=_PROBE_SECONDS, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        return False
    return tried.returncode == 0


def gpu_index(dim: int) -> Any:
    """An empty exact index of inner products on the first GPU."""
    import faiss

    return faiss.GpuIndexFlatIP(_resources(), dim)


@lru_cache(maxsize=1)
def _resources() -> Any:
    import faiss

    return faiss.StandardGpuResources()


def search(
    unit: Unit, rows: Ints, others: Ints, limit: int, bound: float, index_of: Callable[[int], Any] = gpu_index
) -> Iterator[tuple[Ints, Ints, Ints, Ints]]:
    """(row, near, crowded, shard), block by block: pairs with an inner product of at least `bound`, itself left out.

    rows and others are rows of `unit`; a shard is a part of the others. A row with more than `limit` of a shard is
    crowded there, and not among the pairs: which of many equals an index names is no matter of the rows alone.
    index_of: makes the index, by dimension.
    """
    for first in range(0, len(others), SHARD):
        shard = others[first : first + SHARD]
        index = index_of(unit.shape[1])
        for start in range(0, len(shard), _ADDED):
            index.add(unit[shard[start : start + _ADDED]])
        wanted = min(limit + 2, len(shard))  # the row itself, and one that shows that there are too many
        for start in range(0, len(rows), _QUERIES):
            asking = rows[start : start + _QUERIES]
            product, at = index.search(unit[asking], wanted)
            near = shard[at]
            close = (product >= bound) & (near != asking[:, None])
            crowded = close.sum(axis=1) > limit
            close[crowded] = False
            row, column = np.nonzero(close)
            yield asking[row], near[row, column], asking[crowded], shard
