"""Which arm is better, and how sure one can be: paired differences over scenes and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapiens2.evaluation.ablation.runner import Outcome

Array = np.ndarray
ROUNDS = 1000
LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class Difference:
    """How much larger an arm's error is than the reference's: below 0 the arm is better. 95 % interval."""

    probe: str
    arm: str
    reference: str
    value: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        """better or worse when the interval lies beside 0, else even."""
        return "better" if self.high < 0 else "worse" if self.low > 0 else "even"

    def text(self) -> str:
        """Value and interval."""
        return f"{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


def differences(outcomes: Sequence[Outcome], reference: str, *, seed: int = 0) -> list[Difference]:
    """Every arm against the reference, by probe, over the seeds that both have.

    Both levels are resampled, seeds and within them scenes; an arm and the reference share seeds and scenes, so what
    makes a scene hard or a seed lucky cancels.
    """
    found = {(o.arm, o.seed): o for o in outcomes}
    arms = list(dict.fromkeys(o.arm for o in outcomes if o.arm != reference))
    result = []
    for arm in arms:
        seeds = [s for name, s in found if name == arm and (reference, s) in found]
        for probe in found[arm, seeds[0]].errors if seeds else ():
            pairs = [(found[arm, s].errors[probe], found[reference, s].errors[probe]) for s in seeds]
            gaps = np.stack([ours - theirs for ours, theirs in pairs])  # [seeds, scenes]
            result.append(Difference(probe, arm, reference, *interval(gaps, seed), seeds=len(seeds)))
    return result


def interval(gaps: Array, seed: int = 0) -> tuple[float, float, float]:
    """Mean of paired gaps [seeds, scenes] and its 95 % interval; scenes where a gap is NaN are left out."""
    gaps = gaps[:, np.isfinite(gaps).all(0)]
    if not gaps.size:
        return (float("nan"),) * 3
    rng = np.random.default_rng(seed)
    seeds = rng.integers(len(gaps), size=(ROUNDS, len(gaps)))
    scenes = rng.integers(gaps.shape[1], size=(ROUNDS, gaps.shape[1]))
    means = np.array([gaps[np.ix_(s, c)].mean() for s, c in zip(seeds, scenes)])
    low, high = np.percentile(means, LEVEL)
    return float(gaps.mean()), float(low), float(high)
