"""Shards to batches: which pictures a step sees, decoded, cropped and masked.

A batch depends on (seed, step, rank, world) alone, so nothing about the data needs saving to continue a run.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sapiens2.data.order import EpochOrder
from sapiens2.data.shards import Row, Shards
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.keyed import Stream, generator
from sapiens2.pretrain.person_crops import region_of
from sapiens2.pretrain.preparation import Preparation, Prepared, decode, reduction, stacked
from sapiens2.pretrain.views import Picture, sample

MEBIBYTE = 2**20
MOST_PASSED_OVER = 16  # rows in front of one that are too small for their draws; the next is taken as it is


class PretrainSource:
    """Batches of views; see `sapiens2.engine.objective.SharedSource`.

    A row whose bytes cannot be decoded is skipped: its place is taken by the next readable position of the order, on
    every run alike. `skipped` holds the image ids met so far.
    """

    def __init__(self, files: Sequence[str], config: PretrainConfig) -> None:
        self.config = config
        self.shards = Shards(files, cached_groups=config.shuffle_window + 1, persons=config.person_crops > 0)
        self.order = EpochOrder(self.shards.group_sizes, config.engine.seed, config.shuffle_window)
        self.skipped: set[str] = set()
        self._unreadable: set[int] = set()
        self._pictures: dict[int, tuple[Picture, Row]] = {}  # without the rows' encoded bytes
        self._cached_bytes = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(config.decode_threads) if config.decode_threads > 1 else None

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The share of `rank` in the global batch of `step`; keys as in `views.sample`, B in front.

        Raises ValueError when the batch does not divide among the ranks.
        """
        indices = self.sample_indices(step, rank, world)
        if self._threads is None:
            return stacked([self._sample(i) for i in indices])
        return stacked(list(self._threads.map(self._sample, indices)))

    def job(self, step: int, rank: int, world: int) -> list[tuple[int, Row]]:
        """The sample indices of a batch and their encoded pictures, rows known to be unreadable passed over."""
        job = []
        for index in self.sample_indices(step, rank, world):
            row = next((r for r in self._rows_from(index) if r not in self._unreadable), None)
            if row is None:
                raise self._nothing_readable()
            job.append((index, self.shards[row]))
        return job

    def worker(self) -> Preparation:
        """What makes samples of a job."""
        return Preparation(self.config)

    def completed(self, made: Prepared, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The batch: where a picture could not be decoded, the next readable one is taken here, as `batch` does."""
        if not made.holes:
            return made.batch
        indices = self.sample_indices(step, rank, world)
        mended = {place: self._sample(indices[place]) for place in made.holes}
        if not made.batch:
            return stacked([mended[place] for place in range(len(indices))])
        for place, own in mended.items():
            for name, array in own.items():
                made.batch[name][place] = torch.from_numpy(array)
        return made.batch

    def sample_indices(self, step: int, rank: int, world: int) -> range:
        """The samples of a batch, counted from the start of the run; each is also its position in the order."""
        config = self.config
        if config.batch % world:
            raise ValueError(f"batch={config.batch} does not divide among {world} ranks or micro-batches")
        share = config.batch // world
        first = step * config.batch + rank * share
        return range(first, first + share)

    def _sample(self, index: int) -> dict[str, np.ndarray]:
        picture, row = self._readable(index)
        return sample(picture, self.config, index, region_of(row, self.config, index))

    def picture(self, position: int) -> Picture:
        """The first readable picture at or after a position of the order, uint8 [H, W, 3] RGB upright.

        Raises ValueError when no row can be read.
        """
        return self._readable(position)[0]

    def _readable(self, position: int) -> tuple[Picture, Row]:
        for index in self._rows_from(position):
            found = self._picture(index)
            if found is not None:
                return found
        raise self._nothing_readable()

    def _rows_from(self, position: int) -> Iterator[int]:
        """The rows from a position of the order on, until each row has come at least once.

        The first ones are passed over with a probability where small pictures are to be seen less often.
        """
        power, seed = self.config.resolution_power, self.config.engine.seed
        draws = generator(seed, Stream.RESOLUTION, position).random(MOST_PASSED_OVER) if power else ()
        for offset in range(2 * len(self.shards)):  # a row may come first in this epoch and last in the next
            with self._lock:
                row = self.order.index(position + offset)
            if offset < len(draws) and draws[offset] >= self._sharpness(row) ** power:
                continue
            yield row

    def _sharpness(self, index: int) -> float:
        """The side of a picture over that of a whole global view, at most 1: what is below 1 must be invented."""
        row, (height, width) = self.shards[index], self.config.image_size
        return min(1.0, ((row.width * row.height) / (height * width)) ** 0.5)

    def _nothing_readable(self) -> ValueError:
        return ValueError(f"none of the {len(self.shards)} pictures of the shards can be decoded; run the export again")

    def _picture(self, index: int) -> tuple[Picture, Row] | None:
        """The decoded picture of a row and the row, from memory if it fits there; None when it cannot be decoded."""
        if index in self._pictures:
            return self._pictures[index]
        if index in self._unreadable:
            return None
        row = self.shards[index]
        picture = decode(row, reduction(row, self.config))
        with self._lock:
            if picture is None:
                self.skipped.add(row.image_id)
                self._unreadable.add(index)
            elif self._cached_bytes + picture.nbytes <= self.config.cache_mb * MEBIBYTE:
                self._pictures[index] = picture, replace(row, data=b"")
                self._cached_bytes += picture.nbytes
        return None if picture is None else (picture, row)
