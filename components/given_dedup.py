"""The earlier run of dedup that a configuration goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.artifacts import Artifact, ArtifactError, Store
from components.given_weights import GivenArtifact
from components.settings import recipe_fields

ROLE, KIND = "previous", "deduped"


def previous(config: Any, store: Store) -> list[GivenArtifact]:
    """What `dedup.previous` names. Raises ArtifactError when there is none, ValueError when its thresholds differ."""
    if not config.previous:
        return []
    name = config.previous if "=" in config.previous else f"{KIND}={config.previous}"
    found = store.find(name)
    if found.kind != KIND:
        raise ArtifactError(f"dedup.previous={config.previous!r} is {found}, not {KIND}: name a version of {KIND}")
    _check(found, config)
    return [GivenArtifact(ROLE, found)]


def _check(found: Artifact, config: Any) -> None:
    from curation.stages.dedup_previous import TABLES

    if set(TABLES) - set(found.manifest.tables):
        raise ValueError(f"{found} left nothing to go on from: run dedup once more without dedup.previous")
    wanted, was = recipe_fields(config), found.manifest.recipe
    for key in sorted(wanted.keys() - {ROLE}):
        if wanted[key] != was.get(key):
            raise ValueError(
                f"dedup.{key}={wanted[key]}, but {found} was made with {was.get(key)}, and thresholds are frozen with "
                f"dedup.previous: set dedup.{key}={was.get(key)}, or leave dedup.previous out"
            )


def carried(inputs: Mapping[str, Artifact]) -> Any:
    """What that run left, as curation.dedup.carried.Carried; None without one."""
    if ROLE not in inputs:
        return None
    from curation.stages.dedup_previous import TABLES, THRESHOLD, carried_from

    earlier = inputs[ROLE]
    tables = {name: earlier.read(name) for name in TABLES}
    return carried_from(tables, earlier.manifest.metrics[THRESHOLD])
