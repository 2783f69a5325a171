"""Every loss of both presets against a slow one written from the specification, in double precision."""

from __future__ import annotations

from typing import Any

import loss_oracles as slow
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.tasks.counts import mask_counts, shared_counts
from sapiens2.tasks.losses import Preset, albedo_losses, normal_losses, pose_losses, segmentation_losses
from sapiens2.tasks.pointmap_losses import doubled_l1, pointmap_losses
from sapiens2.tasks.pointmap_scale import canonical_scale, focal_px, heard, spoken, to_metres

PRESETS: tuple[Preset, ...] = ("release", "paper")
H, W = 6, 7


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(3)


def blobs(batch: int = 3) -> Tensor:
    """Ragged masks of unequal sizes, one of them empty."""
    mask = torch.rand(batch, 1, H, W) < 0.6
    mask[1] = False
    mask[2, :, 3:] = False
    return mask


def agree(fast: dict[str, Tensor], slower: dict[str, float], besides: set[str] | None = None) -> None:
    assert set(fast) - (besides or set()) == set(slower)
    for name, wanted in slower.items():
        assert float(fast[name]) == pytest.approx(wanted, rel=1e-9, abs=1e-12), name
        assert wanted != 0, f"{name} is zero, which compares nothing"


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [t.numpy() for t in tensors]


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("preset", PRESETS)
def test_pose(preset: Preset) -> None:
    p, t, w = double(2, 150, 3, 2), double(2, 150, 3, 2), (torch.rand(2, 150) < 0.9).double()
    agree(pose_losses(p, t, w, preset), slow.pose(*arrays(p, t, w), preset))


def test_segmentation() -> None:
    z, y, w = double(3, 5, H, W), torch.randint(0, 5, (3, H, W)), torch.rand(5).double() + 0.1
    y[torch.rand(3, H, W) < 0.2] = 255
    y[1] = 0  # nobody
    agree(segmentation_losses(z, y, w), slow.segmentation(*arrays(z, y, w)))


@pytest.mark.parametrize("preset", PRESETS)
def test_normals(preset: Preset) -> None:
    p, t, mask = double(3, 3, H, W), F.normalize(double(3, 3, H, W), dim=1), blobs()
    agree(normal_losses(p, t, mask, preset), slow.normal(*arrays(p, t, mask), preset))


@pytest.mark.parametrize("preset", PRESETS)
def test_albedo(preset: Preset) -> None:
    p, t, mask = torch.rand(3, 3, H, W).double() * 1.4 - 0.2, torch.rand(3, 3, H, W).double(), blobs()
    agree(albedo_losses(p, t, mask, preset), slow.albedo(*arrays(p, t, mask), preset))


def scene() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Predicted points and scale, metric points, mask, intrinsics."""
    k = torch.tensor([[[9.0, 0, 3.2], [0, 8.0, 2.1], [0, 0, 1]]]).double().repeat(3, 1, 1)
    k[1, 0, 0], k[2, 0, 0] = 12.0, 15.0
    k[2, 0, 1] = 2.5  # pixels that are not square have been turned
    metric = double(3, 3, H, W)
    metric[:, 2] = 2 + torch.rand(3, H, W)
    p = metric * canonical_scale(k, W)[:, None, None, None] + 0.1 * double(3, 3, H, W)
    return p, torch.rand(3).double() + 0.5, metric, blobs(), k


@pytest.mark.parametrize("preset", PRESETS)
def test_pointmap(preset: Preset) -> None:
    p, said, metric, mask, k = scene()
    got = pointmap_losses(p, said, metric, mask, k, preset)
    agree(got, slow.pointmap(*arrays(p, said, metric, mask, k), preset), besides={"loss_multiscale"})


def test_doubled_maps_are_those_that_torch_enlarges() -> None:
    """Without a silhouette the loss is the L1 of both maps enlarged, as the release has it."""
    p, t, mask = double(2, 3, H, W), double(2, 3, H, W), torch.ones(2, 1, H, W, dtype=torch.bool)
    large = [F.interpolate(m, scale_factor=2, mode="bilinear", align_corners=False) for m in (p, t)]
    wanted = (large[0] - large[1]).abs().sum(1).mean()
    torch.testing.assert_close(doubled_l1(p - t, mask), wanted)


@pytest.mark.parametrize("name", ["normal", "albedo", "pointmap"])
@pytest.mark.parametrize("preset", PRESETS)
def test_rubbish_outside_reaches_neither_loss_nor_gradient(name: str, preset: Preset) -> None:
    p, said, metric, mask, k = scene()

    def run(points: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        points = points.clone().requires_grad_()
        if name == "pointmap":
            got = pointmap_losses(points, said, target, mask, k, preset)
        else:
            got = (normal_losses if name == "normal" else albedo_losses)(points, target, mask, preset)
        torch.stack(list(got.values())).sum().backward()
        assert points.grad is not None
        return got, points.grad

    clean, gradient = run(p, metric)
    spoilt = torch.where(mask, p, torch.full_like(p, 1e5)), torch.where(mask, metric, torch.nan)
    dirty, after = run(*spoilt)
    for term, value in clean.items():
        torch.testing.assert_close(dirty[term], value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(after, gradient, rtol=1e-9, atol=1e-12)
    assert (after[(~mask).expand_as(after)] == 0).all() and (after != 0).any()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["normal", "albedo", "pointmap"])
def test_parts_of_a_batch_average_to_the_whole(name: str, preset: Preset) -> None:
    """Losses and gradients, over parts of which one shows nobody; and the naive mean of means is another number."""
    p, said, metric, mask, k = scene()
    losses: Any = {"normal": normal_losses, "albedo": albedo_losses}.get(name)

    def run(part: slice, counts: Any) -> tuple[Tensor, Tensor]:
        points = p[part].clone().requires_grad_()
        if name == "pointmap":
            got = pointmap_losses(points, said[part], metric[part], mask[part], k[part], preset, counts=counts)
        else:
            got = losses(points, metric[part], mask[part], preset, counts)
        total = torch.stack(list(got.values())).sum()
        total.backward()
        assert points.grad is not None
        return total.detach(), points.grad

    whole, gradient = run(slice(0, 3), None)
    parts = [slice(i, i + 1) for i in range(3)]
    counts = shared_counts([mask[part] for part in parts], lambda x: x)
    assert float(counts["covered"]) * 3 == pytest.approx(float(mask_counts(mask)["covered"]))
    each = [run(part, counts) for part in parts]
    torch.testing.assert_close(torch.stack([loss for loss, _ in each]).mean(), whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.cat([g for _, g in each]) / 3, gradient, rtol=1e-6, atol=1e-9)
    naive = torch.stack([run(part, None)[0] for part in parts]).mean()
    assert abs(float(naive - whole)) > 1e-3 * float(whole)


@pytest.mark.parametrize("convention", PRESETS)
def test_scale_in_both_conventions_is_a_round_trip(convention: Preset) -> None:
    _, _, metric, mask, k = scene()
    s = canonical_scale(k, W)
    canonical, said = metric * s[:, None, None, None], spoken(s, convention)
    torch.testing.assert_close(to_metres(canonical, said, convention), metric)
    torch.testing.assert_close(heard(said, convention), s)
    torch.testing.assert_close(focal_px(said, W, convention), k[:, 0, 0])
    right = pointmap_losses(canonical, said, metric, mask, k, convention=convention)
    assert float(right["loss_scale"]) == pytest.approx(0, abs=1e-12)
    other: Preset = "paper" if convention == "release" else "release"
    assert float((to_metres(canonical, said, other) - metric).abs().max()) > 0.1
    assert float(pointmap_losses(canonical, said, metric, mask, k, convention=other)["loss_scale"]) > 0.1
