"""Masks: exact counts, both kinds in their share, and keyed draws."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

from sapiens2.pretrain.keyed import Stream, generator
from sapiens2.pretrain.masks import _rectangle, hide_blocks, hide_singles, kept_tokens

PAPER = (64, 48)
HIDDEN = 2304


def draws(count: int, share: float, grid: tuple[int, int] = PAPER, hidden: int = HIDDEN) -> list[np.ndarray]:
    return [kept_tokens(generator(0, Stream.MASKS, i), grid, hidden, share) for i in range(count)]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.01, 0.99), st.integers(0, 2**31), st.booleans())
def test_every_mask_hides_exactly_as_many_tokens_as_asked(
    h: int, w: int, ratio: float, seed: int, blockwise: bool
) -> None:
    hidden = round(ratio * h * w)
    kept = kept_tokens(np.random.default_rng(seed), (h, w), hidden, float(blockwise))
    assert len(kept) == h * w - hidden
    assert (np.diff(kept) > 0).all()
    assert len(kept) == 0 or (kept[0] >= 0 and kept[-1] < h * w)


def test_the_papers_masks_hide_2304_of_3072() -> None:
    assert {len(kept) for kept in draws(50, 0.4)} == {3072 - HIDDEN}


def pieces(kept: np.ndarray, grid: tuple[int, int]) -> float:
    """Mean size of a connected visible region, tokens."""
    seen = np.zeros(grid[0] * grid[1], dtype=bool)
    seen[kept] = True
    return len(kept) / label(seen.reshape(grid), connectivity=1).max()


def test_blocks_leave_large_regions_and_their_share_is_as_asked() -> None:
    grid, hidden = (32, 24), 576
    blocks = [pieces(kept, grid) for kept in draws(60, 1.0, grid, hidden)]
    singles = [pieces(kept, grid) for kept in draws(60, 0.0, grid, hidden)]
    assert min(blocks) > 2 * np.mean(singles)
    border = (min(blocks) + max(singles)) / 2
    mixed = np.array([pieces(kept, grid) for kept in draws(1000, 0.4, grid, hidden)])
    assert (mixed > border).mean() == pytest.approx(0.4, abs=0.05)  # three standard errors


def test_rectangles_are_as_slender_as_beits_and_no_more() -> None:
    rng = np.random.default_rng(0)
    aspects = []
    for _ in range(5000):
        rows, columns = _rectangle(rng, (640, 480), 2500.0)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert height * width == pytest.approx(2500, rel=0.05)
        aspects.append(height / width)
    assert np.quantile(aspects, [0, 0.5, 1]) == pytest.approx([0.3, 1, 1 / 0.3], rel=0.1)


def test_single_tokens_are_hidden_equally_often() -> None:
    counts = sum(hide_singles(np.random.default_rng(i), (6, 5), 20).astype(int) for i in range(3000))
    assert np.abs(counts / 3000 - 20 / 30).max() < 4.5 * (2 / 9 / 3000) ** 0.5


def test_draws_are_keyed_by_sample_and_seed() -> None:
    first, again, other = (
        kept_tokens(generator(seed, Stream.MASKS, index), PAPER, HIDDEN, 0.4)
        for seed, index in ((1, 5), (1, 5), (1, 6))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert generator(1, Stream.VIEWS, 5).random() != generator(1, Stream.MASKS, 5).random()


def test_a_block_mask_takes_less_than_a_millisecond() -> None:
    rng = np.random.default_rng(0)
    best = min(_seconds(lambda: hide_blocks(rng, PAPER, HIDDEN)) for _ in range(50))
    assert best < 1e-3


def _seconds(function: object) -> float:
    began = time.perf_counter()
    function()  # type: ignore[operator]
    return time.perf_counter() - began
