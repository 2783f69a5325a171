"""The losses once more, pixel by pixel in plain Python from the specification: slow references that share no code."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

Array = np.ndarray


def pixels(mask: Array) -> Iterator[tuple[int, int, int]]:
    """Covered (image, row, column) of mask [B, 1, H, W]."""
    yield from ((int(b), int(y), int(x)) for b, _, y, x in np.argwhere(mask))


def average(values: list[float], over: int | None = None) -> float:
    return math.fsum(values) / max(len(values) if over is None else over, 1)


def gradient(p: Array, t: Array, mask: Array, power: int) -> float:
    total = 0.0
    for dy, dx in ((0, 1), (1, 0)):
        found = []
        for b, y, x in pixels(mask):
            v, u = y + dy, x + dx
            if v < mask.shape[2] and u < mask.shape[3] and mask[b, 0, v, u]:
                step = (p[b, :, v, u] - p[b, :, y, x]) - (t[b, :, v, u] - t[b, :, y, x])
                found.append(float((np.abs(step) ** power).sum()))
        total += average(found)
    return total


def pose(p: Array, t: Array, w: Array, preset: str) -> dict[str, float]:
    batch, count = w.shape
    each = [[float(((p[b, k] - t[b, k]) ** 2).sum()) * w[b, k] for k in range(count)] for b in range(batch)]
    if preset == "release":
        return {"loss_heatmap": 10 * sum(map(sum, each)) / (batch * count * p.shape[2] * p.shape[3])}
    return {"loss_heatmap": sum(sum(sorted((e**0.5 for e in row), reverse=True)[:128]) for row in each) / batch}


def segmentation(z: Array, y: Array, w: Array) -> dict[str, float]:
    batch, classes, height, width = z.shape
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    entropy, dice = 0.0, 0.0
    for b in range(batch):
        scores = []
        for c in range(1, classes):
            both = squares = members = 0.0
            for i in range(height):
                for j in range(width):
                    if y[b, i, j] != 255:
                        g = float(y[b, i, j] == c)
                        both, squares, members = both + p[b, c, i, j] * g, squares + p[b, c, i, j] ** 2, members + g
            if members:
                scores.append((2 * both + 1e-3) / (squares + members + 1e-3))
        dice += 1 - average(scores) if scores else 0.0
        for i in range(height):
            for j in range(width):
                if y[b, i, j] != 255:
                    entropy -= w[y[b, i, j]] * math.log(p[b, y[b, i, j], i, j])
    return {"loss_ce": entropy / y.size, "loss_dice": dice / batch}


def normal(p: Array, t: Array, mask: Array, preset: str) -> dict[str, float]:
    cosine, l1, l2 = [], [], []
    for b, y, x in pixels(mask):
        a, n = p[b, :, y, x], t[b, :, y, x]
        cosine.append(1 - float(a @ n) / (np.linalg.norm(a) * np.linalg.norm(n)))
        l1.append(float(np.abs(a - n).sum()))
        l2.append(float(np.linalg.norm(a - n)))
    if preset == "release":
        return {
            "loss_cosine": 10 * average(cosine),
            "loss_l1": average(l1),
            "loss_gradient": 10 * gradient(p, t, mask, 2),
        }
    return {"loss_cosine": average(cosine), "loss_l2": average(l2), "loss_gradient": gradient(p, t, mask, 1)}


def albedo(p: Array, t: Array, mask: Array, preset: str) -> dict[str, float]:
    def chroma(rgb: Array) -> Array:
        clipped = np.clip(rgb, 0, 1)
        return clipped / (clipped.sum() + 1e-6)

    here = list(pixels(mask))
    differences = [p[b, :, y, x] - t[b, :, y, x] for b, y, x in here]
    if preset == "release":
        chromas = [np.abs(chroma(p[b, :, y, x]) - chroma(t[b, :, y, x])).sum() for b, y, x in here]
        return {
            "loss_l1": 2 * average([float(np.abs(d).sum()) for d in differences]),
            "loss_gradient": gradient(p, t, mask, 2),  # 2 x (x + y) / 2
            "loss_chroma": average([float(c) for c in chromas]),
        }
    means = []
    for b in range(len(p)):
        own = [d for d, (image, _, _) in zip(differences, here) if image == b]
        means.append(float(np.abs(np.mean(own, 0)).sum()) if own else 0.0)
    return {
        "loss_l2": average([float(np.linalg.norm(d)) for d in differences]),
        "loss_gradient": gradient(p, t, mask, 1),
        "loss_mean": average(means),
    }


def pointmap(p: Array, said: Array, metric: Array, mask: Array, k: Array, preset: str) -> dict[str, float]:
    s = p.shape[3] / k[:, 0, 0]
    t = metric * s[:, None, None, None]
    here = list(pixels(mask))
    scale = 4 * float(np.abs(said - s).mean())
    if preset == "paper":
        l2 = [float(np.linalg.norm(p[b, :, y, x] - t[b, :, y, x])) for b, y, x in here]
        return {"loss_l2": average(l2), "loss_gradient": gradient(p, t, mask, 1), "loss_scale": scale}
    depth = [average([float(t[b, 2, y, x]) for i, y, x in here if i == b]) or 1.0 for b in range(len(p))]
    l1 = [float(np.abs(p[b, :, y, x] - t[b, :, y, x]).sum()) / depth[b] for b, y, x in here]
    rays = []
    for b, y, x in here:
        across, down, _ = np.linalg.solve(k[b], [x, y, 1])
        rays.append(float(abs(p[b, 0, y, x] - across * p[b, 2, y, x]) + abs(p[b, 1, y, x] - down * p[b, 2, y, x])))
    silog, shift = [], []
    for b in range(len(p)):
        own = [(y, x) for i, y, x in here if i == b]
        if not own:
            silog.append(0.0)
            continue
        d = np.array([math.log(max(t[b, 2, y, x], 1e-4)) - math.log(max(p[b, 2, y, x], 1e-4)) for y, x in own])
        silog.append(math.sqrt(float((d**2).mean() - d.mean() ** 2 / 2)))
        ours, theirs = (np.array([m[b, :, y, x] for y, x in own]) / depth[b] for m in (p, t))
        shift += [float(v) for v in np.abs((ours - ours.mean(0)) - (theirs - theirs.mean(0))).sum(1)]
    return {
        "loss_l1": min(2 * average(l1), 4),
        "loss_silog": average(silog),
        "loss_rays": average(rays),
        "loss_shift": min(average(shift), 4),
        "loss_normal": 2 * _surface(p / s[:, None, None, None], metric, mask),
        "loss_scale": scale,
    }


def _surface(p: Array, t: Array, mask: Array) -> float:
    def facing(points: Array, b: int, y: int, x: int) -> Array:
        origin = points[b, :, y, x]
        n = np.cross(100 * (points[b, :, y + 1, x] - origin), 100 * (points[b, :, y, x + 1] - origin))
        return np.asarray(n / max(float(np.linalg.norm(n)), 1e-6))

    found = []
    for b, y, x in pixels(mask):
        if y + 1 < mask.shape[2] and x + 1 < mask.shape[3] and mask[b, 0, y + 1, x] and mask[b, 0, y, x + 1]:
            ours, theirs = facing(p, b, y, x), facing(t, b, y, x)
            found.append(1 - float(ours @ theirs) + float(np.abs(ours - theirs).mean()))
    return average(found)
