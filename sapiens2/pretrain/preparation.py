"""From encoded pictures to samples, wherever that runs: in the training process, or in one beside it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from sapiens2.data.shards import Row
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.person_crops import narrowest, region_of
from sapiens2.pretrain.views import Picture, sample

REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class Prepared(NamedTuple):
    """A batch, but for the samples whose picture could not be decoded."""

    batch: dict[str, Tensor]
    holes: list[int]  # their places in the batch


class Preparation:
    """Makes samples of (sample index, row) pairs; see `sapiens2.engine.objective.SharedSource`."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    def __call__(self, job: list[tuple[int, Row]]) -> Prepared:
        """Decode and crop; a picture that cannot be decoded leaves a hole of zeros."""
        made = [self._sample(index, row) for index, row in job]
        whole = next((s for s in made if s is not None), None)
        if whole is None:
            return Prepared({}, list(range(len(job))))
        blank = {name: np.zeros_like(array) for name, array in whole.items()}
        holes = [place for place, s in enumerate(made) if s is None]
        return Prepared(stacked([s or blank for s in made]), holes)

    def _sample(self, index: int, row: Row) -> dict[str, np.ndarray] | None:
        picture = decode(row, reduction(row, self.config))
        return None if picture is None else sample(picture, self.config, index, region_of(row, self.config, index))


def stacked(samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Samples as a batch: keys as in `views.sample`, B in front."""
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


def reduction(row: Row, config: PretrainConfig) -> int:
    """How far the decoder may shrink a picture so that even the smallest crop need not be enlarged for it."""
    demands = [(config.image_size, config.global_area[0])]
    if config.local_views:
        demands.append((config.local_size, config.local_area[0]))
    needed = [max(size[axis] / low**0.5 for size, low in demands) for axis in (0, 1)]
    height, width = narrowest(row, config)
    return max((f for f in REDUCED if height >= f * needed[0] and width >= f * needed[1]), default=1)


def decode(row: Row, reduction: int) -> Picture | None:
    """The pixels of a row, upright, at 1 / reduction of their size; None for bytes that are no picture."""
    if not row.data:
        return None
    try:
        pixels = cv2.imdecode(np.frombuffer(row.data, np.uint8), REDUCED[reduction])
    except cv2.error:  # what OpenCV raises for some truncated files; the caller counts the row
        return None
    if pixels is None:
        return None
    return np.asarray(pixels if reduction == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)
