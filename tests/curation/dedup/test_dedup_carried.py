"""More pictures on top of an earlier run: edges and representatives of a full run, for a part of its comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from curation.dedup.carried import Carried, fingerprints
from curation.dedup.cells import Cells, Earlier, RecallTooLow, more_lists
from curation.dedup.cover import Cover, cover_copies
from curation.dedup.evidence import NONE_COMPARED, Bounds, HashPairs, Picture, Pictures
from curation.dedup.near_lists import Lists
from curation.stages.dedup import DedupConfig
from curation.stages.dedup_previous import carried_from, carried_tables

DIM = 16
COSINES = {"min_cosine": 0.9, "hash_confirm_cosine": 0.8, "candidate_cosine": 0.8, "max_chain_hops": 10_000}


def bounds(**changes: object) -> Bounds:
    return DedupConfig(**{**COSINES, **changes}).bounds()  # type: ignore[arg-type]


def pool(n: int, seed: int = 0) -> tuple[Pictures, np.ndarray]:
    """Pictures in clusters, a third of them near others by hash, mirror hash or descriptor; and their quality."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n // 10, DIM))[rng.integers(0, n // 10, n)] + 0.35 * rng.standard_normal((n, DIM))
    bits = np.argsort(rng.random((n, 64)), axis=1)[:, :32].astype(np.uint64)
    phash = np.bitwise_or.reduce(np.uint64(1) << bits, axis=1)
    mirror = rng.permutation(phash) ^ np.uint64(0xF0F0)
    for row in range(n // 3):
        of = int(rng.integers(n // 3, n))
        kind = row % 4
        if kind == 0:  # the same hashes: one leads the other
            phash[row], mirror[row] = phash[of], mirror[of]
        if kind == 1:
            phash[row] = phash[of] ^ np.uint64(0b11 << int(rng.integers(0, 60)))
        if kind == 2:
            phash[row], x[row] = mirror[of] ^ np.uint64(0b1111), x[of] + 0.1
        if kind == 3:
            x[row] = x[of] + 0.05 * rng.standard_normal(DIM)
    ids = [f"{value:08x}" for value in rng.permutation(n)]
    order = np.argsort(ids)
    quality = np.where(rng.random(n) < 0.95, 1.0, 0.1)
    vectors = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    whole = Pictures(sorted(ids), phash[order], mirror[order], quality[order], vectors[order])
    return whole, rng.permutation(n).astype(np.float64)


def only_cells(carried: Carried) -> Carried:
    """Its centroids and mean, and nothing that was found."""
    none = np.zeros(0, np.int64)
    pairs = np.zeros((0, 2), np.int64)
    return replace(
        carried,
        image_ids=[],
        fingerprint=np.zeros(0, np.uint64),
        full=np.zeros(0, bool),
        cells=replace(carried.cells, places=np.zeros((0, carried.cells.probes), np.int64)),
        lists=Lists(none, none, np.zeros(0)),
        hashes=HashPairs(none, pairs, none, pairs, none),
        compared=NONE_COMPARED,
    )


def stored(carried: Carried) -> Carried:
    """Through its tables, whose rows come back in another order."""
    tables = carried_tables(carried)
    turned = {name: table.take(np.arange(table.num_rows)[::-1]) for name, table in tables.items()}
    return carried_from(turned, carried.threshold)


def assert_same(one: Cover, other: Cover) -> None:
    for name in ("pairs", "kind", "distance"):
        np.testing.assert_array_equal(getattr(one.edges, name), getattr(other.edges, name))
    np.testing.assert_array_equal(one.representative, other.representative)
    assert one.guard == other.guard
    for name, table in carried_tables(one.carried).items():
        assert table.equals(carried_tables(other.carried)[name]), name


@pytest.mark.parametrize(
    "changes", [{}, {"exact_rows": 1, "min_recall": 0.5}, {"centre": True, "candidates_per_row": 2}]
)
def test_the_result_is_that_of_a_full_run_with_those_cells(changes: dict[str, object]) -> None:
    whole, quality = pool(1200)
    limits = bounds(**changes)
    first = np.flatnonzero(np.random.default_rng(1).random(1200) < 0.9)
    before = cover_copies(whole.take(first), quality[first], limits, None).carried
    assert before.cells.exhaustive is ("exact_rows" not in changes)
    assert before.full.any() or "candidates_per_row" not in changes
    again = cover_copies(whole, quality, limits, None, before=stored(before))
    full = cover_copies(whole, quality, limits, None, before=only_cells(before))
    assert_same(again, full)
    assert len(full.edges.pairs) > 200 and (full.edges.kind == 1).any() and (full.edges.kind == 2).any()


def test_pictures_that_went_or_changed_take_what_was_found_of_them_along() -> None:
    """Every list is short, so that what went leaves gaps; another best copy makes other leaders."""
    whole, quality = pool(1000, seed=2)
    limits = bounds(candidates_per_row=2)
    before = cover_copies(whole, quality, limits, None).carried
    assert before.full.mean() > 0.3
    rng = np.random.default_rng(3)
    stay = np.flatnonzero(rng.random(1000) < 0.8)
    left, worth = whole.take(stay), rng.permutation(len(stay)).astype(np.float64)
    left.vectors[:40] = left.vectors[40:80]
    again = cover_copies(left, worth, limits, None, before=stored(before))
    assert_same(again, cover_copies(left, worth, limits, None, before=only_cells(before)))


def test_one_hundredth_more_costs_a_fraction_of_the_comparisons() -> None:
    whole, quality = pool(6000, seed=4)
    limits = bounds(exact_rows=1, min_recall=0.3)
    first = np.flatnonzero(np.random.default_rng(5).random(6000) >= 0.01)
    before = cover_copies(whole.take(first), quality[first], limits, None).carried
    again = cover_copies(whole, quality, limits, None, before=before).edges.search
    full = cover_copies(whole, quality, limits, None, before=only_cells(before)).edges.search
    assert again is not None and full is not None
    share = (again.comparisons + again.placings) / (full.comparisons + full.placings)
    assert 0.005 < share <= 0.03


def test_pictures_are_compared_only_where_one_is_new() -> None:
    whole, quality = pool(400, seed=6)
    limits = bounds(min_cosine=0.999, hash_confirm_cosine=0.999)
    asked: list[str] = []

    def thumbnails(ids: list[str]) -> Mapping[str, Picture]:
        asked.extend(ids)
        return {i: np.random.default_rng(int(i, 16) % 40).integers(0, 255, (64, 64), np.uint8) for i in ids}

    first = np.arange(10, 400)
    before = cover_copies(whole.take(first), quality[first], limits, thumbnails).carried
    assert len(asked) > 100
    asked.clear()
    again = cover_copies(whole, quality, limits, thumbnails, before=stored(before))
    new = set(whole.image_ids[:10])
    assert 0 < len(asked) < 100 and new & set(asked)
    assert_same(again, cover_copies(whole, quality, limits, thumbnails, before=only_cells(before)))
    with pytest.raises(ValueError, match="give both the pictures, or neither"):
        cover_copies(whole, quality, limits, None, before=before)


def test_new_pictures_that_the_cells_do_not_find_are_an_error() -> None:
    """One probe of many cells, and new pictures that all lie on borders."""
    whole, quality = pool(3000, seed=7)
    limits = bounds(exact_rows=1, min_recall=0.0)
    carried = cover_copies(whole, quality, limits, None).carried
    rng = np.random.default_rng(8)
    unit = rng.standard_normal((600, DIM)).astype(np.float32)
    unit = np.repeat(unit / np.linalg.norm(unit, axis=1, keepdims=True), 5, axis=0)
    unit += 0.1 * rng.standard_normal(unit.shape).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cells = Cells(carried.cells.centroids, np.zeros((len(unit), 1), np.int64))
    nothing = Earlier(np.zeros(len(unit), bool), cells, only_cells(carried).lists, np.zeros(0, np.int64))
    with pytest.raises(RecallTooLow, match=r"run once without dedup\.previous"):
        more_lists(unit, nothing, 16, 0.8, min_recall=0.985)


def test_a_fingerprint_follows_hash_trust_and_descriptor() -> None:
    whole, _ = pool(50)
    same = fingerprints(whole, 0.5)
    np.testing.assert_array_equal(same, fingerprints(whole.take(np.arange(50)), 0.5))
    for change in (
        {"phash": whole.phash ^ np.uint64(1)},
        {"mirror": whole.mirror ^ np.uint64(1)},
        {"hash_quality": 1.1 - whole.hash_quality},
        {"vectors": np.nextafter(whole.vectors, np.float32(2))},
    ):
        assert (fingerprints(replace(whole, **change), 0.5) != same).all()  # type: ignore[arg-type]
