"""The earlier run of cluster into whose tree a configuration puts pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from components.artifacts import Artifact, ArtifactError, Store
from components.given_weights import GivenArtifact

ROLE, KIND = "previous", "clusters"


def previous(config: Any, store: Store) -> list[GivenArtifact]:
    """What `cluster.previous` names. Raises ArtifactError when there is none, or it has no clusters."""
    if not config.previous:
        return []
    found = store.find(config.previous if "=" in config.previous else f"{KIND}={config.previous}")
    if found.kind != KIND:
        raise ArtifactError(f"cluster.previous={config.previous!r} is {found}, not {KIND}: name a version of {KIND}")
    if not found.manifest.metrics.get("clusters"):
        raise ArtifactError(f"{found} has no clusters: leave cluster.previous out, or name a version of more pictures")
    return [GivenArtifact(ROLE, found)]


def centroids(inputs: Mapping[str, Artifact]) -> pa.Table | None:
    """The centroids of that run; None without one."""
    return inputs[ROLE].read("centroids") if ROLE in inputs else None
