"""Near descriptors by cells: what brute force finds, a recall that is measured, and a refusal when it is low."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from curation.dedup import cells
from curation.dedup.cells import RecallTooLow, Search, cells_for, pairs_in_cells
from curation.dedup.features import nearest_pairs


def copies(n: int = 3000, dim: int = 32, seed: int = 0) -> np.ndarray:
    """Unit rows in 40 loose clusters; the last tenth are near the first tenth."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, dim))[rng.integers(0, 40, n)] + 1.2 * rng.standard_normal((n, dim))
    x[-(n // 10) :] = x[: n // 10] + 0.5 * rng.standard_normal((n // 10, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def keys(pairs: np.ndarray, n: int) -> set[int]:
    return set((pairs @ np.array([n, 1])).tolist())


def test_nearly_all_pairs_of_brute_force_are_found_and_no_other() -> None:
    x = copies()
    i, j, _ = nearest_pairs(x, 8, 0.85)
    truth = keys(np.stack([i, j], axis=1), len(x))
    pairs, search = pairs_in_cells(x, 8, 0.85)
    found = keys(pairs, len(x))
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert found <= truth | keys(np.stack(nearest_pairs(x, 8, 0.849)[:2], axis=1), len(x))
    assert len(found & truth) / len(truth) >= 0.985 and len(truth) > 250
    assert search.comparisons < len(x) ** 2 / 8, "far fewer than all"
    assert search.sampled_pictures == len(x), "few pairs: all pictures are the sample"
    assert search.found_pairs == len(found & truth) and search.sampled_pairs == len(truth)


def test_one_probe_misses_what_lies_across_a_border_and_probes_are_doubled() -> None:
    x = copies(seed=1)
    _, one = pairs_in_cells(x, 8, 0.85, probes=1, min_recall=0.0)
    _, enough = pairs_in_cells(x, 8, 0.85, probes=1, min_recall=0.99)
    assert one.probes == 1 and one.recall < 0.99
    assert enough.probes > 1 and enough.recall > one.recall and enough.comparisons > one.comparisons


def test_a_low_recall_is_an_error() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 64))
    noise = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    with pytest.raises(RecallTooLow, match=r"near pairs of a sample were found.*raise dedup\.exact_rows"):
        pairs_in_cells(noise, 8, 0.3, min_recall=0.999)


def test_recall_is_judged_by_its_lower_bound() -> None:
    search = Search(10, 4, 100, pictures=9000, sampled_pictures=1000, sampled_pairs=500, found_pairs=495)
    assert search.recall == 0.99 and search.recall_low < 0.985 and not search.good(0.985)
    assert replace(search, found_pairs=500).good(0.985)
    assert replace(search, pictures=1000).good(0.985), "all pictures were looked at: no bound is needed"
    few = replace(search, sampled_pairs=30, found_pairs=30)
    assert few.good(0.985) and not replace(few, found_pairs=29).good(0.985)


def test_the_same_pairs_every_time() -> None:
    x = copies(1200, seed=2)
    first, again = (pairs_in_cells(x, 4, 0.85)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_cells_are_in_proportion_to_the_pictures() -> None:
    assert [cells_for(n) for n in (1, 10, 2500, 40_000, 400_000, 4_000_000)] == [1, 5, 100, 400, 4_000, 40_000]


def test_the_sample_is_as_large_as_its_pairs_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever N: pictures are drawn until they have the pairs that the bound needs, and no more than a step beyond."""
    x = copies(4000, seed=4)
    monkeypatch.setattr(cells, "_FIRST_SAMPLE", 64)
    monkeypatch.setattr(cells, "_ENOUGH_PAIRS", 60)
    search = pairs_in_cells(x, 8, 0.85, min_recall=0.0)[1]
    per_picture = search.sampled_pairs / search.sampled_pictures
    assert 60 <= search.sampled_pairs <= 60 + 3 * 64 * per_picture + 20
    assert search.sampled_pictures < len(x) / 4
    monkeypatch.setattr(cells, "_LARGEST_SAMPLE", 128)
    assert pairs_in_cells(x, 8, 0.85, min_recall=0.0)[1].sampled_pictures == 128, "and no more than so many"


def test_groups_of_cells_find_as_much_for_fewer_comparisons_with_centroids(monkeypatch: pytest.MonkeyPatch) -> None:
    x = copies(6000, seed=5)
    monkeypatch.setattr(cells, "PER_CELL", 10)
    _, flat = pairs_in_cells(x, 8, 0.85)
    monkeypatch.setattr(cells, "_FLAT", 20)
    monkeypatch.setattr(cells, "_NEAR_GROUPS", 10)
    pairs, by_groups = pairs_in_cells(x, 8, 0.85)
    assert by_groups.cells == flat.cells and by_groups.placings < 0.6 * flat.placings
    assert by_groups.comparisons < len(x) ** 2 / 8
    i, j, _ = nearest_pairs(x, 8, 0.85)
    truth = keys(np.stack([i, j], axis=1), len(x))
    assert len(keys(pairs, len(x)) & truth) / len(truth) >= 0.985


def test_cells_looked_into_later_add_to_those_looked_into_before() -> None:
    x = copies(seed=1)
    pairs, twice = pairs_in_cells(x, 8, 0.85, probes=1, min_recall=0.99)
    at_once, once = pairs_in_cells(x, 8, 0.85, probes=twice.probes, min_recall=0.0)
    assert twice.probes > 1 and twice.comparisons == once.comparisons, "no cell is looked into twice"
    np.testing.assert_array_equal(pairs, at_once)
