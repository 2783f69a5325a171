"""Near descriptors of very many pictures: each is compared with the pictures of its own cell and of the next nearest.

One k-means cell per picture, as SemDeDup has it, never compares two copies that fall on either side of a border: 3 to 6
in a hundred pairs. A few more cells per picture find them; smaller cells pay for it. What was found is held against
brute force for a sample of the pictures, in every run, and too low a recall is an error, not a footnote.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.audit.intervals import wilson
from curation.balance.groups import by_label, nearest, nearest_in_groups, one_thread
from curation.balance.kmeans import grouped, kmeans
from curation.dedup.near_lists import Lists, joined, look

Ints = NDArray[np.int64]
Unit = NDArray[np.float32]

CELLS_PER_ROOT, PER_CELL = 2, 100  # cells for N pictures: twice the root of N, from 40,000 on one for each hundred
FIRST_PROBES, _PLACES = 2, 8  # cells that are looked into at first; that are known of a picture without looking again
_ITERATIONS = 10
_TRAINING_ROWS = 32  # per cell
_FLAT = 1024  # up to so many cells a picture is held against every centroid, above that against groups of near ones
_NEAR_GROUPS = 16
_FIRST_SAMPLE, _LARGEST_SAMPLE, _SAMPLE_GROWTH = 1024, 16_384, 3.0
_ENOUGH_PAIRS = 400  # so many, all found, have a lower bound of 0.990; all but one, of 0.986
_CHECKED_SHARE = 0.01  # of the comparisons of a whole search and its first sample, what checking an addition may cost


class RecallTooLow(ValueError):
    """Not enough of the near pairs were found, as a brute-force sample shows."""


@dataclass(frozen=True)
class Search:
    """How near pairs were looked for, and how many of those of a sample were found."""

    cells: int
    probes: int
    comparisons: int
    pictures: int
    sampled_pictures: int
    sampled_pairs: int
    found_pairs: int
    placings: int = 0  # comparisons of pictures with centroids

    @property
    def recall(self) -> float:
        """The share of the sample's pairs that were found; 1 when there are none."""
        return self.found_pairs / self.sampled_pairs if self.sampled_pairs else 1.0

    @property
    def recall_low(self) -> float:
        """The lower end of its 95 % interval (Wilson); 0 when the sample has no pairs."""
        return wilson(self.found_pairs, self.sampled_pairs)[0]

    def good(self, min_recall: float) -> bool:
        """Whether the recall is so high: by its lower bound, and where too few pairs could show that, none missed.

        A sample of all pictures has no bound: its recall is the recall.
        """
        known = self.recall if self.sampled_pictures == self.pictures else self.recall_low
        return known >= min_recall or self.found_pairs == self.sampled_pairs < _ENOUGH_PAIRS


@dataclass(frozen=True)
class Cells:
    """Where rows lie and look: `centroids` [C, D] and `places` [N, P], the nearest cells of each row, its own first.

    One cell that all rows lie in, and one probe, is a comparison of all with all; its centroid is a row of zeros.
    """

    centroids: Unit
    places: Ints

    @property
    def probes(self) -> int:
        """Cells that a row looks into."""
        return self.places.shape[1]

    @property
    def exhaustive(self) -> bool:
        """Whether every row is compared with every other."""
        return len(self.centroids) == 1


@dataclass(frozen=True)
class Found:
    """The lists of all rows, the cells they were found in, and how good the search was; None: nothing was left out."""

    lists: Lists
    cells: Cells
    search: Search | None


@dataclass(frozen=True)
class Earlier:
    """What an earlier search knows of these rows: `old` bool [N] are those that it saw, `lists` theirs.

    cells: its centroids, and the places of the old rows. short: old rows whose list was full and has lost an entry.
    """

    old: NDArray[np.bool_]
    cells: Cells
    lists: Lists
    short: Ints


def all_lists(unit: Unit, k: int, threshold: float) -> Found:
    """The lists of all rows among all rows; unit float32 [N, D], rows of unit length or zero."""
    everything = np.arange(len(unit))
    places = np.zeros((len(unit), 1), np.int64)
    lists, _ = look(unit, places, everything, everything, k, threshold)
    return Found(lists, Cells(np.zeros((1, unit.shape[1]), np.float32), places), None)


def lists_in_cells(
    unit: Unit, k: int, threshold: float, *, min_recall: float = 0.985, seed: int = 0, probes: int = FIRST_PROBES
) -> Found:
    """The lists of all rows among the rows of the cells they look into.

    unit: float32 [N, D], rows of unit length or zero. Probes are doubled until the recall on a sample is good; raises
    RecallTooLow when half the cells are not enough.
    """
    everything = np.arange(len(unit))
    centroids = _centroids(unit, cells_for(len(unit)), seed)
    truth = _sample(unit, k, threshold, seed)
    places, placings = _places(unit, centroids, _PLACES)
    lists, probes, looked, work = joined([], k), min(probes, len(centroids)), 0, 0
    while True:
        if probes > places.shape[1]:
            places, more = _places(unit, centroids, probes)
            placings, lists, looked = placings + more, joined([], k), 0
        further, more = look(unit, places[:, :probes], everything, everything, k, threshold, first=looked)
        lists, looked, work = joined([lists, further], k), probes, work + more
        found = int(np.isin(truth.keys, _keys(lists.pairs(len(unit)), len(unit))).sum())
        counts = (len(unit), truth.pictures, len(truth.keys), found, placings)
        search = Search(len(centroids), probes, work, *counts)
        if search.good(min_recall):
            return Found(lists, Cells(centroids, places[:, :probes]), search)
        if 2 * probes > max(1, len(centroids) // 2):
            raise RecallTooLow(
                f"{found} of {len(truth.keys)} near pairs of a sample were found in the {probes} nearest of "
                f"{len(centroids)} cells, a recall of at least {search.recall_low:.3f}; {min_recall} is asked. "
                f"Descriptors without structure have no cells: check that score wrote them, or raise dedup.exact_rows "
                f"to compare all pairs"
            )
        probes *= 2


def pairs_in_cells(
    unit: Unit, k: int, threshold: float, *, min_recall: float = 0.985, seed: int = 0, probes: int = FIRST_PROBES
) -> tuple[Ints, Search]:
    """Pairs i < j, int64 [E, 2], where one is in the list of the other, and the search; as lists_in_cells."""
    found = lists_in_cells(unit, k, threshold, min_recall=min_recall, seed=seed, probes=probes)
    assert found.search is not None
    return found.lists.pairs(len(unit)), found.search


def more_lists(unit: Unit, earlier: Earlier, k: int, threshold: float, *, min_recall: float = 0.985) -> Found:
    """The lists that a search of all rows in the earlier cells makes, from those it made and the rows it has not seen.

    New rows look among all, old ones among the new. Raises RecallTooLow when new rows show that the cells no longer
    find enough.
    """
    everything, fresh = np.arange(len(unit)), np.flatnonzero(~earlier.old)
    centroids, places = earlier.cells.centroids, earlier.cells.places.copy()
    exhaustive = earlier.cells.exhaustive
    placings = 0
    if not exhaustive and len(fresh):
        places[fresh], placings = _places(unit[fresh], centroids, places.shape[1])
    elif exhaustive:
        places[fresh] = 0
    asking = np.zeros(len(unit), bool)
    asking[fresh] = asking[earlier.short] = True
    theirs, work = look(unit, places, np.flatnonzero(asking), everything, k, threshold)
    back, more = look(unit, places, np.flatnonzero(~asking), fresh, k, threshold)
    kept = earlier.lists.where(~asking[earlier.lists.row])
    lists, cells = joined([kept, theirs, back], k), Cells(centroids, places)
    if exhaustive:
        return Found(lists, cells, None)
    of_a_row = placings / max(len(fresh), 1) + len(unit) * places.shape[1] / len(centroids) + _FIRST_SAMPLE
    rows = fresh[: int(_CHECKED_SHARE * of_a_row) + 1]
    truth = _truth(unit, rows, k, threshold)
    found = int(np.isin(truth, _keys(lists.pairs(len(unit)), len(unit))).sum())
    counts = (len(unit), len(rows), len(truth), found, placings)
    search = Search(len(centroids), places.shape[1], work + more, *counts)
    if wilson(found, len(truth))[1] < min_recall:
        raise RecallTooLow(
            f"{found} of {len(truth)} near pairs of new pictures were found in the cells of dedup.previous; "
            f"{min_recall} is asked: the pictures have become others, so run once without dedup.previous"
        )
    return Found(lists, cells, search)


@dataclass(frozen=True)
class _Sample:
    pictures: int
    keys: Ints  # i * N + j of each near pair that a sampled picture has


def cells_for(n: int) -> int:
    """How many cells `n` pictures are put into. In proportion to them, so that a picture meets as many in any pool."""
    return max(1, min(max(round(CELLS_PER_ROOT * np.sqrt(n)), n // PER_CELL), n // 2))


def _centroids(unit: Unit, cells: int, seed: int) -> Unit:
    """Centroids of about so many cells [C, D]: clusters of a sample, each clustered again, so that a row of the sample
    costs two square roots of the cells."""
    wanted = min(len(unit), _TRAINING_ROWS * cells)
    sample = unit[np.sort(np.random.default_rng(seed).permutation(len(unit))[:wanted])]
    top = kmeans(sample, max(1, round(np.sqrt(cells))), seed, _ITERATIONS, retries=1)
    parts = []
    for members in by_label(top.member, len(top.centroids)):
        own = max(1, round(cells * len(members) / wanted))
        parts.append(kmeans(sample[members], own, seed, _ITERATIONS, retries=1).centroids)
    return np.concatenate(parts)


def _places(unit: Unit, centroids: Unit, probes: int) -> tuple[Ints, int]:
    """(the nearest cells of each row, nearest first, int64 [N, probes]; comparisons of rows with centroids).

    A function of each row and the centroids alone: an addition finds the cells that a whole search would. Fewer cells
    than there are probes are all of them.
    """
    probes = min(probes, len(centroids))
    with one_thread():
        if len(centroids) <= _FLAT:
            return nearest(unit, centroids, probes), len(unit) * len(centroids)
        groups = grouped(centroids, round(np.sqrt(len(centroids))), 0)
        near = nearest_in_groups(unit, centroids, groups, _NEAR_GROUPS, max(probes, _PLACES))
        return near[:, :probes], len(unit) * (len(groups.held) + _NEAR_GROUPS * len(centroids) // len(groups.held))


def _sample(unit: Unit, k: int, threshold: float, seed: int) -> _Sample:
    """Near pairs of pictures drawn at random, by brute force: as many pictures as have enough pairs.

    How many that takes is told by the pairs of the first. When to stop depends on how many pairs there are, not on
    whether the search finds them, so the recall of the sample is not bent by it.
    """
    drawn = np.random.default_rng(seed).permutation(len(unit))[:_LARGEST_SAMPLE]
    keys, size, done = np.zeros(0, np.int64), _FIRST_SAMPLE, 0
    while done < len(drawn) and len(keys) < _ENOUGH_PAIRS:
        rows = np.sort(drawn[done : done + size])
        keys = np.union1d(keys, _truth(unit, rows, k, threshold))
        done += len(rows)
        missing = _ENOUGH_PAIRS / max(len(keys), 1) - 1
        size = max(_FIRST_SAMPLE, round(done * min(missing, _SAMPLE_GROWTH)))
    return _Sample(done, keys)


def _truth(unit: Unit, rows: Ints, k: int, threshold: float) -> Ints:
    """Keys of the pairs of these rows and their nearest among all."""
    lists, _ = look(unit, np.zeros((len(unit), 1), np.int64), rows, np.arange(len(unit)), k, threshold)
    return _keys(lists.pairs(len(unit)), len(unit))


def _keys(pairs: Ints, n: int) -> Ints:
    keys: Ints = pairs @ np.array([n, 1])
    return keys
