"""Training samples from several sources: synthetic people and folders of labels, mixed by weight.

Which source a position of training takes, and which of its samples, is a pure function of (seed, position): positions
come in blocks, in each of which every source has its share in a keyed order, and each source deals out its own samples
in a new permutation per epoch. A point that a source does not label carries no weight in the loss.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from sapiens2.data.labelled import LabelError, LabelledDataset
from sapiens2.tasks.affine import region_matrix, warp
from sapiens2.tasks.augmentation import Background
from sapiens2.tasks.backgrounds import Backgrounds
from sapiens2.tasks.config import SYNTHETIC, DataSource
from sapiens2.tasks.regions import person_region, whole_region
from sapiens2.tasks.sample import Sample

Array = np.ndarray
BLOCK = 1000  # positions in which shares are exact to a thousandth
LEAST_PX = 2.0  # sides of a box around keypoints: one or several in a line span no area that could be framed
BEHIND = 1 << 20  # told apart from epochs in the key of a draw
_LOG = logging.getLogger(__name__)


def frame_region(task: str, sample: Sample, size: tuple[int, int]) -> Array:
    """What the network sees of a labelled picture, as in prediction: the person of a pose, else the whole picture."""
    if task == "pose":
        return person_region(person_box(sample), size[1] / size[0])
    return whole_region(sample.image.shape[:2], size, stretch=task == "segmentation")


def person_box(sample: Sample) -> Array:
    """The box of a sample, else that of its keypoints, else the whole picture: float32 x0, y0, x1, y1.

    A box of keypoints has sides of `LEAST_PX` or more. Keypoints closer together, or one alone, do not say how large
    the person is: such a one is shown in the whole picture. Every box is one that `predict` takes.
    """
    if sample.box is not None:
        return sample.box
    low, high = np.zeros(2), np.array(sample.image.shape[1::-1], np.float64) - 1
    if sample.keypoints is not None and sample.labelled is not None and sample.labelled.any():
        xy = sample.keypoints[sample.labelled].astype(np.float64)
        if np.ptp(xy, axis=0).max() >= LEAST_PX:
            low, high = xy.min(0), xy.max(0)
    grow = np.maximum(LEAST_PX - (high - low), 0) / 2
    return np.concatenate([low - grow, high + grow]).astype(np.float32)


def framed(task: str, sample: Sample, size: tuple[int, int]) -> Sample:
    """A labelled sample as the network sees it, of size (height, width)."""
    return warp(sample, region_matrix(frame_region(task, sample, size), size), size)


Framed = tuple[Sample, Array | None]
"""A sample, and the affine map [2, 3] that frames it for the network; None where it fills the frame already."""


@dataclass
class Deck:
    """The samples of one source, dealt out in a permutation per epoch; `behind` puts other backgrounds into them."""

    count: int
    sample: Callable[[int], Framed]
    key: tuple[int, ...]
    behind: Callable[[Sample, np.random.Generator], Sample] | None = None
    _order: tuple[int, Array] = field(default=(-1, np.zeros(0, int)), repr=False)

    def index(self, position: int) -> int:
        """Which of the samples a position takes."""
        epoch, place = divmod(position, self.count)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([*self.key, epoch]).permutation(self.count))
        return int(self._order[1][place])

    def deal(self, position: int) -> Framed:
        """The sample of a position; raises LabelError for one that cannot be read."""
        sample, frame = self.sample(self.index(position))
        if self.behind is not None:
            sample = self.behind(sample, np.random.default_rng([*self.key, BEHIND, position]))
        return sample, frame


class Mixture:
    """Decks by weight. `unreadable` has the samples that were skipped here, where skipping is allowed.

    Each is there as `deck:index`, which stays the same when a folder moves between two starts of a run.
    """

    def __init__(self, decks: list[Deck], weights: list[float], seed: int, *, skip: bool = False) -> None:
        self.decks, self.seed, self.skip = decks, seed, skip
        self.quota = shares(weights)
        self.unreadable: set[str] = set()
        self._block: tuple[int, Array] = (-1, np.zeros(0, int))

    def sample(self, position: int) -> Framed:
        """The sample of a training position and its frame; the next readable one where skipping is allowed.

        The next ones are the rest of this epoch and then the whole of the following one: no sample is left untried.
        """
        number, place = self._find(position)
        deck = self.decks[number]
        tried: set[int] = set()
        for taken in range(place, place + 2 * deck.count):
            index = deck.index(taken)
            if index in tried:
                continue
            try:
                return deck.deal(taken)
            except LabelError as error:
                if not self.skip:
                    raise
                tried.add(index)
                name = f"{number}:{index}"
                if name not in self.unreadable:
                    _LOG.warning("skipped: %s", error)
                self.unreadable.add(name)
        raise LabelError(
            "labelled data", "no sample of a source can be read", "run `sapiens2 data check` on its folder"
        )

    def taken(self, positions: int) -> list[int]:
        """How many of the first `positions` each deck has, skipped samples counted as the ones in their place."""
        if len(self.decks) == 1:
            return [positions]
        block, place = divmod(positions, BLOCK)
        part = np.bincount(self._chosen(block)[:place], minlength=len(self.decks))
        return [int(count) for count in block * self.quota + part]

    def _chosen(self, block: int) -> Array:
        """The deck of each position of a block: int [BLOCK]."""
        if self._block[0] != block:
            dealt = np.repeat(np.arange(len(self.decks)), self.quota)
            self._block = (block, np.random.default_rng([self.seed, 4, block]).permutation(dealt))
        return self._block[1]

    def _find(self, position: int) -> tuple[int, int]:
        """The number of the deck, and the position in it."""
        if len(self.decks) == 1:
            return 0, position
        block, place = divmod(position, BLOCK)
        chosen = self._chosen(block)
        source = int(chosen[place])
        return source, block * int(self.quota[source]) + int((chosen[:place] == source).sum())


def shares(weights: list[float]) -> Array:
    """Positions of a block per source, by largest remainder, at least one each: int [S], sum BLOCK."""
    exact = np.array(weights, float) / sum(weights) * BLOCK
    quota = np.maximum(np.floor(exact).astype(int), 1)
    for k in np.argsort(quota - exact, kind="stable")[: max(0, BLOCK - int(quota.sum()))]:
        quota[k] += 1
    quota[np.argmax(quota)] += BLOCK - quota.sum()
    return quota


@dataclass(frozen=True)
class Labelled:
    """The samples of a folder of labels, each at its own size, with its frame. It can go to another process."""

    dataset: LabelledDataset
    task: str
    size: tuple[int, int]

    def __call__(self, index: int) -> Framed:
        """The sample of an index; raises LabelError for one that cannot be read."""
        sample = self.dataset.sample(index)
        return sample, region_matrix(frame_region(self.task, sample, self.size), self.size)


def labelled_deck(source: DataSource, task: str, size: tuple[int, int], key: tuple[int, ...]) -> Deck:
    """A folder of labels, each sample at its own size. Raises LabelError for a folder without such labels."""
    assert source.path != SYNTHETIC
    dataset = LabelledDataset(source.path, task, source.split)
    return Deck(len(dataset), Labelled(dataset, task, size), key)


@dataclass(frozen=True)
class Behind:
    """Puts other backgrounds behind people, with the probability of the transform. It can go to another process."""

    found: Backgrounds
    how: Background

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample before another background, or as it is."""
        return self.found.behind(sample, self.how, rng) if rng.random() < self.how.p else sample


def backgrounds_behind(source: DataSource, how: Background) -> Behind | None:
    """What changes the backgrounds of a source's samples; None where it names no pictures."""
    if not source.backgrounds:
        return None
    return Behind(Backgrounds(source.backgrounds), how)


def complete(task: str, sample: Sample) -> Sample:
    """The sample without what its task does not use, so that all sources collate alike."""
    keep = {
        "pose": ("keypoints", "labelled"),
        "segmentation": ("mask",),
        "normal": ("normals", "valid"),
        "pointmap": ("points", "valid", "intrinsics"),
        "albedo": ("albedo", "valid"),
    }[task]
    return replace(Sample(image=sample.image), **{name: getattr(sample, name) for name in keep})
