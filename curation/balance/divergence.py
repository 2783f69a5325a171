"""How uneven a distribution is, in two numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def gini(counts: ArrayLike) -> float:
    """Gini coefficient of non-negative counts: 0 when all are equal, towards 1 when one holds everything.

    Raises ValueError for negative counts. No counts, or none above zero, are perfectly even.
    """
    x = np.sort(np.asarray(counts, dtype=np.float64))
    if len(x) and x[0] < 0:
        raise ValueError(f"counts must not be negative, the smallest is {x[0]}")
    if x.sum() == 0:
        return 0.0
    rank = np.arange(1, len(x) + 1)
    return float(2 * (rank * x).sum() / (len(x) * x.sum()) - (len(x) + 1) / len(x))


def kl_to_uniform(counts: ArrayLike) -> float:
    """Kullback-Leibler divergence in nats from the distribution of `counts` to the uniform one over as many bins."""
    x = np.asarray(counts, dtype=np.float64)
    if x.sum() == 0:
        return 0.0
    p = x[x > 0] / x.sum()
    return float((p * np.log(p * len(x))).sum())
