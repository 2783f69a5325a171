"""Descriptor pairs against the full matrix of cosines."""

from __future__ import annotations

import numpy as np
import pytest

from curation.dedup import feature_pairs, nearest_pairs


def vectors(seed: int = 0) -> np.ndarray:
    """200 rows, half of them near one of the other half, two of them zero."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((100, 12))
    x = np.concatenate([base, base + 0.3 * rng.standard_normal((100, 12))]).astype(np.float32)
    x[[7, 150]] = 0
    return x


def cosines(x: np.ndarray) -> np.ndarray:
    unit = x.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


@pytest.mark.parametrize("threshold", [0.2, 0.8, 0.95])
def test_all_pairs_over_the_threshold(threshold: float) -> None:
    x = vectors()
    i, j, cosine = feature_pairs(x, threshold)
    full = cosines(x)
    expected = [(a, b) for a in range(200) for b in range(a + 1, 200) if full[a, b] >= threshold]
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == expected
    assert len(expected) > 0
    np.testing.assert_allclose(cosine, full[i, j], atol=2e-6)


def test_nearest_pairs_are_those_of_either_row() -> None:
    x = vectors(1)
    i, j, _ = nearest_pairs(x, 3, 0.3)
    full = cosines(x)
    np.fill_diagonal(full, -np.inf)
    near = np.argsort(-full, axis=1)[:, :3]
    expected = {(min(a, b), max(a, b)) for a in range(200) for b in near[a].tolist() if full[a, b] >= 0.3}
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == expected


def test_centring_removes_the_common_part() -> None:
    x = vectors(2)
    shifted = x + 50 * (np.linalg.norm(x, axis=1, keepdims=True) > 0)
    assert len(feature_pairs(shifted.astype(np.float32), 0.9)[0]) > 10_000
    i, j, _ = feature_pairs(shifted.astype(np.float32), 0.9, centre=True)
    present = np.linalg.norm(x, axis=1) > 0
    centred = x.copy()
    centred[present] -= x[present].mean(axis=0)
    full = np.triu(cosines(centred), 1)
    sure = np.abs(full - 0.9) > 1e-3
    found = np.zeros_like(full, bool)
    found[i, j] = True
    assert (found[sure] == (full[sure] >= 0.9)).all()


def test_no_rows_and_one_row() -> None:
    assert [len(part) for part in feature_pairs(np.zeros((0, 4), np.float32), 0.5)] == [0, 0, 0]
    assert [len(part) for part in nearest_pairs(np.ones((1, 4), np.float32), 2, 0.5)] == [0, 0, 0]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="cosine"):
        feature_pairs(np.ones((2, 2), np.float32), 1.5)
    with pytest.raises(ValueError, match="descriptor 1 holds"):
        feature_pairs(np.array([[1, 0], [np.nan, 1]], np.float32), 0.5)
