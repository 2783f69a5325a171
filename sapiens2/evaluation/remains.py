"""What a killed measurement leaves for the next one: written with its hash, read only when it is whole and ours."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

from sapiens2.engine import storage

ENDS = ".measured"
"""Of every name: a plan counts such files."""
_HASH_BYTES = 32
_OURS = {
    "sapiens2.evaluation.bootstrap": {"Estimate"},
    "sapiens2.evaluation.compared": {"Compared", "Item"},
    "sapiens2.evaluation.measure": {
        f"{task}Tally" for task in ("Pose", "Segmentation", "Normal", "Pointmap", "Albedo")
    },
    "sapiens2.evaluation.medians": {"Medians"},
    "sapiens2.evaluation.oks": {"Detections", "People"},
    "sapiens2.evaluation.probe": {"Fitted", "ProbeResult"},
    "sapiens2.evaluation.probe_parts": {"ProbePart"},
    "sapiens2.tasks.sample": {"Sample"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
}
_log = logging.getLogger(__name__)
Part = TypeVar("Part")


def keep(part: Any, uri: str) -> None:
    """Leave `part` at a path or URI."""
    data = pickle.dumps(part, protocol=5)
    storage.write_bytes(uri, hashlib.sha256(data).digest() + data)


def kept(uri: str, kind: type[Part], ours: Callable[[Part], bool]) -> Part | None:
    """What lies there; None, with a warning, if it is not whole, of another kind, or not `ours`."""
    try:
        found = storage.read_bytes(uri)
    except FileNotFoundError:
        return None
    data, why = found[_HASH_BYTES:], "is not what was written"
    if hashlib.sha256(data).digest() == found[:_HASH_BYTES]:
        try:
            part = _Ours(io.BytesIO(data)).load()
            if isinstance(part, kind) and ours(part):
                return part
            why = "comes of other settings, weights, pictures or code"
        except Exception as error:  # whatever an older version has written
            why = f"cannot be read ({error})"
    _log.warning("measuring a part again: %s %s", uri, why)
    return None


class _Ours(pickle.Unpickler):
    """Reads measures and arrays, and refuses everything else: others may write where a root is shared."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _OURS.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an evaluation")
        return super().find_class(module, name)
