"""Hamming pairs against brute force: every pair, no other, on codes of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from curation.dedup import hamming_pairs
from curation.dedup.hamming import cross_pairs, plan_blocks

Codes = NDArray[np.uint64]


def brute_force(codes: Codes, radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    i, j = np.triu_indices(len(codes), 1)
    distance = np.bitwise_count(codes[i] ^ codes[j])
    near = distance <= radius
    return i[near], j[near], distance[near]


def assert_same(codes: Codes, radius: int) -> int:
    found, expected = hamming_pairs(codes, radius), brute_force(codes, radius)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return len(expected[0])


def uniform(rng: np.random.Generator, n: int) -> Codes:
    return rng.integers(0, 2**64, n, dtype=np.uint64)


def constant_weight(rng: np.random.Generator, n: int) -> Codes:
    """Codes with 32 ones, as imagehash.phash makes them: all distances are even."""
    bits = np.argsort(rng.random((n, 64)), axis=1)[:, :32].astype(np.uint64)
    return np.bitwise_or.reduce(np.uint64(1) << bits, axis=1)


def planted(rng: np.random.Generator, codes: Codes, n: int, flips: int) -> Codes:
    """`codes` and n copies of some of them with up to `flips` bits turned."""
    copies = codes[rng.integers(0, len(codes), n)].copy()
    for k in range(n):
        for bit in rng.choice(64, rng.integers(0, flips + 1), replace=False):
            copies[k] ^= np.uint64(1) << np.uint64(bit)
    return np.concatenate([codes, copies])


def skewed(rng: np.random.Generator, n: int) -> Codes:
    """Codes whose bits are far from even, so that blocks collide often."""
    bits = rng.random((n, 64)) < np.linspace(0.0, 0.15, 64)
    return np.bitwise_or.reduce(bits.astype(np.uint64) << np.arange(64, dtype=np.uint64), axis=1)


@pytest.mark.parametrize("radius", range(9))
def test_recall_and_precision_are_one(radius: int) -> None:
    rng = np.random.default_rng(radius)
    pairs = [
        assert_same(planted(rng, uniform(rng, 700), 500, 10), radius),
        assert_same(planted(rng, constant_weight(rng, 700), 500, 10), radius),
        assert_same(skewed(rng, 900), radius),
    ]
    assert pairs[0] > 0 or radius == 0
    assert pairs[2] > pairs[0] or radius < 4, "skewed codes have many more near pairs"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=9)), max_size=20),
    st.integers(0, 8),
)
def test_any_codes(base: list[int], copies: list[tuple[int, set[int]]], radius: int) -> None:
    codes = [*base]
    for index, bits in copies:
        if base:
            codes.append(base[index % len(base)] ^ sum(1 << bit for bit in bits))
    assert_same(np.array(codes, dtype=np.uint64), radius)


def test_equal_codes_are_pairs_of_distance_zero() -> None:
    i, j, distance = hamming_pairs(np.array([5, 9, 5, 5], dtype=np.uint64), 0)
    assert list(zip(i.tolist(), j.tolist(), distance.tolist(), strict=True)) == [(0, 2, 0), (0, 3, 0), (2, 3, 0)]


def test_a_pair_at_exactly_the_radius_is_found_and_one_beyond_is_not() -> None:
    codes = np.array([0, 2**8 - 1, 2**9 - 1], dtype=np.uint64)
    assert len(hamming_pairs(codes[:2], 8)[0]) == 1
    assert len(hamming_pairs(codes[[0, 2]], 8)[0]) == 0


def test_more_codes_get_longer_keys() -> None:
    assert plan_blocks(1_000, 4) <= plan_blocks(100_000, 4) <= plan_blocks(10_000_000, 4)
    assert plan_blocks(1_000, 4) < plan_blocks(10_000_000, 4)


def test_cross_pairs_against_brute_force() -> None:
    rng = np.random.default_rng(3)
    left = uniform(rng, 300)
    right = planted(rng, left[:100], 200, 7)[100:]
    i, j, distance = cross_pairs(left, right, 6)
    expected = np.bitwise_count(left[:, None] ^ right[None, :])
    x, y = np.nonzero(expected <= 6)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == list(zip(x.tolist(), y.tolist(), strict=True))
    np.testing.assert_array_equal(distance, expected[i, j])


@pytest.mark.parametrize("radius", [-1, 9])
def test_radius_out_of_range(radius: int) -> None:
    with pytest.raises(ValueError, match=r"radius must be 0\.\.8"):
        hamming_pairs(np.zeros(2, np.uint64), radius)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="uint64"):
        hamming_pairs(np.zeros(2, np.int64), 4)  # type: ignore[arg-type]
