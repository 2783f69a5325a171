"""What a fine-tuning run is."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import model_validator

from sapiens2.config import Config, execution, recipe
from sapiens2.engine.config import EngineConfig
from sapiens2.model.foreign_files import local_digest
from sapiens2.model.foreign_names import GRID_STRIDE, parse_name
from sapiens2.model.sizes import SizeName, architecture
from sapiens2.tasks.augmentation import Recipe, augmentation
from sapiens2.tasks.head_specs import OWN_SIZES, SPECS, Source, TaskName

SYNTHETIC, LABELS = "synthetic", "labels"


class DataSource(Config):
    """Where samples come from. The path is not part of the recipe: what lies there is, by its digest."""

    path: str = execution(
        SYNTHETIC,
        "Folder or URI of labelled data, absolute; `synthetic` for rendered people; `labels` or labels=VERSION for an "
        "artifact, whose folder a step puts in its place.",
    )
    weight: float = recipe(1.0, "Share of the training samples, relative to the other sources.", gt=0)
    split: Literal["train", "val", "test"] = recipe("train", "Which rows of the index.")
    backgrounds: str = execution(
        "",
        "Folder or URI of pictures, absolute, to put behind the people of this source: the transform `background`. "
        "What lies there is part of the recipe, by its digest.",
    )

    @property
    def is_reference(self) -> bool:
        """Whether the path is the name of an artifact."""
        return self.path.partition("=")[0] == LABELS

    @model_validator(mode="after")
    def _absolute(self) -> DataSource:
        if self.backgrounds and "://" not in self.backgrounds and not self.backgrounds.startswith("/"):
            raise ValueError(f"backgrounds={self.backgrounds!r} is relative: give it absolute")
        if self.is_reference:
            return self
        if self.path != SYNTHETIC and "://" not in self.path and not self.path.startswith("/"):
            raise ValueError(f"path={self.path!r} is relative: steps run in folders of their own, so give it absolute")
        return self


def data_digest(config: FinetuneConfig) -> str | None:
    """sha256 of all labelled data and backgrounds that a configuration trains on; None where it reads no folder.

    Raises LabelError or another ValueError for a folder that cannot be read, and for a file that is missing where
    samples must not be skipped.
    """
    folders = [source for source in config.sources if source.path != SYNTHETIC and not source.is_reference]
    behind = [source.backgrounds for source in config.sources if source.backgrounds]
    if not folders and not behind:
        return None
    from sapiens2.data.labelled.dataset import data_digest as folder_digest
    from sapiens2.tasks.backgrounds import backgrounds_digest

    skip = config.unreadable == "skip"
    parts = [folder_digest(s.path, config.task, skip_missing=skip) if s in folders else s.path for s in config.sources]
    if behind:
        parts += [s.backgrounds and backgrounds_digest(s.backgrounds) for s in config.sources]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class FinetuneConfig(Config):
    """Settings of one fine-tuning run. Raises ValueError for what cannot be trained."""

    task: TaskName = recipe("pose", "What to learn.")
    size: SizeName = recipe("tiny", "Backbone size, a row of sapiens2.model.sizes.SIZES.")
    backbone: str = recipe(
        "", "Somebody else's backbone, timm:NAME[:FILE] or hf:NAME[:FILE]; the size then only chooses the head."
    )
    backbone_sha256: str = recipe(
        "",
        "sha256 of that FILE, or of a local folder's weights and configuration (docs/finetuning.md); filled in, "
        "checked where it is given.",
    )
    window_tokenizer: bool = recipe(False, "Backbone with the 4K window tokenizer; dense heads then decode to half.")
    engine: EngineConfig = recipe(
        EngineConfig(lr=5e-4, min_lr=0.0, schedule="poly", betas=(0.9, 0.999), weight_decay=0.1, clip_norm=4.0),
        "Optimiser, schedule, checkpoints, seed.",
    )
    image_size: tuple[int, int] = recipe((1024, 768), "Height and width of the input, pixels.")
    batch: int = recipe(8, "Images of one optimiser step, over all ranks.", ge=1)
    scenes: int = recipe(4096, "Synthetic training scenes, where a source is synthetic people.", ge=1)
    scene_seed: int = recipe(0, "Seed of the first scene; the others follow.", ge=0)
    sources: tuple[DataSource, ...] = recipe(
        (), "Labelled data to mix, each {path, weight, split}; none means synthetic people alone."
    )
    unreadable: Literal["error", "skip"] = recipe("error", "A sample that cannot be read ends training, or is counted.")
    augmentation: Recipe = recipe("light", "Table of transforms: none, light (mirror and colours), or the release's.")
    augment: dict[str, Any] = recipe(
        {}, "Changes of that table: transform -> probability, {field: value}, or null to leave it out."
    )
    head: Source = recipe("release", "Head as released or as the paper prints it; they differ for pose.")
    scale: Source = recipe("release", "Pointmap's number: canonical per metre (release) or its inverse (paper).")
    losses: Source = recipe("release", "Loss terms: the published configurations' or the paper's.")
    hard_keypoints: int | None = recipe(
        None, "Pose: keypoints of each sample that count, those of largest error; 0 all, None as `losses` has it.", ge=0
    )
    class_weights: Literal["release", "root", "none"] = recipe(
        "release", "Weights of the 29 parts in the cross-entropy: published, their square roots, or all 1."
    )
    label_stride: int = recipe(
        1,
        "Segmentation: the loss looks at one label of each square of so many, another one at every step; where the "
        "head answers at that stride, the loss costs so much less.",
        ge=1,
    )
    layer_decay: float = recipe(0.9, "Learning rate ratio between a block and the one below it.", gt=0, le=1)
    checkpoint: Literal["best-val", "last"] = recipe(
        "best-val", "Which checkpoint of the backbone to start from: the one that the probe step chose, or the last."
    )
    backbone_every: int = recipe(
        1, "Steps between two that train the backbone too; those between train the head alone, for less time.", ge=1
    )
    freeze_backbone: bool = recipe(False, "Train the head only.")
    lora_rank: int = recipe(0, "Rank of corrections trained in the backbone's place; 0 trains it whole.", ge=0)
    lora_alpha: float = recipe(16.0, "Gain of the corrections, divided by their rank.", gt=0)
    ema: float = recipe(0.0, "Decay per step of averaged weights to publish; 0 publishes the last.", ge=0, lt=1)

    workers: int = execution(1, "Training processes that share a batch; 0 trains in the calling process.", ge=0)
    min_workers: int = execution(0, "Go on with as few when nodes are lost; 0: with all `workers` only.", ge=0)
    cache_scenes: bool = execution(True, "Keep rendered scenes on disk for other runs and tasks.")

    @model_validator(mode="before")
    @classmethod
    def _older(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Runs of earlier versions wrote two probabilities where the table of transforms is now."""
        old = {name: values[name] for name in ("flip", "photometric") if name in values}
        if not old or "augment" in values:
            return values
        taken = {n: p for n, p in old.items() if not (n == "photometric" and values.get("task") == "albedo")}
        return {n: v for n, v in values.items() if n not in old} | {"augment": taken}

    @model_validator(mode="before")
    @classmethod
    def _fingerprint(cls, values: dict[str, object]) -> dict[str, object]:
        """The files of a foreign backbone by their content, so that other ones are another recipe."""
        text = str(values.get("backbone") or "")
        if not text:
            return {**values, "backbone_sha256": ""}
        if values.get("backbone_sha256"):
            return values
        return {**values, "backbone_sha256": local_digest(parse_name(text))}

    @model_validator(mode="after")
    def _trainable(self) -> FinetuneConfig:
        stride = GRID_STRIDE if self.backbone else architecture(self.size).patch
        stride *= architecture(self.size).window if self.window_tokenizer else 1
        if any(side <= 0 or side % stride for side in self.image_size):
            raise ValueError(
                f"image_size={self.image_size} does not divide into patches: use multiples of {stride} pixels"
            )
        if self.size not in OWN_SIZES and self.size not in SPECS[self.task]:
            raise ValueError(
                f"no {self.task} head is defined for size {self.size!r}: use one of {', '.join(SPECS[self.task])}"
            )
        height, width = (4096, 3072) if self.window_tokenizer else (1024, 768)
        if self.task == "pointmap" and self.size not in OWN_SIZES and self.image_size != (height, width):
            raise ValueError(
                f"image_size={self.image_size}: the {self.size} pointmap head takes {height} x {width} only; "
                "the heads of tiny and 0.1b take any size"
            )
        if any(side % self.label_stride for side in self.image_size):
            raise ValueError(
                f"label_stride={self.label_stride} does not divide image_size={self.image_size}: use 1 or 2"
            )
        if self.renders and self.batch > self.scenes:
            raise ValueError(
                f"batch={self.batch} is larger than scenes={self.scenes}: lower batch or render more scenes"
            )
        self._one_mode()
        transforms = augmentation(self.task, self.augmentation, self.augment)
        named = [source.backgrounds for source in self.sources if source.backgrounds]
        if named and "background" not in transforms:
            raise ValueError(
                f"backgrounds={named[0]!r} would not be used: add the transform, augment={{'background': 0.8}}"
            )
        if self.augment.get("background") and not named:
            raise ValueError("the transform `background` has no pictures: name a folder as `backgrounds` of a source")
        return self

    @property
    def renders(self) -> bool:
        """Whether a source is synthetic people: without one, `scenes` says nothing about a run."""
        return not self.sources or any(source.path == SYNTHETIC for source in self.sources)

    def _one_mode(self) -> None:
        if self.freeze_backbone and self.lora_rank:
            raise ValueError(f"freeze_backbone and lora_rank={self.lora_rank} exclude each other: choose one")
        if self.backbone and self.window_tokenizer:
            raise ValueError(f"backbone={self.backbone!r} has no window tokenizer: set window_tokenizer=false")
