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
