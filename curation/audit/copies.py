"""What makes a picture a copy of another, in words: a distance held against a bound says nothing to a reader."""

from __future__ import annotations

HASH_BITS = 64
PREFIX = "duplicate_"


def likeness(reason: str | None, value: float | None, threshold: float | None, other: str) -> str:
    """What a picture that was dropped as a duplicate is to `other`, the kept one that stands for it.

    reason, value, threshold: of a row of DEDUPED, so the value is a distance as in curation.tables.EDGES. Empty for
    every other reason.
    """
    if not (reason or "").startswith(PREFIX) or value is None or not other:
        return ""
    kind = str(reason).removeprefix(PREFIX)
    if kind in ("phash", "mirror"):
        same = f"copy of {other}" if kind == "phash" else f"mirror image of {other}"
        return f"{same}, {value:.0f} of {HASH_BITS} hash bits differ"
    bound = "" if threshold is None else f", merged up to {threshold:.3g}"
    if kind == "geometry":
        return f"same picture as {other}, {value:.2g} of its texture differs{bound}"
    return f"near {other}, 1 - cosine {value:.2g}{bound}"
