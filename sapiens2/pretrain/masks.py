"""Which tokens of a global view the student sees: rectangles for some images, single tokens for the others.

Every mask hides exactly the same number of tokens, so that batches stay rectangular.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SMALLEST_BLOCK = 16 / 3072  # of the tokens: 16 at 1024 x 768 (BEiT)
MOST_SLENDER = 0.3  # height to width of a rectangle, and its inverse

Indices = NDArray[np.int64]


def kept_tokens(rng: np.random.Generator, grid: tuple[int, int], masked: int, block_share: float) -> Indices:
    """Ascending indices of the visible tokens of one view; exactly `masked` of the grid are hidden."""
    blockwise = rng.random() < block_share
    hidden = hide_blocks(rng, grid, masked) if blockwise else hide_singles(rng, grid, masked)
    return np.flatnonzero(~hidden.ravel())


def hide_singles(rng: np.random.Generator, grid: tuple[int, int], masked: int) -> NDArray[np.bool_]:
    """Any `masked` tokens, all equally likely; bool [h, w]."""
    hidden = np.zeros(grid[0] * grid[1], dtype=bool)
    hidden[rng.permutation(hidden.size)[:masked]] = True
    return hidden.reshape(grid)


def hide_blocks(rng: np.random.Generator, grid: tuple[int, int], masked: int) -> NDArray[np.bool_]:
    """Rectangles until enough is hidden; any surplus of the last one is uncovered again; bool [h, w]."""
    h, w = grid
    smallest = max(1, round(SMALLEST_BLOCK * h * w))
    hidden = np.zeros(grid, dtype=bool)
    while (missing := masked - int(hidden.sum())) > 0:
        rows, columns = _rectangle(rng, grid, rng.uniform(smallest, max(smallest, missing)))
        before = hidden.copy()
        hidden[rows, columns] = True
        surplus = int(hidden.sum()) - masked
        if surplus > 0:
            fresh = np.flatnonzero((hidden & ~before).ravel())
            hidden.ravel()[rng.permutation(fresh)[:surplus]] = False
    return hidden


def _rectangle(rng: np.random.Generator, grid: tuple[int, int], area: float) -> tuple[slice, slice]:
    """A rectangle of about `area` tokens with a log-uniform aspect, somewhere in the grid."""
    aspect = math.exp(rng.uniform(math.log(MOST_SLENDER), -math.log(MOST_SLENDER)))
    height = min(grid[0], max(1, round(math.sqrt(area * aspect))))
    width = min(grid[1], max(1, round(math.sqrt(area / aspect))))
    top = int(rng.integers(grid[0] - height + 1))
    left = int(rng.integers(grid[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)
