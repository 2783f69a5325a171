"""Weights from outside as an artifact: checked, renamed, and on record with their sha256 and licence.

Not a row of the table of steps, as no pipeline runs it: `sapiens2 weights import` does.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from components.artifacts import Artifact, Store
from components.given_weights import WEIGHTS, GivenWeights, from_file, is_file, licence_of_artifact
from components.run_step import Outcome, Publication, StepContext, run_step
from components.steps import IMPORT, PRETRAIN, Step
from sapiens2.config import Config, execution, recipe
from sapiens2.tasks.head_specs import Source

NAME = "weights"
IMAGE_SIZE = {False: (1024, 768), True: (4096, 3072)}  # what released backbones were pretrained at, pixels


class ImportConfig(Config):
    """What is imported, and as what."""

    size: str = recipe("", "Backbone size, a row of sapiens2.model.sizes.SIZES.")
    window_tokenizer: bool = recipe(False, "Whether the backbone pools windows, for 4096 x 3072 pixels.")
    task: str | None = recipe(None, "Import the whole model of this task; None takes the backbone alone.")
    image_size: tuple[int, int] | None = recipe(None, "Height and width that it was trained at; None: as released.")
    head: Source = recipe("release", "Of a task model: as in FinetuneConfig.")
    scale: Source = recipe("release", "Of a pointmap model: as in FinetuneConfig.")
    licence: str = recipe("", "What the manifest says of the licence; empty: what the file says or lets assume.")
    file: str = execution("", "A .safetensors file or URI; its sha256 enters the version.")


def import_step(kind: str) -> Step:
    """The step that makes an artifact of a kind: `backbone`, or a task's name."""
    return Step(
        name=IMPORT,
        kind=kind,
        inputs=(),
        config="components.import_weights:ImportConfig",
        body="components.import_weights:body",
        summary="weights from outside, checked and renamed",
        sources=("components.import_weights",),
        given="components.import_weights:source",
    )


def import_weights(
    file: str, store: Store, *, size: str | None, task: Any, licence: str, image_size: tuple[int, int] | None = None
) -> Outcome:
    """Import a file into the store. Raises ValueError and FileNotFoundError before anything is written.

    image_size: height and width that it was trained at, where its header does not say so.
    """
    from sapiens2.exchange import read_checked, recognise
    from sapiens2.tasks.predict import DEFAULT_INPUT

    found = recognise(file, size)
    read_checked(file, found, task)
    config = ImportConfig(
        size=found.size,
        window_tokenizer=found.window_tokenizer,
        task=task,
        image_size=image_size or found.told.image_size or DEFAULT_INPUT.get(found.size),
        head=found.told.head if task else "release",
        scale=found.told.scale if task else "release",
        licence=licence,
        file=file,
    )
    return run_step(import_step(task or PRETRAIN.kind), config, {}, store.root)


def source(config: ImportConfig, store: Store) -> list[GivenWeights]:
    """The file, as weights that the configuration names."""
    return [from_file(config.file, config.licence, NAME)]


def body(context: StepContext) -> Publication:
    """Write the weights under the released names, and what is needed to build the model again."""
    from sapiens2.engine.training_state import digest
    from sapiens2.exchange import licence_of, read_checked, recognise
    from sapiens2.model.weights import write_state
    from sapiens2.tasks.told import told_by

    config: ImportConfig = context.config
    found = recognise(config.file, config.size)
    state = read_checked(config.file, found, config.task)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="sapiens2-weights-") as folder:
        path = Path(folder) / WEIGHTS
        said = told_by(_config_file(config)).model_dump_json(exclude_defaults=True)
        write_state(state, path, licence=config.licence or licence_of(config.file), about=said)
        weights = context.attempt.write_file(f"out/{WEIGHTS}", path.read_bytes())
    count = sum(tensor.numel() for name, tensor in state.items() if not name.endswith("periods"))
    facts = {"parameters": count, "holds": found.text, "headline": f"{count / 1e6:.1f} M parameters, {found.text}"}
    about = json.dumps(_config_file(config), indent=2, sort_keys=True).encode()
    return Publication(
        metrics=facts,
        files={"out/config.json": about},
        existing=[weights],
        fragment=_fragment(facts, config),
        digest=digest(state),
    )


def _config_file(config: ImportConfig) -> dict[str, Any]:
    """As training writes it, so that whoever reads a checkpoint need not know where it came from."""
    height_width = list(config.image_size or IMAGE_SIZE[config.window_tokenizer])
    about: dict[str, Any] = {"size": config.size, "image_size": height_width}
    if config.task is None:
        return about | {"kind": "backbone", "window_tokenizer": config.window_tokenizer, "config": None}
    trained: dict[str, Any] = {"task": config.task, "size": config.size, "image_size": height_width}
    trained |= {"head": config.head, "scale": config.scale, "window_tokenizer": config.window_tokenizer}
    return about | {"kind": "task", "task": config.task, "config": trained}


def _fragment(facts: dict[str, Any], config: ImportConfig) -> dict[str, Any]:
    rows = [["parameters", facts["parameters"]], ["file", config.file.rsplit("/", 1)[-1]], ["holds", facts["holds"]]]
    return {
        "title": f"Imported {config.task or 'backbone'} weights",
        "sections": [{"type": "table", "title": "Weights", "columns": ["", "value"], "rows": rows}],
    }


def exported(reference: str, store: Store) -> tuple[str, str, Any]:
    """What a reference means, a .safetensors file or an artifact: path or URI of its weights, their licence, and what
    is to be said of the model (sapiens2.tasks.told.Told).

    Raises ValueError for a model that rests on somebody else's backbone.
    """
    from sapiens2.exchange import licence_of
    from sapiens2.tasks.told import told, told_by

    if is_file(reference):
        return reference, licence_of(reference), told(reference)
    artifact: Artifact = store.find(reference)
    path = store.storage.full(artifact.file_path(WEIGHTS))
    about = json.loads(artifact.file("config.json"))
    if foreign := (about.get("config") or {}).get("backbone"):
        raise ValueError(
            f"{artifact} rests on {foreign}, which has no Sapiens2 names to be exported under: name another version, "
            f"or take its file as it is, {path}"
        )
    return path, licence_of_artifact(artifact), told_by(about)
