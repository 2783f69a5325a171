"""A model's answers beside the constant one, measured as they come: no picture is kept but those that are drawn.

Albedo stands beside the picture itself too: where there is little shading, that is a good answer and nothing learned.
A test set at its labels' own size does not fit into memory; what stays of a sample is a row of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from sapiens2.evaluation.baselines import picture_answer
from sapiens2.evaluation.bootstrap import Estimate, bootstrap
from sapiens2.evaluation.headline import Headline, headline_sums
from sapiens2.evaluation.measure import TALLIES, Answer, PoseTally
from sapiens2.tasks.sample import Sample

NAMES = ("model", "baseline")
PICTURE = "picture"
"""The picture itself, a second baseline where it can be an answer: of albedo."""


class Item(NamedTuple):
    """A sample, what the model says of it, and what the constant answer says."""

    sample: Sample
    answer: Answer
    constant: Answer


def synthetic_items(
    samples: Iterable[Sample], constant: Answer, answer: Callable[[list[Sample]], list[Answer]], batch: int
) -> Iterator[Item]:
    """Samples of one size, a batch of answers at a time."""
    for chunk in _batches(samples, batch):
        yield from (Item(sample, given, constant) for sample, given in zip(chunk, answer(chunk), strict=True))


def _batches(samples: Iterable[Sample], batch: int) -> Iterator[list[Sample]]:
    stream = iter(samples)
    while chunk := list(islice(stream, batch)):
        yield chunk


class Compared:
    """What stays of a test set: sums of every sample under the model and the constant answer, and a few to draw."""

    def __init__(self, task: str, *, pictures: int, keep_poses: bool = False, on: Sequence[str] | None = None) -> None:
        """pictures: how many samples are kept whole; keep_poses: all keypoints stay, without their pictures.

        on: the picture of each sample to come; poses are then measured and resampled by picture.
        """
        self.task, self.pictures, self.keep_poses, self.on = task, pictures, keep_poses, on
        self.shown: list[Item] = []
        self.poses: list[tuple[Sample, Answer]] = []
        self.count = 0
        self.names = (*NAMES, PICTURE) if task == "albedo" else NAMES
        self._tallies = {name: TALLIES[task]() for name in self.names}
        self._sums: dict[str, list[np.ndarray]] = {name: [] for name in self.names}

    def take(self, items: Iterable[Item]) -> None:
        """Measures every item and lets go of it."""
        for item in items:
            for name, given in zip(self.names, self._answers(item), strict=True):
                self._tallies[name].add(given, item.sample)
                self._sums[name].append(headline_sums(self.task, given, item.sample))
            if self.count < self.pictures:
                self.shown.append(item)
            if self.keep_poses:
                self.poses.append((replace(item.sample, image=item.sample.image[:0]), item.answer))
            self.count += 1

    def part(self, first: int) -> Compared:
        """One of the same kind that has taken nothing, for the samples from `first` on."""
        return Compared(self.task, pictures=max(0, self.pictures - first), keep_poses=self.keep_poses)

    def absorb(self, later: Compared) -> None:
        """Takes in all that another one of the same kind has measured after this."""
        for name in self.names:
            self._tallies[name].extend(later._tallies[name])
            self._sums[name] += later._sums[name]
        self.shown += later.shown
        self.poses += later.poses
        self.count += later.count

    def _answers(self, item: Item) -> list[Answer]:
        shown = picture_answer(self.task, item.sample)
        return [item.answer, item.constant, *([] if shown is None else [shown])]

    def estimates(self, *, rounds: int, seed: int) -> dict[str, dict[str, Estimate]]:
        """Every metric of `model`, `baseline` and, of albedo, `picture`, with its interval.

        Raises ValueError without a sample.
        """
        if not self.count:
            raise ValueError("there are no images to evaluate; raise n_test or give a split that has some")
        found = {}
        for name, tally in self._tallies.items():
            whole = (tally.statistic(), self.count)
            statistic, count = tally.by_picture(self.on) if self.on and isinstance(tally, PoseTally) else whole
            found[name] = bootstrap(statistic, count, rounds=rounds, seed=seed)
        return found

    def headlines(self) -> dict[str, Headline]:
        """The main metric of the same, from sums of single images."""
        return {name: Headline(self.task, np.stack(self._sums[name])) for name in self.names}
