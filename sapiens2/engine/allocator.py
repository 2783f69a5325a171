"""What the C library does with memory that a step has freed."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
_LARGEST_KEPT = 32 << 20
"""Bytes; glibc takes no higher threshold."""
_NEVER = (1 << 31) - 1


@cache
def keep_freed_memory() -> bool:
    """From now on this process keeps what it frees for what it allocates next; whether its C library can be told so.

    A step of a small model on a CPU allocates and frees the same hundreds of tensors. glibc gives the larger ones back
    to the system, which hands them out again a page at a time and zeroed: a seventh of the step of a tiny model
    (benchmarks/results/tasks_learn.md). Tensors above 32 MiB are given back as before.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, _NEVER))
