"""Every loss against a value worked out by hand or by a loop, empty masks, and masks that hide rubbish."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sapiens2.tasks.losses import (
    albedo_losses,
    dice_loss,
    gradient_loss,
    masked_mean,
    normal_losses,
    pose_losses,
    segmentation_losses,
)
from sapiens2.tasks.pointmap_losses import (
    difference_normals,
    intrinsics_loss,
    mean_depth,
    pointmap_losses,
    points_normal_loss,
    shift_invariant_l1,
    silog,
)
from sapiens2.tasks.pointmap_scale import canonical_scale


def value(loss: Tensor) -> float:
    return float(loss.detach())


def test_masked_mean_sums_channels_and_pools_the_batch() -> None:
    values = torch.ones(2, 3, 1, 2)
    mask = torch.tensor([[[[True, False]]], [[[True, True]]]])
    values[0, :, 0, 1] = float("nan")
    assert value(masked_mean(values, mask)) == 3.0


def test_gradient_loss_by_hand() -> None:
    target = torch.zeros(1, 1, 2, 3)
    prediction = torch.tensor([[[[0.0, 1.0, 3.0], [0.0, 1.0, 3.0]]]])
    every = torch.ones(1, 1, 2, 3, dtype=torch.bool)
    # x: differences 1, 2 in both rows: (1 + 4) / 2; y: 0.
    assert value(gradient_loss(prediction, target, every)) == pytest.approx(2.5)
    without = every.clone()
    without[..., 2] = False
    assert value(gradient_loss(prediction, target, without)) == pytest.approx(1.0)


def test_pose_release_counts_unlabelled_keypoints_as_zeros() -> None:
    heatmaps, targets = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    got = pose_losses(heatmaps, targets, torch.tensor([[1.0, 0.0]]))
    assert value(got["loss_heatmap"]) == pytest.approx(10 * 0.5)


def test_pose_paper_takes_the_hardest_keypoints() -> None:
    """Norms over each map, not squared, summed over the 128 largest; the release's with a switch."""
    error = torch.arange(200.0).view(1, 200, 1, 1).expand(1, 200, 2, 2)
    everyone = torch.ones(1, 200)
    got = pose_losses(error, torch.zeros_like(error), everyone, "paper")
    assert value(got["loss_heatmap"]) == pytest.approx(2 * sum(range(72, 200)))
    assert value(pose_losses(error, error * 0, everyone, "paper", 0)["loss_heatmap"]) == 2 * sum(range(200))
    switched = pose_losses(error, error * 0, everyone, "release", 2)
    assert value(switched["loss_heatmap"]) == pytest.approx(10 * (199**2 + 198**2) / 2)


def test_cross_entropy_is_weighted_and_averaged_over_all_pixels() -> None:
    logits = torch.tensor([[[[2.0, 0.0, 5.0]], [[0.0, 1.0, 1.0]]]])
    labels = torch.tensor([[[0, 1, 255]]])
    weights = torch.tensor([0.5, 4.0])
    by_hand = (0.5 * math.log(1 + math.exp(-2)) + 4.0 * math.log(1 + math.exp(-1))) / 3
    assert value(segmentation_losses(logits, labels, weights)["loss_ce"]) == pytest.approx(by_hand)


def test_dice_by_hand() -> None:
    logits = torch.zeros(2, 3, 1, 2)
    labels = torch.tensor([[[1, 0]], [[0, 0]]])
    # Sample 0: class 1 present, p = 1/3 at both pixels; sample 1 has no foreground and gives 0.
    score = (2 / 3 + 1e-3) / (2 / 9 + 1 + 1e-3)
    assert value(dice_loss(logits.softmax(1), labels)) == pytest.approx((1 - score) / 2, rel=1e-5)


def test_dice_ignores_unknown_pixels() -> None:
    logits = torch.randn(1, 3, 2, 2)
    labels = torch.tensor([[[1, 2], [255, 255]]])
    changed = logits.clone()
    changed[..., 1, :] = 9.0
    assert value(dice_loss(logits.softmax(1), labels)) == pytest.approx(value(dice_loss(changed.softmax(1), labels)))


def test_normals_by_hand() -> None:
    target = torch.tensor([0.0, 0, -1]).view(1, 3, 1, 1)
    prediction = torch.tensor([2.0, 0, 0]).view(1, 3, 1, 1)
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    got = normal_losses(prediction, target, mask)
    assert value(got["loss_cosine"]) == pytest.approx(10.0)
    assert value(got["loss_l1"]) == pytest.approx(3.0)
    assert value(got["loss_gradient"]) == 0.0
    paper = normal_losses(prediction, target, mask, "paper")
    assert value(paper["loss_cosine"]) == pytest.approx(1.0) and value(paper["loss_l2"]) == pytest.approx(math.sqrt(5))


def test_albedo_by_hand() -> None:
    target = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1)
    prediction = torch.tensor([0.25, 0.25, 0.5]).view(1, 3, 1, 1)
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    got = albedo_losses(prediction, target, mask)
    assert value(got["loss_l1"]) == pytest.approx(2 * 0.5) and value(got["loss_chroma"]) == pytest.approx(0.5, rel=1e-4)
    paper = albedo_losses(prediction, target, mask, "paper")
    assert value(paper["loss_mean"]) == pytest.approx(0.5) and value(paper["loss_l2"]) == pytest.approx(
        math.sqrt(0.125)
    )


def test_silog_is_zero_up_to_half_of_a_scale() -> None:
    depth = torch.rand(2, 1, 4, 4) + 1
    mask = torch.ones_like(depth, dtype=torch.bool)
    # A constant log offset d leaves sqrt(d^2 - d^2 / 2).
    assert value(silog(depth * math.e, depth, mask)) == pytest.approx(math.sqrt(0.5), rel=1e-5)
    assert value(silog(depth, depth, mask)) == 0.0


def _grid(depth: Tensor, k: Tensor) -> Tensor:
    height, width = depth.shape[-2:]
    u, v = torch.arange(width).float(), torch.arange(height).float()[:, None]
    x = (u - k[0, 0, 2]) / k[0, 0, 0] * depth
    y = (v - k[0, 1, 2]) / k[0, 1, 1] * depth
    return torch.cat([x, y, depth], 1)


@pytest.fixture
def plane() -> tuple[Tensor, Tensor, Tensor]:
    k = torch.tensor([[[20.0, 0, 3.5], [0, 20.0, 2.5], [0, 0, 1]]])
    points = _grid(torch.full((1, 1, 6, 8), 2.0), k)
    mask = torch.zeros(1, 1, 6, 8, dtype=torch.bool)
    mask[..., 1:5, 2:7] = True
    return points, mask, k


def test_perfect_points_cost_nothing(plane: tuple[Tensor, Tensor, Tensor]) -> None:
    points, mask, k = plane
    s = canonical_scale(k, 8)
    assert value(s[0]) == pytest.approx(8 / 20)
    got = pointmap_losses(points * s, s, points, mask, k)
    for name, loss in got.items():
        assert value(loss) == pytest.approx(0, abs=1e-4), name


def test_points_normals_face_the_camera(plane: tuple[Tensor, Tensor, Tensor]) -> None:
    normals = difference_normals(plane[0])
    torch.testing.assert_close(normals, torch.tensor([0.0, 0, -1]).view(1, 3, 1, 1).expand_as(normals))


def test_normals_of_points_do_not_see_the_silhouette(plane: tuple[Tensor, Tensor, Tensor]) -> None:
    points, mask, _ = plane
    rubbish = torch.where(mask, points, torch.randn_like(points) * 50)
    assert value(points_normal_loss(points, rubbish, mask)) == pytest.approx(0, abs=1e-5)
    assert value(points_normal_loss(rubbish, points, mask)) == pytest.approx(0, abs=1e-5)


def test_rays_and_shift_by_hand(plane: tuple[Tensor, Tensor, Tensor]) -> None:
    points, mask, k = plane
    moved = points + torch.tensor([0.3, -0.1, 0.0]).view(1, 3, 1, 1)
    assert value(intrinsics_loss(moved, mask, k)) == pytest.approx(0.4, rel=1e-4)
    assert value(shift_invariant_l1(moved, points, mask)) == pytest.approx(0, abs=1e-5)
    assert value(shift_invariant_l1(points * 2, points, mask)) > 0.01
    assert value(mean_depth(points, mask).squeeze()) == pytest.approx(2.0)


def test_pointmap_terms_by_hand(plane: tuple[Tensor, Tensor, Tensor]) -> None:
    points, mask, k = plane
    s = canonical_scale(k, 8)
    moved = points * s + torch.tensor([0.08, 0.0, 0.0]).view(1, 3, 1, 1)
    got = pointmap_losses(moved, s + 0.5, points, mask, k)
    assert value(got["loss_l1"]) == pytest.approx(2 * 0.08 / 0.8, rel=1e-4)
    assert value(got["loss_scale"]) == pytest.approx(2.0)
    assert value(got["loss_shift"]) == pytest.approx(0, abs=1e-5)
    far = pointmap_losses(moved + 1e3, s, points, mask, k)
    assert value(far["loss_l1"]) == 4.0 and value(far["loss_multiscale"]) == 4.0
    paper = pointmap_losses(moved, s, points, mask, k, "paper")
    assert value(paper["loss_l2"]) == pytest.approx(0.08, rel=1e-4) and value(paper["loss_gradient"]) < 1e-4


@pytest.mark.parametrize("preset", ["release", "paper"])
def test_empty_masks_cost_nothing_and_push_nowhere(preset: str) -> None:
    prediction = torch.randn(1, 3, 4, 4, requires_grad=True)
    scale = torch.ones(1, requires_grad=True)
    target, mask = torch.randn(1, 3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    k = torch.eye(3)[None]
    losses = {
        **normal_losses(prediction, target, mask, preset),  # type: ignore[arg-type]
        **albedo_losses(prediction, target, mask, preset),  # type: ignore[arg-type]
        **pointmap_losses(prediction, scale, target, mask, k, preset),  # type: ignore[arg-type]
    }
    del losses["loss_scale"]  # the scale is a property of the camera, whoever is in the picture
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert value(total) == 0.0 and prediction.grad is not None and (prediction.grad == 0).all()


def test_rubbish_outside_the_mask_changes_nothing() -> None:
    torch.manual_seed(1)
    prediction, target = torch.randn(1, 3, 5, 5), torch.randn(1, 3, 5, 5)
    mask = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    mask[..., 1:4, 1:4] = True
    worse = torch.where(mask, prediction, torch.full_like(prediction, 1e4))
    for function in (normal_losses, albedo_losses):
        for name, loss in function(prediction, target, mask).items():
            assert value(loss) == pytest.approx(value(function(worse, target, mask)[name]), rel=1e-5), name
