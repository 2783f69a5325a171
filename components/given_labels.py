"""Labels artifacts that a configuration names: what is trained on, measured on, or kept out of pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.artifacts import Artifact, ArtifactError, Store
from components.given_weights import GivenArtifact
from components.label_splits import refuse_trained_on
from components.steps import LABELS

FOLDER = "out"


def held_out(config: Any, store: Store) -> list[GivenArtifact]:
    """The labels with test pictures that export keeps out: all under the root, or those of the listed versions."""
    if config.hold_out == "none":
        return []
    if config.hold_out == "all":
        found = [labels for labels in store.all(LABELS.kind) if labels.manifest.metrics["splits"].get("test")]
    else:
        found = [_labels(name if "=" in name else f"{LABELS.kind}={name}", store) for name in config.hold_out]
    unique = {labels.version: labels for labels in found}
    return [GivenArtifact(f"labels_{k}", unique[version]) for k, version in enumerate(sorted(unique), 1)]


def sources(config: Any, store: Store) -> list[GivenArtifact]:
    """The labels that fine-tuning reads."""
    return _named(enumerate(config.sources, 1), config.task, store)


def measured(config: Any, store: Store) -> list[GivenArtifact]:
    """The labels that an evaluation measures on."""
    return [] if config.labelled is None else _named([(1, config.labelled)], config.task, store)


def _named(numbered: Any, task: str, store: Store) -> list[GivenArtifact]:
    found = []
    for number, source in numbered:
        if source.is_reference:
            labels = _labels(source.path, store)
            of = labels.manifest.metrics["task"]
            if of != task:
                raise ValueError(f"{labels} is labelled for {of}, not for {task}: name other labels")
            found.append(GivenArtifact(f"labels_{number}", labels))
    return found


def _labels(reference: str, store: Store) -> Artifact:
    try:
        labels = store.find(reference)
    except ArtifactError as error:
        raise ArtifactError(f"{error}; `sapiens2 annotate import` makes labels") from error
    if labels.kind != LABELS.kind:
        raise ArtifactError(f"{reference!r} is {labels}, not labels: name labels=VERSION")
    return labels


def resolved(config: Any, inputs: Mapping[str, Artifact], store: Store) -> Any:
    """The configuration with the folders of its labels in place of their names.

    Raises ValueError for a measurement of a checkpoint on pictures that it was trained on.
    """

    def folder(number: int, source: Any) -> Any:
        if not source.is_reference:
            return source
        artifact = inputs[f"labels_{number}"]
        return source.model_copy(update={"path": store.storage.full(f"{artifact.folder}/{FOLDER}")})

    if hasattr(config, "sources"):
        placed = tuple(folder(number, source) for number, source in enumerate(config.sources, 1))
        return config.model_copy(update={"sources": placed})
    if config.labelled is None:
        return config
    if config.labelled.is_reference and "checkpoint" in inputs:
        refuse_trained_on(store, inputs["checkpoint"], inputs["labels_1"], config.labelled.split)
    return config.model_copy(update={"labelled": folder(1, config.labelled)})
