"""Hamming pairs by a Ray shuffle: those that one process finds, for any size of the parts."""

from __future__ import annotations

import numpy as np
import pytest

from components.hamming_shuffle import distinct_pairs_on_ray
from components.ray_session import ray_session
from curation.dedup.hamming import hamming_pairs, search_tables


@pytest.fixture(scope="module")
def ray():
    with ray_session():
        yield


def codes_with_copies() -> np.ndarray:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 1500, dtype=np.uint64)
    copies = base[:400].copy()
    for k in range(len(copies)):
        for bit in rng.choice(64, rng.integers(0, 7), replace=False):
            copies[k] ^= np.uint64(1) << np.uint64(bit)
    return np.concatenate([base, copies, base[:30]])


@pytest.mark.parametrize("part_rows", [300, 1_000_000])
def test_a_shuffle_finds_what_one_process_finds(ray: None, part_rows: int) -> None:
    codes = codes_with_copies()
    found = hamming_pairs(codes, 4, lambda distinct, r: distinct_pairs_on_ray(distinct, r, part_rows=part_rows))
    i, j = np.triu_indices(len(codes), 1)
    distance = np.bitwise_count(codes[i] ^ codes[j])
    near = distance <= 4
    assert near.sum() > 100
    for ours, theirs in zip(found, (i[near], j[near], distance[near]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_codes_with_equal_keys_share_a_part() -> None:
    codes = np.unique(codes_with_copies())
    for table in search_tables(codes, 4):
        low, high = table.near(codes)
        np.testing.assert_array_equal(table.part(low, 5), table.part(high, 5))
        assert table.part(codes, 5).max() < 32


def test_nothing_to_compare_starts_no_ray() -> None:
    one = np.array([7], np.uint64)
    assert [len(column) for column in distinct_pairs_on_ray(one, 4)] == [0, 0, 0]
