"""Training batches: a pure function of (seed, step, rank, world)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sapiens2.data.synthetic.store import SceneStore, cache_folder
from sapiens2.tasks.augment import augmented
from sapiens2.tasks.augmentation import Background, augmentation
from sapiens2.tasks.config import SYNTHETIC, DataSource, FinetuneConfig
from sapiens2.tasks.mixture import Deck, Mixture, backgrounds_behind, complete, labelled_deck
from sapiens2.tasks.sample import Sample, from_scene

Array = np.ndarray
_MAPS = {"normal": ("normals",), "pointmap": ("points",), "albedo": ("albedo",)}
"""What a task needs of the scenes' maps."""


class TaskSource:
    """Batches for one task, of synthetic people and labelled data. Scenes are rendered on first use and cached."""

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

    def _deck(self, source: DataSource, number: int) -> Deck:
        # The key of a first source is that of synthetic people alone, whose order has always been so.
        key = (self.config.engine.seed, 1, *([number] if number else []))
        task = self.config.task
        if source.path == SYNTHETIC:
            maps = _MAPS.get(task, ())
            deck = Deck(self.config.scenes, lambda i: (from_scene(self.store.scene(i, maps)), None), key)
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

    def sample(self, position: int) -> tuple[Sample, Array]:
        """The sample of a training position, augmented, and the change of colours that is left to the device."""
        sample, frame = self.mixture.sample(position)
        task, size = self.config.task, self.config.image_size
        rng = np.random.default_rng([self.config.engine.seed, 2, position])
        stretch = task == "segmentation"
        return augmented(complete(task, sample), frame, size, self.transforms, rng, stretch=stretch)


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
