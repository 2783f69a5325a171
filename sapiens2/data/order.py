"""The order in which pictures are seen: a pure function of (seed, epoch, position).

Each epoch shuffles the row groups, then the rows within a window of them. The place in a run is therefore one integer,
and a reader that holds a window reads every group once per epoch. Export has shuffled the rows globally beforehand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

GROUPS, ROWS = 0, 1  # which of the two shuffles a generator serves


class EpochOrder:
    """Permutations of all rows, one per epoch, found without holding more than a window."""

    def __init__(self, group_sizes: Sequence[int], seed: int, window: int) -> None:
        """group_sizes: rows per row group; window: groups shuffled together. Raises ValueError without rows."""
        if not sum(group_sizes) or window < 1:
            raise ValueError("an order needs at least one row and a window of at least one group")
        self._sizes = np.asarray(group_sizes, np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self._seed, self._window = seed, window
        self._epoch: tuple[int, list[NDArray[np.int64]], list[int]] | None = None
        self._rows: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return int(self._sizes.sum())

    def index(self, position: int) -> int:
        """The global row of a position that counts on through the epochs."""
        epoch, place = divmod(position, len(self))
        windows, ends = self._windows(epoch)
        number = bisect_right(ends, place)
        start = ends[number - 1] if number else 0
        return int(self._shuffled(epoch, number, windows[number])[place - start])

    def position(self, row: int, epoch: int = 0) -> int:
        """Where an epoch comes to a global row: the inverse of `index`, by shuffling one window."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        windows, ends = self._windows(epoch)
        number = next(n for n, groups in enumerate(windows) if group in groups)
        place = int(np.flatnonzero(self._shuffled(epoch, number, windows[number]) == row)[0])
        return epoch * len(self) + (ends[number - 1] if number else 0) + place

    def _windows(self, epoch: int) -> tuple[list[NDArray[np.int64]], list[int]]:
        """The groups of each window of an epoch, and the position at which each window ends."""
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([self._seed, epoch, GROUPS]).permutation(len(self._sizes))
            windows = [order[i : i + self._window] for i in range(0, len(order), self._window)]
            ends = list(accumulate(int(self._sizes[groups].sum()) for groups in windows))
            self._epoch = (epoch, windows, ends)
        return self._epoch[1], self._epoch[2]

    def _shuffled(self, epoch: int, number: int, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of a window in their order."""
        key = (epoch, number)
        if self._rows is None or self._rows[0] != key:
            rows = np.concatenate([self._starts[g] + np.arange(self._sizes[g]) for g in groups])
            rng = np.random.default_rng([self._seed, epoch, ROWS, number])
            self._rows = (key, rng.permutation(rows))
        return self._rows[1]
