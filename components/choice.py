"""Which probe it was that chose among the checkpoints of a backbone."""

from __future__ import annotations

from components.artifacts import Artifact, Store
from components.steps import STEPS


def probe_of(store: Store, backbone: str) -> Artifact | None:
    """The newest probe that chose among the checkpoints of this version of a backbone.

    A later one may have looked at another backbone, or at the last checkpoint only. Where none chose, it is the latest
    of all: whoever reads it says what is wrong with it.
    """
    latest = store.latest(STEPS["probe"].latest_name)
    if latest is None or chose(latest, backbone):
        return latest
    older = [each for each in store.all(STEPS["probe"].kind) if chose(each, backbone)]
    return older[-1] if older else latest


def chose(probe: Artifact, backbone: str) -> bool:
    """Whether an evaluation is a probe that looked at every kept checkpoint of this version of a backbone."""
    manifest = probe.manifest
    if manifest.step != "probe" or manifest.config["checkpoints"] == "last":
        return False
    return [ref.version for ref in manifest.inputs if ref.role == "backbone"] == [backbone]
