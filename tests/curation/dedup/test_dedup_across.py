"""Near codes of a few among many: what the search among all finds, and no pair within the many."""

from __future__ import annotations

import numpy as np
import pytest

from curation.dedup.hamming import cross_pairs
from curation.dedup.hamming_across import pairs_across


@pytest.mark.parametrize("radius", [0, 1, 4, 7, 8])
def test_the_same_pairs_as_the_search_among_all(radius: int) -> None:
    rng = np.random.default_rng(radius)
    many = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    few = many[:60].copy()
    for row, flips in enumerate(rng.integers(0, 11, len(few))):
        for bit in rng.choice(64, flips, replace=False):
            few[row] ^= np.uint64(1) << np.uint64(bit)
    many[100:110] = many[0]  # codes repeat on either side
    few = np.concatenate([few, few[:5]])
    found, expected = pairs_across(few, many, radius), cross_pairs(few, many, radius)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(found[0]) > 5


def test_no_codes_have_no_pairs() -> None:
    none, some = np.zeros(0, np.uint64), np.arange(5, dtype=np.uint64)
    assert [len(pairs_across(*sides, 8)[0]) for sides in ((none, some), (some, none), (some, some))] == [0, 0, 25]


def test_other_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="codes must be uint64"):
        pairs_across(np.zeros(3, np.uint64), np.zeros(3, np.int64), 4)
    with pytest.raises(ValueError, match=r"radius must be 0\.\.8"):
        pairs_across(np.zeros(3, np.uint64), np.zeros(3, np.uint64), 9)
