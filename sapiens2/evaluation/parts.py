"""A test set measured part by part, so that what was measured before a kill need not be measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sapiens2.engine import storage
from sapiens2.evaluation.compared import Compared, Item
from sapiens2.evaluation.remains import ENDS, keep, kept

LEAST = 64
"""Samples of a part at least; it is of whole batches, so that each batch is what it would be without parts."""


def measured(
    whole: Compared,
    items: Callable[[range], Iterable[Item]],
    total: int,
    *,
    batch: int,
    state: str = "",
    said: Callable[[int, int], None] | None = None,
) -> Compared:
    """`whole` with all that a test set of `total` samples has to say.

    items: samples at these places with their answers. state: a folder or URI of this very evaluation; parts that lie
    there are taken as they are, and every part but an only one is left there. said: is told how many samples are done,
    and of how many.
    """
    length = batch * -(-LEAST // batch)
    for start in range(0, total, length):
        places = range(start, min(start + length, total))
        uri = storage.join(state, f"part_{start}{ENDS}") if state and total > length else ""
        part = _kept(uri, len(places)) if uri else None
        if part is None:
            part = whole.part(start)
            for item in items(places):
                part.take([item])
                if said:
                    said(start + part.count, total)
            if uri:
                keep(part, uri)
        elif said:
            said(start + part.count, total)
        whole.absorb(part)
    return whole


def _kept(uri: str, count: int) -> Compared | None:
    """What lies there, if it is of so many samples."""
    return kept(uri, Compared, lambda part: part.count == count)
