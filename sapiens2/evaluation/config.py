"""What an evaluation is, and what a frozen probe is."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import model_validator

from sapiens2.config import Config, execution, recipe
from sapiens2.tasks.config import DataSource
from sapiens2.tasks.head_specs import TASKS, TaskName


class EvaluateConfig(Config):
    """Settings of one evaluation, on held-out synthetic people or on labelled data."""

    task: TaskName = recipe("pose", "Which task the checkpoint was trained for.")
    n_test: int = recipe(256, "Held-out scenes: poses, patterns and backgrounds of families never trained on.", ge=1)
    labelled: DataSource | None = recipe(
        None, "Labelled data {path, split} to measure on, at its own size, in place of synthetic people."
    )
    boxes: str = execution(
        "",
        "Pose on labelled data: JSON of given boxes, absolute, {picture: [[x0, y0, x1, y1, score], ...]}; measured "
        "beside the labelled ones. Its sha256 enters the version.",
    )
    scene_seed: int = recipe(0, "Seed of the first held-out scene; the others follow.", ge=0)
    image_size: tuple[int, int] | None = recipe(None, "Height and width, pixels; None takes the training size.")
    flip: bool = recipe(
        False, "Flip test: each answer is the mean over picture and mirror image, as in the protocol of pose."
    )
    rounds: int = recipe(200, "Bootstrap resamples behind every 95 % interval.", ge=1)
    seed: int = recipe(0, "Seed of the resamples.", ge=0)

    pictures: int = execution(8, "Scenes drawn in the fragment.", ge=0)
    batch: int = execution(16, "Images per forward pass.", ge=1)
    cache_scenes: bool = execution(True, "Keep rendered scenes on disk for other runs and tasks.")

    @model_validator(mode="after")
    def _boxes_are_of_labels(self) -> EvaluateConfig:
        if self.labelled is not None and self.labelled.backgrounds:
            raise ValueError("other backgrounds are for training: leave `backgrounds` out of `labelled`")
        if self.boxes and (self.task != "pose" or self.labelled is None):
            raise ValueError("boxes are for pose on labelled data: set `labelled` too, or leave them out")
        if self.boxes and "://" not in self.boxes and not self.boxes.startswith("/"):
            raise ValueError(f"boxes={self.boxes!r} is relative: steps run in folders of their own; give it absolute")
        return self


def data_digest(config: EvaluateConfig) -> str | None:
    """sha256 of the labelled data that an evaluation measures on, and of given boxes; None on synthetic people.

    An artifact's version stands for its data.
    """
    from sapiens2.data.labelled.dataset import data_digest as folder_digest
    from sapiens2.engine.storage import fingerprint

    parts = []
    if config.labelled is not None and not config.labelled.is_reference:
        parts.append(folder_digest(config.labelled.path, config.task))
    if config.boxes:
        parts.append(fingerprint(config.boxes)[1])
    if len(parts) < 2:
        return parts[0] if parts else None
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class ProbeConfig(Config):
    """Settings of a frozen probe: which scenes, which decoder, how it is trained. The same for every backbone."""

    n_train: int = recipe(512, "Scenes that decoders and linear probes are fitted on.", ge=16)
    n_val: int = recipe(128, "Scenes that a checkpoint is selected on: training families, seeds of their own.", ge=1)
    n_test: int = recipe(256, "Scenes that the selected checkpoint is reported on: families never fitted on.", ge=1)
    scene_seed: int = recipe(0, "Seed of the first scene of each set.", ge=0, lt=1_000_000)
    image_size: tuple[int, int] = recipe((128, 96), "Height and width of the scenes, pixels.")
    grid: tuple[int, int] | None = recipe(
        None, "Rows and columns that every backbone's patch map is resampled to; None keeps its own."
    )
    tasks: tuple[TaskName, ...] = recipe(TASKS, "Tasks whose dense probe is run.")
    decoder: Literal["shuffle", "linear"] = recipe(
        "shuffle", "On top of the frozen map: two pixel-shuffle stages, or one linear map of each patch."
    )
    width: int = recipe(64, "Channels of the decoder's projection, a multiple of 8.", ge=8, multiple_of=8)
    steps: int = recipe(200, "Optimiser steps of each task's decoder.", ge=1)
    batch: int = recipe(32, "Scenes of a step.", ge=1)
    lr: float = recipe(5e-3, "Peak learning rate of AdamW; it falls to 0 as a cosine.", gt=0)
    weight_decay: float = recipe(1e-4, "Decoupled weight decay of the decoder.", ge=0)
    neighbours: int = recipe(10, "Votes of the k-NN probe.", ge=1)
    rounds: int = recipe(200, "Bootstrap resamples behind every 95 % interval.", ge=1)
    seed: int = recipe(0, "Seed of decoders, of fresh weights beside, of the order of scenes, of the resamples.", ge=0)

    extract_batch: int = execution(32, "Images per forward pass of the backbone.", ge=1)
    half: bool = execution(False, "Keep patch maps in 16 bits: half the memory.")
    cache_scenes: bool = execution(True, "Keep rendered scenes on disk for other runs and tasks.")

    @model_validator(mode="after")
    def _sizes(self) -> ProbeConfig:
        if min(self.image_size) < 16:
            raise ValueError(f"image_size={self.image_size} is too small for a scene: use at least 16 x 16 pixels")
        if not self.tasks:
            raise ValueError(f"tasks is empty: name some of {', '.join(TASKS)}")
        return self


class SelectionConfig(ProbeConfig):
    """Settings of the probe step: a frozen probe of a run's checkpoints, by which one of them is selected."""

    checkpoints: Literal["each", "last"] = recipe("each", "Probe every checkpoint that the run kept, or only the last.")
    compare: tuple[str, ...] = recipe((), "Other backbones measured beside the selected one: timm:NAME, hf:NAME, FILE.")
    pictures: int = execution(4, "Scenes whose nearest neighbours are drawn in the fragment.", ge=0)
