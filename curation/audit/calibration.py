"""From labels to a threshold that keeps a promise: the share of good pictures among those it keeps, with a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.audit.intervals import lower_bound


@dataclass(frozen=True)
class Labels:
    """Labelled pictures: their score, whether a person found them good, and their stratum; `population` by stratum."""

    values: NDArray[np.float64]
    good: NDArray[np.bool_]
    stratum: NDArray[np.int64]
    population: Sequence[int]

    def weights(self) -> NDArray[np.float64]:
        """How many pictures of the pool each label stands for. Raises ValueError for a stratum without a label."""
        counts = np.bincount(self.stratum, minlength=len(self.population))
        empty = [i for i, (n, labelled) in enumerate(zip(self.population, counts, strict=True)) if n and not labelled]
        if empty:
            raise ValueError(
                f"no picture of the bands {empty} was labelled, so nothing is known of them; label at least one in each"
            )
        return np.array([self.population[s] / counts[s] for s in self.stratum])


@dataclass(frozen=True)
class Point:
    """What a threshold would do. Shares are of the pool, by the weights of the labels."""

    threshold: float
    precision: float  # good among those kept
    bound: float  # lower bound of precision, holding at all thresholds at once
    recall: float  # kept among the good
    kept: float  # kept among all
    labels: int  # labels among those kept
    effective: float  # Kish's effective number of them


def points(
    labels: Labels, thresholds: Sequence[float], kind: str, *, confidence: float = 0.95, method: str = "wilson"
) -> list[Point]:
    """Every threshold, strictest first. kind: min keeps value >= threshold, max keeps value <= threshold.

    The bounds hold together with `confidence` (Bonferroni over the thresholds), so that choosing among them is fair.
    Raises ValueError for another kind and for a stratum without a label.
    """
    if kind not in ("min", "max"):
        raise ValueError(f"a rule of kind {kind!r} has no threshold to calibrate")
    weights, error = labels.weights(), (1 - confidence) / max(1, len(thresholds))
    total, good = weights.sum(), (weights * labels.good).sum()
    found = []
    for threshold in sorted(thresholds, reverse=kind == "min"):
        kept = labels.values >= threshold if kind == "min" else labels.values <= threshold
        own = weights[kept]
        if not len(own):
            continue
        hits = float((own * labels.good[kept]).sum())
        precision, effective = hits / float(own.sum()), float(own.sum() ** 2 / (own**2).sum())
        bound = lower_bound(precision, effective, error, method)
        recall = hits / float(good) if good else 0.0
        found.append(Point(threshold, precision, bound, recall, float(own.sum() / total), int(kept.sum()), effective))
    return found


def choose(found: Sequence[Point], precision: float) -> Point | None:
    """The threshold that keeps most of the pool among those whose bound reaches the precision; None without one."""
    able = [point for point in found if point.bound >= precision]
    return max(able, key=lambda point: point.kept, default=None)
