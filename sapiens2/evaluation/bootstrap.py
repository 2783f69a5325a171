"""How sure a number is: resampling the images it was computed from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Statistic = Callable[[Array], dict[str, float]]
"""Metrics of the images with the given indices [n], which may repeat."""


@dataclass(frozen=True)
class Estimate:
    """A metric on all images and its 95 % percentile interval over resampled images; NaN where there is none."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 3) -> str:
        """`0.512 (0.480 to 0.544)`, or what of it is known."""
        if not math.isfinite(self.value):
            return "not measured"
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def bootstrap(statistic: Statistic, images: int, *, rounds: int, seed: int, level: float = 0.95) -> dict[str, Estimate]:
    """Estimates of every metric that `statistic` gives; images are drawn with replacement `rounds` times.

    A resample in which a metric is undefined (NaN) does not count for it. One image has no interval: all its resamples
    are alike. Raises ValueError without images.
    """
    if images < 1:
        raise ValueError("there are no images to evaluate; raise n_test or give a split that has some")
    values = statistic(np.arange(images))
    rng = np.random.default_rng(seed)
    draws = [statistic(rng.integers(0, images, images)) for _ in range(rounds if images > 1 else 0)]
    edges = (50 * (1 - level), 50 * (1 + level))
    out = {}
    for name, value in values.items():
        found = np.array([d[name] for d in draws], float)
        found = found[np.isfinite(found)]
        low, high = np.percentile(found, edges) if len(found) else (math.nan, math.nan)
        out[name] = Estimate(float(value), float(low), float(high))
    return out
