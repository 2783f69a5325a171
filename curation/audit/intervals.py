"""Intervals of a proportion measured on a sample."""

from __future__ import annotations

import math


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of successes / n; z = 1.96 is two-sided 95 %. With n = 0, (0, 1): nothing is known.

    Wilson (1927), J. Am. Stat. Assoc. 22: the p with |p^ - p| <= z sqrt(p (1 - p) / n). Unlike p^ +- z s it stays in
    [0, 1] and is honest near 0 and 1, where precision and recall live. Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: successes must be between 0 and n")
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == n else (middle + spread) / scale
    return low, high


def clopper_pearson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of successes / n by inverting the binomial test; n = 0 gives (0, 1).

    Clopper and Pearson (1934), Biometrika 26. Counts may be fractions: weighted samples have an effective size. Raises
    ValueError unless 0 <= successes <= n and 0 < confidence < 1.
    """
    from scipy.stats import beta

    if not 0 <= successes <= n or not 0 < confidence < 1:
        raise ValueError(f"{successes} successes of {n} at confidence {confidence}: out of range")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, n - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return low, high


def lower_bound(share: float, n: float, error: float, method: str) -> float:
    """The one-sided lower bound of a share measured on n (effective) labels: below the truth with chance `error`.

    method: wilson or clopper-pearson. Raises ValueError for another.
    """
    from scipy.stats import norm

    if method == "clopper-pearson":
        return clopper_pearson(min(share, 1.0) * n, n, 1 - 2 * error)[0]
    if method != "wilson":
        raise ValueError(f"there is no interval {method!r}; choose wilson or clopper-pearson")
    if n == 0 or share == 0:
        return 0.0
    z = float(norm.ppf(1 - error))
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (share + z * z / (2 * n) - spread) / (1 + z * z / n)
