"""Training batches: a pure function of (seed, step, rank, world)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sapiens2.data.synthetic.store import SceneStore, cache_folder
from sapiens2.tasks.config import SYNTHETIC, DataSource, FinetuneConfig
from sapiens2.tasks.mixture import Deck, Mixture, complete, labelled_deck
from sapiens2.tasks.sample import Sample, flip, from_scene

Array = np.ndarray
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32.0, 0.5, 0.5, 0.1


class TaskSource:
    """Batches for one task, of synthetic people and labelled data. Scenes are rendered on first use and cached."""

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config
        height, width = config.image_size
        folder = cache_folder() if config.cache_scenes else None
        self.store = SceneStore(config.scenes, height, width, "train", config.scene_seed, folder=folder)
        sources = config.sources or (DataSource(),)
        decks = [self._deck(source, number) for number, source in enumerate(sources)]
        weights = [source.weight for source in sources]
        self.mixture = Mixture(decks, weights, config.engine.seed, skip=config.unreadable == "skip")

    def _deck(self, source: DataSource, number: int) -> Deck:
        # The key of a first source is that of synthetic people alone, whose order has always been so.
        key = (self.config.engine.seed, 1, *([number] if number else []))
        task = self.config.task
        if source.path == SYNTHETIC:
            return Deck(self.config.scenes, lambda i: complete(task, from_scene(self.store.scene(i))), key)
        return labelled_deck(source, task, self.config.image_size, key)

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The samples of `rank` at `step`: the epoch's permutation, dealt out in order."""
        size = self.config.batch
        if size % world:
            raise ValueError(f"batch={size} does not divide among {world} workers: change batch or workers")
        share = size // world
        first = step * size + rank * share
        return collate([self._sample(position) for position in range(first, first + share)], self.config.task)

    def _sample(self, position: int) -> tuple[Sample, Array]:
        sample = self.mixture.sample(position)
        rng = np.random.default_rng([self.config.engine.seed, 2, position])
        if rng.random() < self.config.flip:
            sample = flip(sample)
        changes = self.config.task != "albedo" and rng.random() < self.config.photometric
        return sample, draw_photometric(rng) if changes else NEUTRAL


NEUTRAL = np.array([0.0, 1.0, 1.0, 0.0], np.float32)


def draw_photometric(rng: np.random.Generator) -> Array:
    """Brightness offset (0..255 scale), contrast, saturation and hue shift (radians), each with probability 1/2."""
    ranges = ((-BRIGHTNESS, BRIGHTNESS), (1 - CONTRAST, 1 + CONTRAST), (1 - SATURATION, 1 + SATURATION), (-HUE, HUE))
    drawn = np.array([rng.uniform(*r) for r in ranges], np.float32)
    return np.where(rng.random(4) < 0.5, drawn, NEUTRAL).astype(np.float32)


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
