"""The scenes of a frozen probe: what is fitted on, what selects a checkpoint, what reports it.

fit: training families. val: the same families, seeds of their own. test: held-out families, for the dense tasks.
transfer: the fitted pose families in held-out patterns and backgrounds, for questions whose classes must be known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import repeat

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.data.synthetic.store import SceneStore, cache_folder
from sapiens2.evaluation.baselines import mean_map, picture_answer
from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.headline import headline
from sapiens2.tasks.pointmap_losses import mean_depth
from sapiens2.tasks.pointmap_scale import canonical_scale
from sapiens2.tasks.sample import Sample, from_scene
from sapiens2.tasks.vocabulary import parts

Array = np.ndarray
Pixels = tuple[int, int]
VALIDATION_SEED = 1_000_000  # scene_seed is below it, so no validation scene is ever fitted on
BASELINE_SCENES = 256
SPLITS = ("val", "test")
SEMANTIC = {"val": "val", "test": "transfer"}
"""Which scenes the questions about the whole picture are put to, by the split that is measured."""


class ProbeScenes:
    """Samples, pictures and pose classes of the four sets; rendered at first use, shared by all backbones."""

    def __init__(self, config: ProbeConfig) -> None:
        folder = cache_folder() if config.cache_scenes else None
        seed, size = config.scene_seed, config.image_size
        sets = {
            "fit": ("train", config.n_train, seed),
            "val": ("train", config.n_val, VALIDATION_SEED + seed),
            "test": ("test", config.n_test, seed),
            "transfer": ("transfer", config.n_test, seed),
        }
        self._baselines: dict[tuple[str, str], float] = {}
        self._stores = {
            name: SceneStore(count, *size, split, first, folder=folder) for name, (split, count, first) in sets.items()
        }

    def count(self, name: str) -> int:
        """How many scenes a set has."""
        return self._stores[name].count

    def samples(self, name: str) -> Iterator[Sample]:
        """The samples of a set, one at a time."""
        store = self._stores[name]
        return (from_scene(store.scene(index)) for index in range(store.count))

    def images(self, name: str) -> list[Array]:
        """The pictures of a set, uint8 [H, W, 3]."""
        return [sample.image for sample in self.samples(name)]

    def classes(self, name: str) -> list[str]:
        """The pose family of each scene of a set."""
        store = self._stores[name]
        return [store.scene(index).pose for index in range(store.count)]

    def baseline(self, task: str, split: str) -> float:
        """The main metric of the mean of the fitted labels on a split."""
        if (task, split) not in self._baselines:
            constant = mean_map(task, self.fitted[:BASELINE_SCENES])
            found = headline(task, repeat(constant, self.count(split)), self.samples(split))
            self._baselines[task, split] = found.value(np.arange(self.count(split)))
        return self._baselines[task, split]

    def picture(self, split: str) -> float:
        """The main metric of albedo, of the pictures of a split themselves."""
        if ("picture", split) not in self._baselines:
            given = (picture_answer("albedo", sample) or {} for sample in self.samples(split))
            found = headline("albedo", given, self.samples(split))
            self._baselines["picture", split] = found.value(np.arange(self.count(split)))
        return self._baselines["picture", split]

    @cached_property
    def fitted(self) -> list[Sample]:
        """The samples that probes are fitted on."""
        return list(self.samples("fit"))


Targets = dict[str, Tensor]


def targets(task: str, samples: Sequence[Sample], size: Pixels) -> Targets:
    """Labels on a decoder's grid of `size` (rows, columns), which is coarser than the picture.

    pose: keypoints [N, 308, 2] in pixels of the picture and labelled [N, 308]; segmentation: the commonest class of
    each cell [N, h, w]; others: `target` [N, 3, h, w], the mean over the person's part of a cell, and `valid`
    [N, 1, h, w], cells that the person covers by half. Points are canonical and divided by their mean depth.
    """
    if task == "pose":
        stacked = {"keypoints": np.stack([s.keypoints for s in samples if s.keypoints is not None])}
        stacked["labelled"] = np.stack([s.labelled for s in samples if s.labelled is not None])
        return {name: torch.from_numpy(array) for name, array in stacked.items()}
    if task == "segmentation":
        return {"mask": torch.stack([_commonest(sample, size) for sample in samples])}
    pairs = [_covered(task, sample, size) for sample in samples]
    return {"target": torch.cat([a for a, _ in pairs]), "valid": torch.cat([b for _, b in pairs])}


def _commonest(sample: Sample, size: Pixels) -> Tensor:
    assert sample.mask is not None
    planes = F.one_hot(torch.from_numpy(sample.mask).long(), len(parts())).movedim(-1, 0).float()
    return F.adaptive_avg_pool2d(planes, size).argmax(0).to(torch.uint8)


def _covered(task: str, sample: Sample, size: Pixels) -> tuple[Tensor, Tensor]:
    field = {"normal": "normals", "pointmap": "points", "albedo": "albedo"}[task]
    assert sample.valid is not None
    values = torch.from_numpy(getattr(sample, field)).movedim(-1, 0)[None]
    mask = torch.from_numpy(np.asarray(sample.valid))[None, None]
    if task == "pointmap":
        assert sample.intrinsics is not None
        values = values * canonical_scale(torch.from_numpy(sample.intrinsics)[None], values.shape[-1])
        values = values / mean_depth(values, mask)
    share = F.adaptive_avg_pool2d(mask.float(), size)
    mean = F.adaptive_avg_pool2d(torch.where(mask, values, torch.zeros_like(values)), size) / share.clamp(min=1e-6)
    mean = F.normalize(mean, dim=1) if task == "normal" else mean
    return mean, share >= 0.5
