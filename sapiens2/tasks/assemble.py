"""A task model as a configuration describes it: before training, and again for whoever reads a run's folder."""

from __future__ import annotations

from typing import Any

import torch

from sapiens2.model.foreign import ForeignBackbone, build_foreign
from sapiens2.model.foreign_files import file_sha256, local_digest
from sapiens2.model.foreign_names import RANDOM, parse_name
from sapiens2.tasks.build import TaskModel, build_task
from sapiens2.tasks.config import FinetuneConfig

STRUCTURE = "foreign"
"""The key in the config.json of a run under which a foreign backbone's structure is kept."""


def assemble(config: FinetuneConfig, *, weights: bool = False, structure: dict[str, Any] | None = None) -> TaskModel:
    """The model of a configuration, freshly initialised from torch's global generator.

    weights: also load those of a foreign backbone; whoever loads a whole checkpoint afterwards does without its file,
    and with the `structure` that the run kept of it without its folder or hub. Raises ValueError for files that are not
    the ones that the configuration was made with.
    """
    return build_task(
        config.task,
        config.size,
        window_tokenizer=config.window_tokenizer,
        head=config.head,
        scale=config.scale,
        backbone=_foreign(config, weights, structure) if config.backbone else None,
    )


def assemble_on_meta(config: FinetuneConfig) -> TaskModel:
    """The structure alone; nothing is allocated."""
    with torch.device("meta"):
        return assemble(config)


def _foreign(config: FinetuneConfig, weights: bool, structure: dict[str, Any] | None) -> ForeignBackbone:
    name = parse_name(config.backbone, check=weights)
    found = local_digest(name) if weights else ""
    # Where somebody says it himself, that of FILE alone will do.
    same = {found} | ({file_sha256(name.file)} if found and name.file not in (None, RANDOM) else set())
    if found and config.backbone_sha256 not in same:
        raise ValueError(
            f"{config.backbone} has sha256 {found[:12]}, not {config.backbone_sha256[:12]} as when this run was set "
            "up: give what it was set up with, or another backbone_sha256"
        )
    try:
        return build_foreign(config.backbone, weights=weights, structure=structure)
    except ValueError as error:
        if weights or structure or name.library != "hf":
            raise
        raise ValueError(
            f"{error}; a model that was trained by an earlier version keeps no structure of its own: put the folder "
            "back where it was, or name the new place as `backbone` in the config.json beside the model"
        ) from error
