"""Weights that a configuration names itself: a file or URI, or an artifact of the store.

Their sha256 enters the version and the manifest, with a licence note; an artifact is an input as well, so that lineage
shows what a model was continued from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from components.artifacts import Artifact, Store
from components.manifest import ModelRef
from components.steps import PRETRAIN, Step, load

INIT = "init"
WEIGHTS = "model.safetensors"
OWN = "made here; as the pictures it was trained on allow"


@dataclass(frozen=True)
class GivenWeights:
    """Weights, where they lie, and the artifact that they belong to, if any."""

    uri: str
    model: ModelRef
    artifact: Artifact | None = None


@dataclass(frozen=True)
class GivenArtifact:
    """Another artifact that a configuration names, and the role in which it is read."""

    role: str
    artifact: Artifact


Given = GivenWeights | GivenArtifact


def given(step: Step, config: BaseModel, store: Store) -> list[Given]:
    """What the configuration of a step names; raises FileNotFoundError, ValueError and ArtifactError that say which."""
    found: list[Given] = load(step.given)(config, store) if step.given else []
    return found


def named_inputs(found: Sequence[Given]) -> dict[str, Artifact]:
    """Those that are artifacts, by role."""
    roles = {each.role if isinstance(each, GivenArtifact) else each.model.name: each.artifact for each in found}
    return {role: artifact for role, artifact in roles.items() if artifact is not None}


def initial(config: Any, store: Store) -> list[GivenWeights]:
    """What `pretrain.init` names, checked against the architecture by the file's header."""
    if not config.init:
        return []
    given = from_file(config.init) if is_file(config.init) else from_artifact(config.init, store)
    load("sapiens2.pretrain.run:check_init")(config, given.uri)
    return [given]


def compared(config: Any, store: Store) -> list[GivenWeights]:
    """The files of the backbones that `probe.compare` names, by their content; a library's own weights have none.

    A name that is neither is left to whoever opens it (sapiens2.evaluation.frozen), which says what is known.
    """
    from sapiens2.exchange import UNSTATED
    from sapiens2.model.foreign_files import local_files
    from sapiens2.model.foreign_names import LIBRARIES, parse_name

    found = []
    for number, name in enumerate(config.compare, 1):
        kind, colon, _ = name.partition(":")
        if colon and kind in LIBRARIES:
            parsed = parse_name(name)
            for file in local_files(parsed):
                role = f"compare-{number}" + ("" if str(file) == parsed.file else f"/{file.name}")
                found.append(from_file(str(file), UNSTATED, role))
        elif not colon or kind in ("file", "s3") or Path(name).exists():
            found.append(from_file(name, "", f"compare-{number}"))
    return found


def is_file(reference: str) -> bool:
    """Whether a reference means a file or URI and not an artifact."""
    return reference.endswith(".safetensors")


def from_file(uri: str, licence: str = "", name: str = INIT) -> GivenWeights:
    """A file or URI, hashed. Raises FileNotFoundError."""
    from sapiens2.exchange import licence_of
    from sapiens2.model.foreign_files import file_sha256

    note = licence or licence_of(uri)
    sha256 = file_sha256(uri)
    return GivenWeights(uri, ModelRef(name=name, revision=uri.rsplit("/", 1)[-1], sha256=sha256, licence=note))


def from_artifact(reference: str, store: Store) -> GivenWeights:
    """A backbone of the store. Raises ArtifactError, and ValueError for an artifact of another kind."""
    artifact = store.find(reference)
    if artifact.kind != PRETRAIN.kind:
        raise ValueError(
            f"{reference} is {artifact}, not a backbone: give {PRETRAIN.kind}=VERSION or a .safetensors file"
        )
    path = artifact.file_path(WEIGHTS)
    (sha256,) = [entry.sha256 for entry in artifact.manifest.files if entry.path == path]
    model = ModelRef(name=INIT, revision=repr(artifact), sha256=sha256, licence=licence_of_artifact(artifact))
    return GivenWeights(store.storage.full(path), model, artifact)


def licence_of_artifact(artifact: Artifact) -> str:
    """The licences of all that a model was made from, or that it was made from nothing but pictures."""
    return "; ".join(sorted({model.licence for model in artifact.manifest.models})) or OWN
