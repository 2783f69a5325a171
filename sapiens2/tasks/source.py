"""Training batches: a pure function of (seed, step, rank, world)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sapiens2.data.synthetic.store import SceneStore, cache_folder
from sapiens2.engine.objective import Key
from sapiens2.tasks.augment import augmented
from sapiens2.tasks.augmentation import GEOMETRY, Background, augmentation
from sapiens2.tasks.config import SYNTHETIC, DataSource, FinetuneConfig
from sapiens2.tasks.mixture import Deck, Framed, Mixture, backgrounds_behind, complete, labelled_deck
from sapiens2.tasks.sample import Sample, from_scene
from sapiens2.tasks.usable import TRIES, usable

Array = np.ndarray
_MAPS = {"normal": ("normals",), "pointmap": ("points",), "albedo": ("albedo",)}
"""What a task needs of the scenes' maps."""


@dataclass(frozen=True)
class Scenes:
    """Synthetic people as samples, with the maps that a task needs. It can go to another process."""

    store: SceneStore
    maps: Collection[str]

    def __call__(self, index: int) -> Framed:
        """The sample of an index, which fills its frame."""
        return from_scene(self.store.scene(index, self.maps)), None


class Made(NamedTuple):
    """A batch from another process, and the samples that it was the first to skip there."""

    batch: dict[str, Tensor]
    skipped: frozenset[str]


class TaskSource:
    """Batches for one task, of synthetic people and labelled data; see `sapiens2.engine.objective.SharedSource`.

    Scenes are rendered on first use and cached. `skipped` has the samples that could not be read, as `source:index`.
    """

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config
        height, width = config.image_size
        folder = cache_folder() if config.cache_scenes else None
        self.store = SceneStore(config.scenes, height, width, "train", config.scene_seed, folder=folder)
        sources = config.sources or (DataSource(),)
        self.transforms = augmentation(config.task, config.augmentation, config.augment)
        decks = [self._deck(source, number) for number, source in enumerate(sources)]
        weights = [source.weight for source in sources]
        self.mixture = Mixture(decks, weights, config.engine.seed, skip=config.unreadable == "skip")
        self.skipped = self.mixture.unreadable

    def _deck(self, source: DataSource, number: int) -> Deck:
        # The key of a first source is that of synthetic people alone, whose order has always been so.
        key = (self.config.engine.seed, 1, *([number] if number else []))
        task = self.config.task
        if source.path == SYNTHETIC:
            deck = Deck(self.config.scenes, Scenes(self.store, _MAPS.get(task, ())), key)
        else:
            deck = labelled_deck(source, task, self.config.image_size, key)
        how = self.transforms.get("background")
        deck.behind = backgrounds_behind(source, how) if isinstance(how, Background) else None
        return deck

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The samples of `rank` at `step`: the epoch's permutation, dealt out in order."""
        size = self.config.batch
        if size % world:
            raise ValueError(f"batch={size} does not divide among {world} workers: change batch or workers")
        share = size // world
        first = step * size + rank * share
        return collate([self.sample(position) for position in range(first, first + share)], self.config.task)

    def job(self, step: int, rank: int, world: int) -> Key:
        """Which batch to prepare."""
        return Key(step, rank, world)

    def worker(self) -> Preparation:
        """What makes the whole batch in another process, with a copy of this source."""
        return Preparation(self)

    def completed(self, made: Made, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The batch; what was skipped for it is known here from now on."""
        self.skipped.update(made.skipped)
        return made.batch

    def sample(self, position: int) -> tuple[Sample, Array]:
        """The sample of a training position, augmented, and the change of colours that is left to the device.

        A frame in which too little is left is drawn again, and after ten given up: no position is without a sample.
        """
        sample, frame = self.mixture.sample(position)
        task, size = self.config.task, self.config.image_size
        sample, stretch = complete(task, sample), task == "segmentation"
        moved = set(GEOMETRY) & set(self.transforms)
        for attempt in range(TRIES):
            rng = np.random.default_rng([self.config.engine.seed, 2, position, *([attempt] if attempt else [])])
            made = augmented(sample, frame, size, self.transforms, rng, stretch=stretch)
            if not moved or usable(task, made[0]):
                return made
        still = {name: how for name, how in self.transforms.items() if name not in moved}
        return augmented(sample, frame, size, still, rng, stretch=stretch)


class Preparation:
    """Makes batches of a copy of a source in another process, and says which samples were skipped for them."""

    def __init__(self, source: TaskSource) -> None:
        self._source = source

    def __call__(self, key: Key) -> Made:
        """The batch of a key; raises LabelError for a sample that cannot be read and must not be skipped."""
        known = set(self._source.skipped)
        batch = self._source.batch(*key)
        return Made(batch, frozenset(self._source.skipped - known))


def collate(samples: list[tuple[Sample, Array]], task: str) -> dict[str, Tensor]:
    """Stacks images and the labels that a task needs; maps become [B, C, H, W], the images stay uint8 [B, H, W, 3]."""

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(sample, name) for sample, _ in samples]))

    out = {"images": stacked("image"), "photometric": torch.from_numpy(np.stack([p for _, p in samples]))}
    if task == "pose":
        return out | {"keypoints": stacked("keypoints"), "labelled": stacked("labelled")}
    if task == "segmentation":
        return out | {"mask": stacked("mask")}
    field = {"normal": "normals", "pointmap": "points", "albedo": "albedo"}[task]
    out |= {"target": stacked(field).movedim(-1, 1).contiguous(), "valid": stacked("valid").unsqueeze(1)}
    return out | ({"intrinsics": stacked("intrinsics")} if task == "pointmap" else {})
