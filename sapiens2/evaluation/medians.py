"""The exact median of the pixels of many pictures, without holding them.

Values go to a temporary file; in memory stays a histogram of each picture. The bin of the median is read off the sum of
the histograms, and only that bin's values are read again. Resamples, of which there are hundreds, take the histograms
alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray
PER_UNIT = 64  # bins of a unit: an interpolated median is off by less than one of them
_CHUNK = 1 << 22  # values read at a time


class Medians:
    """Values of pictures, each in [0, `top`], added one picture at a time."""

    def __init__(self, top: float) -> None:
        self.bins = int(np.ceil(top * PER_UNIT)) + 1
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this object)
        self._rows: list[Array] = []
        self._stacked: Array | None = None

    def add(self, values: Array) -> None:
        """The values [N] of the next picture; kept in 32 bits."""
        kept = np.ascontiguousarray(values, np.float32)
        self._file.write(kept.tobytes())
        self._rows.append(np.bincount(self._bin(kept), minlength=self.bins).astype(np.uint32))
        self._stacked = None

    def extend(self, later: Medians) -> None:
        """All pictures of another one, after those that are here."""
        for values, _ in later._read():
            self._file.write(values.tobytes())
        self._rows += later._rows
        self._stacked = None

    def __getstate__(self) -> dict[str, Any]:
        return {"bins": self.bins, "rows": self._rows, "values": [values for values, _ in self._read()]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.bins, self._rows, self._stacked = state["bins"], state["rows"], None
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this object)
        for values in state["values"]:
            self._file.write(values.tobytes())

    def _bin(self, values: Array) -> Array:
        return np.minimum((values * np.float32(PER_UNIT)).astype(np.int64), self.bins - 1)

    def exact(self) -> float:
        """The median of all values; NaN without any."""
        if not self._rows:
            return float("nan")
        below = np.cumsum(np.sum(self._rows, axis=0, dtype=np.int64))
        count = int(below[-1])
        if not count:
            return float("nan")
        ranks = np.array([(count - 1) // 2, count // 2])
        first, last = np.searchsorted(below, ranks, side="right")
        found = np.sort(np.concatenate([v[(b >= first) & (b <= last)] for v, b in self._read()]))
        start = int(below[first - 1]) if first else 0
        return float(found[ranks - start].astype(np.float64).mean())

    def _read(self) -> Iterator[tuple[Array, Array]]:
        """All values and their bins, a chunk at a time."""
        self._file.seek(0)
        while data := self._file.read(4 * _CHUNK):
            values = np.frombuffer(data, np.float32)
            yield values, self._bin(values)
        self._file.seek(0, 2)

    def near(self, index: Array) -> float:
        """The median of the pictures with these indices [n], which may repeat, linear in its bin; NaN without any."""
        if self._stacked is None:
            self._stacked = np.stack(self._rows).astype(np.float32)
        drawn = np.bincount(index, minlength=len(self._rows)).astype(np.float32)
        below = np.cumsum(drawn @ self._stacked, dtype=np.float64)
        half = below[-1] / 2
        if not half:
            return float("nan")
        k = int(np.searchsorted(below, half, side="left"))
        before = below[k - 1] if k else 0.0
        return float((k + (half - before) / (below[k] - before)) / PER_UNIT)
