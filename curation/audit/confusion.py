"""What an attribute's bins are worth: a confusion matrix from labels, and the true shares that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.audit.intervals import wilson

DRAWS = 4000
PRIOR = 0.5  # Jeffreys: a bin that was never seen is not impossible


@dataclass(frozen=True)
class Share:
    """The share of a bin: as measured, corrected for the errors of the measurement, and the 95 % interval of that."""

    bin: str
    measured: float
    corrected: float
    low: float
    high: float


def matrix(predicted: Sequence[str], true: Sequence[str], bins: Sequence[str]) -> NDArray[np.int64]:
    """Counts [P,P]: row the bin that was measured, column the one that a person saw. Raises ValueError for others."""
    place = {name: index for index, name in enumerate(bins)}
    strangers = sorted({*predicted, *true} - place.keys())
    if strangers:
        raise ValueError(f"the labels name {strangers}, which are none of the bins {list(bins)}")
    counts = np.zeros((len(bins), len(bins)), np.int64)
    for row, column in zip(predicted, true, strict=True):
        counts[place[row], place[column]] += 1
    return counts


def precisions(counts: NDArray[np.int64], bins: Sequence[str]) -> dict[str, tuple[int, float | None, float, float]]:
    """Of each measured bin: labels, share that a person confirms (None without labels), its 95 % interval."""
    found = {}
    for index, name in enumerate(bins):
        n, right = int(counts[index].sum()), int(counts[index, index])
        found[name] = (n, right / n if n else None, *wilson(right, n))
    return found


def corrected(
    counts: NDArray[np.int64], population: Mapping[str, int], bins: Sequence[str], *, seed: int = 0
) -> list[Share]:
    """True shares of the bins in a population of which the measured counts are known.

    Labels are drawn by measured bin, so P(true | measured) is what they estimate, whatever the population. Intervals
    are those of the Dirichlet posterior under Jeffreys' prior. Raises ValueError for a populated bin without labels.
    """
    size = np.array([population.get(name, 0) for name in bins], np.float64)
    labelled = counts.sum(axis=1)
    blind = [name for name, n, m in zip(bins, size, labelled, strict=True) if n and not m]
    if blind:
        raise ValueError(f"no picture of {blind} was labelled, so their true bins are unknown; label some of each")
    weight = size / size.sum() if size.sum() else size
    rows = np.flatnonzero(labelled)
    estimate = (weight[rows, None] * counts[rows] / labelled[rows, None]).sum(axis=0)
    rng = np.random.default_rng(seed)
    draws = sum(weight[row] * rng.dirichlet(counts[row] + PRIOR, size=DRAWS) for row in rows)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    return [
        Share(name, float(w), float(e), float(min(a, e)), float(max(b, e)))
        for name, w, e, a, b in zip(bins, weight, estimate, low, high, strict=True)
    ]
