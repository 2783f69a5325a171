"""The multi-scale loss of pointmaps on ragged silhouettes, pixel by pixel of the enlarged maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sapiens2.tasks.pointmap_losses import pointmap_losses

H, W = 6, 7
FOCALS = (9.0, 12.0, 15.0)


def between(place: float, count: int) -> list[tuple[int, float]]:
    """The two neighbours of a place on an axis and their weights; beyond the outer centres the outer value holds."""
    place = min(max(place, 0.0), count - 1.0)
    low = min(int(place), count - 2)
    return [(low, 1 - (place - low)), (low + 1, place - low)]


def multiscale(points: np.ndarray, metric: np.ndarray, mask: np.ndarray) -> float:
    """L1 of both maps over mean depth, enlarged twice with zeros outside the mask; per covered pixel of the batch."""
    total, count = 0.0, 0
    for b, focal in enumerate(FOCALS):
        scale = W / focal
        here = [(y, x) for y in range(H) for x in range(W) if mask[b, 0, y, x]]
        if not here:
            continue
        depth = math.fsum(scale * metric[b, 2, y, x] for y, x in here) / len(here)
        for i in range(2 * H):
            for j in range(2 * W):
                if not mask[b, 0, i // 2, j // 2]:
                    continue
                count += 1
                for c in range(3):
                    ours = theirs = 0.0
                    for y, down in between((i + 0.5) / 2 - 0.5, H):
                        for x, across in between((j + 0.5) / 2 - 0.5, W):
                            if mask[b, 0, y, x]:
                                ours += down * across * points[b, c, y, x] / depth
                                theirs += down * across * scale * metric[b, c, y, x] / depth
                    total += abs(ours - theirs)
    return min(total / count, 4.0)


def scene(error: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Canonical predictions that are `error` off, metric targets, ragged masks of which one is empty, intrinsics."""
    torch.manual_seed(7)
    k = torch.tensor([[[f, 0, 3.2], [0, f, 2.1], [0, 0, 1]] for f in FOCALS], dtype=torch.float64)
    metric = torch.randn(3, 3, H, W, dtype=torch.float64)
    metric[:, 2] = 2 + torch.rand(3, H, W)
    scale = torch.tensor([W / f for f in FOCALS], dtype=torch.float64)
    points = metric * scale[:, None, None, None] + error * torch.randn(3, 3, H, W, dtype=torch.float64)
    mask = torch.rand(3, 1, H, W) < 0.6
    mask[1] = False
    mask[2, :, 3:] = False
    return points, metric, mask, k


@pytest.mark.parametrize("error", [0.1, 0.8, 30.0])
def test_multiscale_loss_is_that_of_a_loop_over_the_enlarged_pixels(error: float) -> None:
    """What lies outside the silhouette counts for nothing; the last error is beyond the limit of 4."""
    points, metric, mask, k = scene(error)
    wanted = multiscale(points.numpy(), metric.numpy(), mask.numpy())
    assert (wanted == 4) == (error > 10)
    for rubbish in (0.0, 1e4):
        ours, theirs = (torch.where(mask, each, each + rubbish) for each in (points, metric))
        got = pointmap_losses(ours, torch.ones(3, dtype=torch.float64), theirs, mask, k)["loss_multiscale"]
        assert float(got) == pytest.approx(wanted, rel=1e-9)
