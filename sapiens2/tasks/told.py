"""What the header of a weights file of ours says of the model in it, so that the file alone is enough to use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from sapiens2.model.weights import ABOUT, read_metadata
from sapiens2.tasks.head_specs import Source, TaskName


class Told(BaseModel):
    """A model, as far as names and shapes of its tensors do not tell. Fields as in FinetuneConfig; None: not said."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: TaskName | None = None
    image_size: tuple[PositiveInt, PositiveInt] | None = None  # height and width that it was trained at, pixels
    head: Source = "release"
    scale: Source = "release"


def told(path: str | Path) -> Told:
    """What the header of a safetensors file or URI says; nothing for files that others made. Raises ValueError."""
    try:
        return Told.model_validate(json.loads(read_metadata(path).get(ABOUT, "{}")))
    except (ValidationError, json.JSONDecodeError) as error:
        raise ValueError(
            f"the header of {path} says what no model is, {ABOUT}: {error}; export the file again"
        ) from error


def told_by(about: dict[str, Any]) -> Told:
    """The same of the config.json beside the weights of a run, or of an import."""
    config = about.get("config") or about
    fields = Told.model_fields if config.get("task") else ("image_size",)  # a backbone has no head
    return Told.model_validate({name: config[name] for name in fields if name in config})
