"""Whom a filter drops: the rate of every group beside that of all others, and which differ by more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.audit.intervals import wilson

FLAG_RATIO = 1.25


@dataclass(frozen=True)
class Exclusion:
    """A group of an axis. `ratio` is its drop rate over that of all others; None when those lose nothing."""

    axis: str
    group: str
    pictures: int
    dropped: int
    rate: float
    low: float  # 95 % interval of rate
    high: float
    ratio: float | None
    flagged: bool


def exclusions(
    groups: Mapping[str, Sequence[str]], dropped: NDArray[np.bool_], *, flag_ratio: float = FLAG_RATIO
) -> list[Exclusion]:
    """Every group of every axis, the most excluded first. `groups`: axis -> group of each picture, [N].

    Flagged: at least `flag_ratio` times the drop rate of the others, and the interval lies above that of the others.
    """
    found = []
    for axis, names in groups.items():
        own = np.asarray(names, dtype=str)
        for name in np.unique(own):
            inside = own == name
            n, lost = int(inside.sum()), int(dropped[inside].sum())
            outside = dropped[~inside] if n < len(own) else dropped
            others = float(outside.mean())
            low, high = wilson(lost, n)
            ratio = lost / n / others if others else None
            flagged = (ratio is None or ratio >= flag_ratio) and low > wilson(int(outside.sum()), len(outside))[1]
            found.append(Exclusion(axis, str(name), n, lost, lost / n, low, high, ratio, flagged))
    return sorted(found, key=lambda e: (e.axis, -e.rate, e.group))
