"""Near descriptors of very many pictures: each is compared with the pictures of its own cell and of the next nearest.

One k-means cell per picture, as SemDeDup has it, never compares two copies that fall on either side of a border: 3 to 6
in a hundred pairs. A few more cells per picture find them; smaller cells pay for it. What was found is held against
brute force for a sample of the pictures, in every run, and too low a recall is an error, not a footnote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.audit.intervals import wilson

Ints = NDArray[np.int64]
Unit = NDArray[np.float32]

QUERIES = 4096
CELLS_PER_ROOT = 4  # cells for N pictures: this times the square root of N
FIRST_PROBES = 4
_ITERATIONS = 10
_TRAINING_ROWS = 64  # per cell
_FIRST_SAMPLE, _LARGEST_SAMPLE = 1024, 16_384
_ENOUGH_PAIRS = 400  # so many, all found, have a lower bound of 0.990


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


def pairs_in_cells(
    unit: Unit, k: int, threshold: float, *, min_recall: float = 0.985, seed: int = 0, probes: int = FIRST_PROBES
) -> tuple[Ints, Search]:
    """Pairs i < j, int64 [E, 2], where one is among the k nearest of the other in the cells looked at, and the search.

    unit: float32 [N, D], rows of unit length or zero. Pairs are those with a cosine of about `threshold` and more:
    float32, so check again what lies at the edge. Probes are doubled until the recall on the sample is good; raises
    RecallTooLow when half the cells are not enough.
    """
    cells = max(1, min(round(CELLS_PER_ROOT * np.sqrt(len(unit))), len(unit) // 2))
    index, sizes = _index(unit, cells, seed)
    truth = _sample(unit, k, threshold, seed)
    probes = min(probes, cells)
    while True:
        index.nprobe = probes
        pairs = _either(*_nearest(index, unit, k, threshold), len(unit))
        found = int(np.isin(truth.keys, pairs @ np.array([len(unit), 1])).sum())
        work = _comparisons(index, unit, sizes, probes)
        search = Search(cells, probes, work, len(unit), truth.pictures, len(truth.keys), found)
        if search.good(min_recall):
            return pairs, search
        if 2 * probes > max(1, cells // 2):
            raise RecallTooLow(
                f"{found} of {len(truth.keys)} near pairs of a sample were found in the {probes} nearest of {cells} "
                f"cells, a recall of at least {search.recall_low:.3f}; {min_recall} is asked. Descriptors without "
                f"structure have no cells: check that score wrote them, or raise dedup.exact_rows to compare all pairs"
            )
        probes *= 2


@dataclass(frozen=True)
class _Sample:
    pictures: int
    keys: Ints  # i * N + j of each near pair that a sampled picture has


def _index(unit: Unit, cells: int, seed: int) -> tuple[Any, Ints]:
    """An inverted file over k-means cells with all rows in it, and the rows in each cell."""
    import faiss

    dim = unit.shape[1]
    kmeans = faiss.Kmeans(
        dim, cells, niter=_ITERATIONS, spherical=True, seed=seed, max_points_per_centroid=_TRAINING_ROWS,
        min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(unit)
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(np.asarray(kmeans.centroids))
    index = faiss.IndexIVFFlat(quantizer, dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(unit[:1])  # the quantizer is trained
    index.add(unit)
    lists: Any = index.invlists
    sizes = np.array([lists.list_size(cell) for cell in range(cells)], np.int64)
    return index, sizes


def _sample(unit: Unit, k: int, threshold: float, seed: int) -> _Sample:
    """Near pairs of pictures drawn at random, by brute force: more pictures until there are enough pairs."""
    import faiss

    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    drawn = np.random.default_rng(seed).permutation(len(unit))[:_LARGEST_SAMPLE]
    keys, size, done = [np.zeros(0, np.int64)], _FIRST_SAMPLE, 0
    while done < len(drawn) and sum(map(len, keys)) < 2 * _ENOUGH_PAIRS:
        rows = np.sort(drawn[done : done + size])
        row, near = _nearest(index, unit[rows], k, threshold, rows)
        pairs = _either(row, near, len(unit))
        keys.append(pairs @ np.array([len(unit), 1]))
        done, size = done + len(rows), 2 * size
    return _Sample(done, np.unique(np.concatenate(keys)))


def _nearest(index: Any, queries: Unit, k: int, threshold: float, rows: Ints | None = None) -> tuple[Ints, Ints]:
    """(row, neighbour) of every neighbour among the k nearest at `threshold` or above."""
    rows = np.arange(len(queries)) if rows is None else rows
    found_rows, found = [], []
    for start in range(0, len(queries), QUERIES):
        cosine, near = index.search(queries[start : start + QUERIES], min(k + 1, index.ntotal))
        at, column = np.nonzero((near >= 0) & (cosine >= threshold))
        found_rows.append(rows[start + at])
        found.append(near[at, column])
    return np.concatenate(found_rows), np.concatenate(found).astype(np.int64)


def _either(row: Ints, near: Ints, n: int) -> Ints:
    keys = np.unique((np.minimum(row, near) * n + np.maximum(row, near))[row != near])
    return np.stack(np.divmod(keys, max(n, 1)), axis=1).astype(np.int64)


def _comparisons(index: Any, unit: Unit, sizes: Ints, probes: int) -> int:
    return sum(
        int(sizes[index.quantizer.search(unit[start : start + QUERIES], probes)[1]].sum())
        for start in range(0, len(unit), QUERIES)
    )
