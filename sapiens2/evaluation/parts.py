"""A test set measured part by part, so that what was measured before a kill need not be measured again."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from collections.abc import Callable, Iterable
from typing import Any

from sapiens2.engine import storage
from sapiens2.evaluation.compared import Compared, Item

LEAST = 64
"""Samples of a part at least; it is of whole batches, so that each batch is what it would be without parts."""
_OURS = {
    "sapiens2.evaluation.compared": {"Compared", "Item"},
    "sapiens2.evaluation.measure": {
        f"{task}Tally" for task in ("Pose", "Segmentation", "Normal", "Pointmap", "Albedo")
    },
    "sapiens2.evaluation.medians": {"Medians"},
    "sapiens2.evaluation.oks": {"Detections", "People"},
    "sapiens2.tasks.sample": {"Sample"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
}
_log = logging.getLogger(__name__)


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
        uri = storage.join(state, f"part_{start}.measured") if state and total > length else ""
        part = _kept(uri, len(places)) if uri else None
        if part is None:
            part = whole.part(start)
            for item in items(places):
                part.take([item])
                if said:
                    said(start + part.count, total)
            if uri:
                _keep(part, uri)
        elif said:
            said(start + part.count, total)
        whole.absorb(part)
    return whole


def _keep(part: Compared, uri: str) -> None:
    data = pickle.dumps(part, protocol=5)
    storage.write_bytes(uri, hashlib.sha256(data).digest() + data)


def _kept(uri: str, count: int) -> Compared | None:
    """What lies there, if it is whole and of so many samples."""
    try:
        kept = storage.read_bytes(uri)
    except FileNotFoundError:
        return None
    data = kept[32:]
    if hashlib.sha256(data).digest() == kept[:32]:
        try:
            part = _Ours(io.BytesIO(data)).load()
        except Exception as error:  # whatever an older version has written
            _log.warning("measuring a part again: %s cannot be read (%s)", uri, error)
            return None
        if isinstance(part, Compared) and part.count == count:
            return part
    _log.warning("measuring a part again: %s is not what was written", uri)
    return None


class _Ours(pickle.Unpickler):
    """Reads measures and arrays, and refuses everything else: others may write where a root is shared."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _OURS.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an evaluation")
        return super().find_class(module, name)
