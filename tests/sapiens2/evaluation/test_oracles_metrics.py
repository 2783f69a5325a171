"""Every pooled number of the dense tasks once more, pixel by pixel in plain Python from its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sapiens2.evaluation.measure import statistic_of
from sapiens2.tasks.sample import Sample

H, W = 13, 17


def ragged(rng: np.random.Generator) -> np.ndarray:
    """A mask of a block, a strip one pixel wide, scattered pixels: windows of every share of valid weight."""
    valid = np.zeros((H, W), bool)
    valid[3:11, 2:9] = True
    valid[6, 9:] = True
    valid[0] = rng.random(W) < 0.4
    return valid


def covered(valid: np.ndarray) -> list[tuple[int, int]]:
    return [(y, x) for y in range(H) for x in range(W) if valid[y, x]]


# ---- pointmap ----


@pytest.mark.parametrize("drawn", [(0, 1, 2), (2, 0, 2)])
def test_pointmap_numbers_are_those_of_a_loop_over_pixels(drawn: tuple[int, ...]) -> None:
    """Errors unlike in X, Y and Z, on images with unlike numbers of pixels, some drawn twice."""
    rng = np.random.default_rng(5)
    samples, answers = [], []
    for focal, share in ((20.0, 0.9), (25.0, 0.3), (31.0, 0.6)):
        k = np.array([[focal, 0, 8.1], [0, focal, 6.3], [0, 0, 1]], np.float32)
        points = rng.normal((0, 0, 4), 1, (H, W, 3)).astype(np.float32)
        canonical = points.astype(np.float64) * W / focal
        answer = 0.985 * canonical + rng.normal((0, 0, 0.03), (0.02, 0.06, 0.11), (H, W, 3))
        valid = rng.random((H, W)) < share
        samples.append(Sample(np.zeros((H, W, 3), np.uint8), valid=valid, points=points, intrinsics=k))
        answers.append({"map": np.where(valid[..., None], answer, 1e3)})
    got = statistic_of("pointmap", answers, samples)(np.array(drawn))
    for suffix in ("", "_scaled"):
        lengths, parts = [], {axis: [] for axis in "xyz"}
        for i in drawn:
            intrinsics, points, valid = samples[i].intrinsics, samples[i].points, samples[i].valid
            assert intrinsics is not None and points is not None and valid is not None
            pairs = [
                ([float(v) for v in answers[i]["map"][y, x]], [float(v) * W / intrinsics[0, 0] for v in points[y, x]])
                for y, x in covered(valid)
            ]
            both = sum(p * t for ours, theirs in pairs for p, t in zip(ours, theirs))
            factor = both / sum(p * p for ours, _ in pairs for p in ours) if suffix else 1.0
            for ours, theirs in pairs:
                off = [factor * p - t for p, t in zip(ours, theirs)]
                lengths.append(math.sqrt(sum(d * d for d in off)))
                for axis, d in zip("xyz", off):
                    parts[axis].append(abs(d))
        n = len(lengths)
        wanted = {"l2": sum(lengths) / n, "rmse": math.sqrt(sum(e * e for e in lengths) / n)}
        wanted |= {f"mae_{axis}": sum(parts[axis]) / n for axis in "xyz"}
        wanted |= {f"within_{near:g}": sum(e < near for e in lengths) / n for near in (0.05, 0.1, 0.2)}
        for name, value in wanted.items():
            assert got[name + suffix] == pytest.approx(value, rel=1e-5), name + suffix
        assert len({round(value, 3) for value in wanted.values()}) == 8  # no number can stand in for another


def slope(points: np.ndarray, y: int, x: int, down: bool) -> list[float]:
    """Sobel derivative over 5 x 5 pixels: differences one way, binomial means the other."""
    found = [0.0, 0.0, 0.0]
    for i, rise in enumerate((-1, -2, 0, 2, 1)):
        for j, mean in enumerate((1, 4, 6, 4, 1)):
            v, u = (y + i - 2, x + j - 2) if down else (y + j - 2, x + i - 2)
            found = [total + rise * mean * float(value) for total, value in zip(found, points[v, u])]
    return found


def normal_of(points: np.ndarray, y: int, x: int) -> list[float]:
    (a, b, c), (d, e, f) = slope(points, y, x, down=True), slope(points, y, x, down=False)
    return [b * f - c * e, c * d - a * f, a * e - b * d]


def test_surface_angles_are_those_of_a_loop_over_pixels() -> None:
    """On bent surfaces with holes, of unlike pixels; where a window is not whole, the answer is far off and unread."""
    rng = np.random.default_rng(8)
    samples, answers, angles = [], [], []
    v, u = np.mgrid[:H, :W].astype(float)
    for bend, noise, spread in ((0.02, 0.05, 3), (0.05, 0.3, 1)):
        depth = 4 + bend * (u - 6) ** 2 - 0.1 * v
        k = np.array([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]], np.float32)
        points = np.stack([(u - 8) * depth / 20, (v - 6) * depth / 20, depth], -1).astype(np.float32)
        answer = 0.8 * points + rng.normal(0, noise, points.shape)
        valid = np.zeros((H, W), bool)
        valid[: 9 + spread, 1:16] = True
        valid[4, 3 * spread] = False
        samples.append(Sample(np.zeros((H, W, 3), np.uint8), valid=valid, points=points, intrinsics=k))
        answers.append({"map": np.where(valid[..., None], answer, 1e3)})
        for y, x in covered(valid):
            whole = 2 <= y < H - 2 and 2 <= x < W - 2 and valid[y - 2 : y + 3, x - 2 : x + 3].all()
            if whole:
                a, b = normal_of(answer, y, x), normal_of(points, y, x)
                cosine = sum(p * q for p, q in zip(a, b)) / (math.hypot(*a) * math.hypot(*b))
                angles.append(math.degrees(math.acos(min(cosine, 1.0))))
    got, n = statistic_of("pointmap", answers, samples)(np.array([0, 1])), len(angles)
    assert n > 40 and max(angles) > 30 > 5 > min(angles)
    assert got["surface_mean_deg"] == pytest.approx(sum(angles) / n, rel=1e-5)
    assert got["surface_rmse_deg"] == pytest.approx(math.sqrt(sum(a * a for a in angles) / n), rel=1e-5)
    for limit in (5.0, 11.25, 22.5, 30.0):
        assert got[f"surface_within_{limit:g}"] == pytest.approx(sum(a < limit for a in angles) / n)


# ---- albedo ----


def ssim_loop(predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> list[float]:
    """SSIM of each valid pixel whose 11 x 11 window (Gaussian, sigma 1.5) has over half of its weight on valid ones."""
    total = sum(math.exp(-(dy * dy + dx * dx) / 4.5) for dy in range(-5, 6) for dx in range(-5, 6))
    found = []
    for y, x in covered(valid):
        window = [
            (math.exp(-((v - y) ** 2 + (u - x) ** 2) / 4.5) / total, v, u)
            for v in range(max(y - 5, 0), min(y + 6, H))
            for u in range(max(x - 5, 0), min(x + 6, W))
            if valid[v, u]
        ]
        share = sum(weight for weight, _, _ in window)
        if share <= 0.5:
            continue
        channels = []
        for c in range(3):
            seen = [(weight / share, float(predicted[v, u, c]), float(truth[v, u, c])) for weight, v, u in window]
            mean_p, mean_t = sum(g * p for g, p, _ in seen), sum(g * t for g, _, t in seen)
            var_p = sum(g * (p - mean_p) ** 2 for g, p, _ in seen)
            var_t = sum(g * (t - mean_t) ** 2 for g, _, t in seen)
            both = sum(g * (p - mean_p) * (t - mean_t) for g, p, t in seen)
            light = (2 * mean_p * mean_t + 1e-4) / (mean_p**2 + mean_t**2 + 1e-4)
            channels.append(light * (2 * both + 9e-4) / (var_p + var_t + 9e-4))
        found.append(sum(channels) / 3)
    return found


def test_albedo_numbers_are_those_of_a_loop_over_pixels() -> None:
    """Pooled by pixels, by windows and by pairs of neighbours, of which the images have unlike numbers."""
    rng = np.random.default_rng(6)
    masks = [ragged(rng), np.ones((H, W), bool), np.pad(np.ones((6, 7), bool), ((5, 2), (4, 6)))]
    samples, answers = [], []
    for valid, noise in zip(masks, (0.05, 0.2, 0.4), strict=True):
        truth = rng.random((H, W, 3)).astype(np.float32)
        answers.append({"map": (truth + rng.normal(0, noise, truth.shape)).astype(np.float32)})
        samples.append(Sample(np.zeros((H, W, 3), np.uint8), valid=valid, albedo=truth))
    got = statistic_of("albedo", answers, samples)(np.arange(3))
    ssim: list[float] = []
    absolute, squared, steps, counted = [], [], [], []
    for sample, answer, valid in zip(samples, answers, masks, strict=True):
        assert sample.albedo is not None
        ssim += ssim_loop(answer["map"], sample.albedo, valid)
        counted.append(len(ssim) - sum(counted))
        off = answer["map"].astype(float) - sample.albedo.astype(float)
        for y, x in covered(valid):
            absolute += [abs(d) for d in off[y, x]]
            squared += [d * d for d in off[y, x]]
            for v, u in ((y, x + 1), (y + 1, x)):
                if v < H and u < W and valid[v, u]:
                    steps += [abs(a - b) for a, b in zip(off[v, u], off[y, x])]
    assert got["ssim"] == pytest.approx(sum(ssim) / len(ssim), abs=1e-7)
    assert 0 < counted[0] < masks[0].sum() - 8 and 0 < counted[2] < masks[2].sum()  # some windows are left out
    assert got["mae"] == pytest.approx(sum(absolute) / len(absolute), rel=1e-6)
    assert got["rmse"] == pytest.approx(math.sqrt(sum(squared) / len(squared)), rel=1e-6)
    assert got["psnr"] == pytest.approx(10 * math.log10(len(squared) / sum(squared)), rel=1e-6)
    assert got["gradient_l1"] == pytest.approx(sum(steps) / len(steps), rel=1e-6)
