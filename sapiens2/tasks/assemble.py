"""A task model as a configuration describes it: before training, and again for whoever reads a run's folder."""

from __future__ import annotations

import torch

from sapiens2.engine.storage import fingerprint
from sapiens2.model.foreign import ForeignBackbone, build_foreign
from sapiens2.model.foreign_names import RANDOM, parse_name
from sapiens2.tasks.build import TaskModel, build_task
from sapiens2.tasks.config import FinetuneConfig


def assemble(config: FinetuneConfig, *, weights: bool = False) -> TaskModel:
    """The model of a configuration, freshly initialised from torch's global generator.

    weights: also load those of a foreign backbone; whoever loads a whole checkpoint afterwards does without its file.
    Raises ValueError for a file that is not the one that the configuration was made with.
    """
    return build_task(
        config.task,
        config.size,
        window_tokenizer=config.window_tokenizer,
        head=config.head,
        scale=config.scale,
        backbone=_foreign(config, weights) if config.backbone else None,
    )


def assemble_on_meta(config: FinetuneConfig) -> TaskModel:
    """The structure alone; nothing is allocated."""
    with torch.device("meta"):
        return assemble(config)


def _foreign(config: FinetuneConfig, weights: bool) -> ForeignBackbone:
    file = parse_name(config.backbone, check=weights).file
    if weights and file not in (None, RANDOM):
        found = fingerprint(str(file))[1]
        if found != config.backbone_sha256:
            raise ValueError(
                f"{file} has sha256 {found[:12]}, not {config.backbone_sha256[:12]} as when this run was set up: "
                "give that file, or another backbone_sha256"
            )
    return build_foreign(config.backbone, weights=weights)
