"""Shards to batches: which pictures a step sees, decoded, cropped and masked.

A batch depends on (seed, step, rank, world) alone, so nothing about the data needs saving to continue a run.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from torch import Tensor

from sapiens2.data.order import EpochOrder
from sapiens2.data.shards import Row, Shards
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.views import Picture, sample

REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
MEBIBYTE = 2**20


class PretrainSource:
    """Batches of views; see `sapiens2.engine.objective.BatchSource`.

    A row whose bytes cannot be decoded is skipped: its place is taken by the next readable position of the order, on
    every run alike. `skipped` holds the image ids met so far.
    """

    def __init__(self, files: Sequence[str], config: PretrainConfig) -> None:
        self.config = config
        self.shards = Shards(files, cached_groups=config.shuffle_window + 1)
        self.order = EpochOrder(self.shards.group_sizes, config.engine.seed, config.shuffle_window)
        self.skipped: set[str] = set()
        self._unreadable: set[int] = set()
        self._pictures: dict[int, Picture] = {}
        self._cached_bytes = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(config.decode_threads) if config.decode_threads > 1 else None

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The share of `rank` in the global batch of `step`; keys as in `views.sample`, B in front.

        Raises ValueError when the batch does not divide among the ranks in whole KoLeo groups.
        """
        indices = self.sample_indices(step, rank, world)
        samples = (
            [self._sample(i) for i in indices]
            if self._threads is None
            else list(self._threads.map(self._sample, indices))
        )
        return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}

    def sample_indices(self, step: int, rank: int, world: int) -> range:
        """The samples of a batch, counted from the start of the run; each is also its position in the order."""
        config = self.config
        if config.batch % world:
            raise ValueError(f"batch={config.batch} does not divide among {world} ranks or micro-batches")
        share = config.batch // world
        if config.koleo_weight and share % config.koleo_group:
            raise ValueError(
                f"each of {world} ranks or micro-batches gets {share} images, no multiple of "
                f"koleo_group={config.koleo_group}: use fewer of them or a smaller group"
            )
        first = step * config.batch + rank * share
        return range(first, first + share)

    def _sample(self, index: int) -> dict[str, np.ndarray]:
        return sample(self.picture(index), self.config, index)

    def picture(self, position: int) -> Picture:
        """The first readable picture at or after a position of the order, uint8 [H, W, 3] RGB upright.

        Raises ValueError when no row can be read.
        """
        for offset in range(len(self.shards)):
            with self._lock:
                row = self.order.index(position + offset)
            picture = self._row(row)
            if picture is not None:
                return picture
        raise ValueError(f"none of the {len(self.shards)} pictures of the shards can be decoded; run the export again")

    def _row(self, index: int) -> Picture | None:
        """The decoded picture of a row, from memory if it fits there; None when it cannot be decoded."""
        if index in self._pictures:
            return self._pictures[index]
        if index in self._unreadable:
            return None
        row = self.shards[index]
        picture = decode(row, self._reduction(row))
        with self._lock:
            if picture is None:
                self.skipped.add(row.image_id)
                self._unreadable.add(index)
            elif self._cached_bytes + picture.nbytes <= self.config.cache_mb * MEBIBYTE:
                self._pictures[index] = picture
                self._cached_bytes += picture.nbytes
        return picture

    def _reduction(self, row: Row) -> int:
        """How far the decoder may shrink a picture so that even the smallest crop need not be enlarged for it."""
        config = self.config
        demands = [(config.image_size, config.global_area[0])]
        if config.local_views:
            demands.append((config.local_size, config.local_area[0]))
        needed = [max(size[axis] / low**0.5 for size, low in demands) for axis in (0, 1)]
        return max((f for f in REDUCED if row.height >= f * needed[0] and row.width >= f * needed[1]), default=1)


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
