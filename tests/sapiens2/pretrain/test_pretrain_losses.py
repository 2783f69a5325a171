"""The loss terms and the collapse metrics against loops and cases with known answers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sapiens2.pretrain import collapse, schedules
from sapiens2.pretrain.losses import (
    centred,
    cross_view_loss,
    koleo_loss,
    nearest,
    normalised_targets,
    reconstruction_loss,
    sinkhorn,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_targets_are_normalised_patch_by_patch() -> None:
    patches = torch.randn(3, 5, 768) * 7 + 20
    target, mean, deviation = normalised_targets(patches)
    for i in range(3):
        for j in range(5):
            patch = patches[i, j].double()
            unbiased = ((patch - patch.mean()) ** 2).sum() / 767
            torch.testing.assert_close(
                target[i, j].double(), (patch - patch.mean()) / (unbiased + 1e-6).sqrt(), rtol=1e-4, atol=1e-4
            )
    torch.testing.assert_close(target * deviation + mean, patches)


def test_a_zero_prediction_scores_one_and_the_target_zero() -> None:
    patches = torch.rand(2, 4, 768)
    assert reconstruction_loss(torch.zeros_like(patches), patches).item() == pytest.approx(767 / 768, abs=1e-3)
    assert reconstruction_loss(normalised_targets(patches)[0], patches).item() == 0


def test_a_flat_patch_gives_finite_gradients() -> None:
    prediction = torch.randn(1, 2, 12, requires_grad=True)
    reconstruction_loss(prediction, torch.ones(1, 2, 12)).backward()
    assert torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize(("views", "pairs"), [(6, 10), (2, 2), (3, 4)])
def test_cross_view_loss_is_the_mean_over_all_pairs_of_different_views(views: int, pairs: int) -> None:
    student, teacher = torch.randn(3, views, 11), torch.randn(3, 2, 11).softmax(-1)
    terms = []
    for j in range(2):
        for i in range(views):
            if i != j:
                log_q = torch.log_softmax(student[:, i].double() / 0.1, -1)
                terms.append(-(teacher[:, j].double() * log_q).sum(-1).mean())
    assert len(terms) == pairs
    assert cross_view_loss(student, teacher, 0.1).item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


def test_koleo_is_minus_the_mean_log_distance_to_the_nearest_in_the_group() -> None:
    x = torch.randn(8, 16)
    unit = F.normalize(x.double(), dim=1)
    logs = []
    for i in range(8):
        mates = [j for j in range(8) if j // 4 == i // 4 and j != i]
        logs.append(min((unit[i] - unit[j]).norm().item() for j in mates))
    expected = -sum(math.log(math.hypot(d, 0.05)) for d in logs) / 8
    assert koleo_loss(x, 4, 0.05).item() == pytest.approx(expected, rel=1e-5)


def test_koleo_groups_do_not_see_each_other() -> None:
    x = torch.randn(8, 16)
    halves = (koleo_loss(x[:4], 4, 0.05) + koleo_loss(x[4:], 4, 0.05)) / 2
    torch.testing.assert_close(koleo_loss(x, 4, 0.05), halves)
    with pytest.raises(ValueError, match="KoLeo groups of 3"):
        koleo_loss(x, 3, 0.05)


@pytest.mark.parametrize("spread", [1e-3, 1e-4, 1e-6, 0.0])
def test_koleo_of_almost_equal_features_is_finite_and_bounded(spread: float) -> None:
    """As at the start of training, where LayerScale leaves the class tokens of all images nearly alike."""
    common = torch.randn(1, 192)
    x = (common + spread * torch.randn(16, 192)).requires_grad_()
    koleo_loss(x, 16, 0.05).backward()
    assert torch.isfinite(x.grad).all()
    # Each unit vector is pulled by itself and by those whose neighbour it is, at most 1 / (2 floor) each.
    assert x.grad.norm() * x.detach().norm(dim=1).mean() < 2 * 10.0
    if spread >= 1e-4:
        step = koleo_loss(x.detach() - 1e-3 * x.grad / x.grad.norm(), 16, 0.05)
        assert step < koleo_loss(x.detach(), 16, 0.05)


def test_neighbours_are_found_in_a_narrow_cone() -> None:
    """Unit vectors 1e-4 apart: their cosines differ by 1e-8, which fp32 cannot tell."""
    x = F.normalize(torch.randn(1, 64) * 3 + 1e-4 * torch.randn(12, 64), dim=1)
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    assert torch.equal(nearest(x[None])[0], distances.argmin(1))


def test_centring_takes_out_what_all_images_share() -> None:
    logits = torch.randn(5, 7)
    shift = torch.randn(7) * 10
    torch.testing.assert_close(centred(logits + shift, shift, 0.07), (logits / 0.07).softmax(-1), rtol=1e-3, atol=1e-5)


def test_sinkhorn_uses_every_prototype_equally() -> None:
    # More rounds than in training, so that both margins have settled.
    q = sinkhorn(torch.randn(32, 8), 0.5, rounds=50)
    torch.testing.assert_close(q.sum(1), torch.ones(32), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(q.sum(0), torch.full((8,), 4.0), rtol=1e-3, atol=1e-3)


def test_sinkhorn_equals_its_textbook_form_and_survives_far_prototypes() -> None:
    logits = torch.randn(6, 5)
    q = torch.exp(logits.double() / 0.07).T  # prototypes x images, as in SwAV
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / 5
        q = q / q.sum(0, keepdim=True) / 6
    torch.testing.assert_close(sinkhorn(logits, 0.07).double(), (q * 6).T, rtol=1e-3, atol=1e-5)
    far = logits.clone()
    far[:, 2] -= 50
    assert torch.isfinite(sinkhorn(far, 0.07)).all()


def test_mutual_information_tells_learning_from_both_collapses() -> None:
    constant = torch.eye(8)[[3] * 16]
    flat = torch.full((16, 8), 1 / 8)
    spread = torch.eye(8)[list(range(8)) * 2]
    assert collapse.mutual_information(constant).item() == pytest.approx(0, abs=1e-6)
    assert collapse.mutual_information(flat).item() == pytest.approx(0, abs=1e-6)
    assert collapse.mutual_information(spread).item() == pytest.approx(math.log(8), abs=1e-5)
    assert [collapse.prototypes_used(p).item() for p in (constant, spread)] == [1, 8]


def test_rank_and_spread_of_features() -> None:
    one = torch.randn(1, 32).expand(64, -1)
    assert collapse.rankme(one).item() == pytest.approx(1, abs=1e-3)
    assert collapse.class_token_std(one).item() == pytest.approx(0, abs=1e-5)
    basis = torch.linalg.qr(torch.randn(64, 32))[0]
    assert collapse.rankme(basis).item() == pytest.approx(32, abs=1e-2)
    assert collapse.class_token_std(torch.randn(4000, 32)).item() == pytest.approx(1, abs=0.02)


def test_schedules() -> None:
    assert [schedules.linear(s, 0.065, 0.07, 1000) for s in (0, 500, 1000, 9999)] == pytest.approx(
        [0.065, 0.0675, 0.07, 0.07]
    )
    assert [schedules.ramp(s, 4) for s in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]
    assert schedules.ramp(0, 0) == 1
    assert schedules.scaled_ema(1536) == pytest.approx(0.992)
    # Two half batches move the teacher as far as one whole.
    assert schedules.scaled_ema(768) ** 2 == pytest.approx(0.992)
