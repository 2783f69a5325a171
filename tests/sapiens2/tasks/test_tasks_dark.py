"""Decoding of heatmaps against DARK written out in loops: blur, logarithm, gradient, Hessian, one Newton step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sapiens2.tasks.heatmaps import decode

# Rows and columns of a map, and the width of the blur: 11 on maps of 192 columns, in proportion on narrower ones.
SIZES = [((60, 192), 11), ((50, 96), 5), ((32, 24), 3)]


def bell(size: tuple[int, int], centre: tuple[float, float], spread: tuple[float, float], turn: float) -> np.ndarray:
    """A Gaussian of peak 1 whose two spreads lie along axes turned by `turn` radians."""
    out = np.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            dx, dy = x - centre[0], y - centre[1]
            along, across = dx * math.cos(turn) + dy * math.sin(turn), dy * math.cos(turn) - dx * math.sin(turn)
            out[y, x] = math.exp(-((along / spread[0]) ** 2 + (across / spread[1]) ** 2) / 2)
    return out


def blurred(image: np.ndarray, width: int) -> np.ndarray:
    """A Gaussian of `width` x `width` taps, zeros beyond the map; the sigma is the one OpenCV takes for the width."""
    reach, sigma = width // 2, 0.3 * ((width - 1) * 0.5 - 1) + 0.8
    taps = {(v, u): math.exp(-(v * v + u * u) / (2 * sigma * sigma)) for v in range(-reach, reach + 1)
            for u in range(-reach, reach + 1)}  # fmt: skip
    around, out = np.pad(image, reach), np.zeros(image.shape)
    for (v, u), tap in taps.items():
        out += tap * around[reach + v : reach + v + image.shape[0], reach + u : reach + u + image.shape[1]]
    return out / sum(taps.values())


def dark(image: np.ndarray, width: int) -> tuple[tuple[float, float], float, tuple[float, float]]:
    """Place (x, y), score and the raw Newton step; no step where the log map has no maximum at all."""
    height, columns = image.shape
    best, px, py = max((float(image[y, x]), -x, -y) for y in range(height) for x in range(columns))
    px, py = -px, -py
    smooth = blurred(image, width)
    smooth = smooth * best / max(float(smooth.max()), 1e-12)

    def log(dx: int, dy: int) -> float:
        y, x = min(max(py + dy, 0), height - 1), min(max(px + dx, 0), columns - 1)
        return math.log(min(max(float(smooth[y, x]), 1e-3), 50.0))

    gradient = np.array([(log(1, 0) - log(-1, 0)) / 2, (log(0, 1) - log(0, -1)) / 2])
    mixed = (log(1, 1) - log(1, -1) - log(-1, 1) + log(-1, -1)) / 4
    hessian = np.array(
        [[log(1, 0) - 2 * log(0, 0) + log(-1, 0), mixed], [mixed, log(0, 1) - 2 * log(0, 0) + log(0, -1)]]
    )
    step = np.zeros(2)
    if np.linalg.eigvalsh(hessian).max() < 0:
        step = -np.linalg.solve(hessian, gradient)
    x, y = (p + min(max(float(s), -1.0), 1.0) for p, s in zip((px, py), step))
    return (min(max(x, 0.0), columns - 1.0), min(max(y, 0.0), height - 1.0)), best, (float(step[0]), float(step[1]))


def shapes(size: tuple[int, int], seed: int) -> list[np.ndarray]:
    """Long and narrow peaks at all angles, clean, noisy, two of them beside each other, and cut off by a border."""
    rng = np.random.default_rng(seed)
    height, width = size
    narrow = max(1.0, width / 48)
    maps = []
    for k in range(12):
        centre = (rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height)
        if k == 10:
            centre = (rng.uniform(0, 2), rng.uniform(0.3, 0.7) * height)
        if k == 11:
            centre = (rng.uniform(0.3, 0.7) * width, height - 1 - rng.uniform(0, 1.5))
        spread = (narrow * rng.uniform(1.8, 3), narrow * rng.uniform(0.7, 1.2))
        image = bell(size, centre, spread, rng.uniform(0.15, 1.4) + (k % 2) * math.pi / 2)
        if k % 4 == 2:
            image = image + 0.7 * bell(size, (centre[0] + 2 * narrow, centre[1] + narrow), spread, rng.uniform(0, 3))
        if k % 4 == 3:
            image = image + rng.normal(0, 0.04, size)
        maps.append(image * (0.0012 if k == 9 else 1.0))  # so faint that the logarithm is cut off beside the peak
    return maps


@pytest.mark.parametrize(("size", "width"), SIZES)
def test_decoding_is_dark_written_out_in_loops(size: tuple[int, int], width: int) -> None:
    maps = shapes(size, width)
    got, scores = decode(torch.tensor(np.stack(maps), dtype=torch.float32).unflatten(0, (3, 4)))
    steps = []
    for image, place, score in zip(maps, got.flatten(0, 1).tolist(), scores.flatten().tolist(), strict=True):
        wanted, best, step = dark(image.astype(np.float32).astype(float), width)
        assert place == pytest.approx(wanted, abs=2e-3) and score == pytest.approx(best, rel=1e-6)
        steps.append(step)
    assert sum(0.05 < abs(s) < 1 for step in steps for s in step) > 12  # most places are moved


def test_a_turned_peak_is_found_where_it_is() -> None:
    """The mixed derivative at work: the step goes to the centre of a clean peak, however it is turned."""
    rng = np.random.default_rng(4)
    places = [(rng.uniform(60, 130), rng.uniform(20, 40)) for _ in range(10)]
    maps = [bell((60, 192), place, (9.0, 4.0), rng.uniform(0, math.pi)) for place in places]
    got, _ = decode(torch.tensor(np.stack(maps), dtype=torch.float32)[None])
    np.testing.assert_allclose(got[0].numpy(), places, atol=0.02)


def test_noise_moves_a_place_by_a_pixel_at_most() -> None:
    """A spike beside a broad peak: the blur asks for a longer step than the one that is granted."""
    image = bell((60, 192), (96.0, 30.0), (6.0, 6.0), 0.0)
    image[33, 99] += 0.5
    (x, y), score, step = dark(image, 11)
    got, scores = decode(torch.tensor(image, dtype=torch.float32)[None, None])
    assert min(step) < -1 and (x, y) == (98.0, 32.0)
    assert got[0, 0].tolist() == pytest.approx([x, y], abs=1e-3) and float(scores) == pytest.approx(score)
