"""The three terms of the pretraining loss, and how the teacher's answers are balanced: pure functions, all in fp32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.pretrain import ranks

TARGET_EPS = 1e-6


def normalised_targets(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Patches [..., pixels] to zero mean and unit (unbiased) variance each; also the means and the deviations.

    He et al. 2021, "per-patch normalisation": contrast counts, brightness does not.
    """
    patches = patches.float()
    mean = patches.mean(-1, keepdim=True)
    deviation = (patches.var(-1, keepdim=True) + TARGET_EPS).sqrt()
    return (patches - mean) / deviation, mean, deviation


def reconstruction_loss(prediction: Tensor, patches: Tensor) -> Tensor:
    """Mean squared error to the normalised hidden patches; 1 for a decoder that always answers zero."""
    target, _, _ = normalised_targets(patches)
    return F.mse_loss(prediction.float(), target)


def cross_view_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over all pairs of a student view and another teacher view.

    student: logits [B, V, K], the first views being the teacher's; teacher: probabilities [B, T, K]. For 2 global and 4
    local views these are 2 + 8 = 10 pairs; a view is never held against itself.
    """
    log_q = F.log_softmax(student.float() / temperature, dim=-1)
    pairs = -torch.einsum("bjk,bik->ji", teacher.float(), log_q) / len(student)  # [T, V]
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0.0).sum() / (pairs.numel() - min(pairs.shape))


def koleo_loss(features: Tensor, group: int, floor: float) -> Tensor:
    """Kozachenko-Leonenko spread: minus the mean log distance to the nearest neighbour, within groups of images.

    features: [B, D], B a multiple of `group`. At the start class tokens are almost equal. Their cosines then differ by
    less than fp32 resolves, so these only name the neighbour; the distance is that of the difference vector. With
    log sqrt(d^2 + floor^2) the gradient is at most 1 / (2 floor) and fades below, where the plain log explodes.
    """
    if group < 2 or len(features) % group:
        raise ValueError(f"{len(features)} images do not divide into KoLeo groups of {group} (2 at least)")
    unit = F.normalize(features.float(), dim=-1).unflatten(0, (-1, group))  # [G, g, D]
    neighbours = nearest(unit.detach())
    difference = unit - torch.gather(unit, 1, neighbours[..., None].expand_as(unit))
    return -0.5 * torch.log(difference.square().sum(-1) + floor**2).mean()


def koleo_over_ranks(features: Tensor, group: int, floor: float) -> Tensor:
    """`koleo_loss` of the images that all ranks hold at this moment, each view apart: [B, V, D], B alike on all ranks.

    Where the groups lie within ranks, a rank minds its own, and nothing travels. Where they do not, every rank takes
    the loss of all images and has the gradient of its own ones alone, times the number of ranks: sharding takes the
    mean of the ranks' gradients, and the sum is wanted. So the mean over ranks, of losses as of gradients, is in both
    cases what one process has for all images. Raises ValueError when all of them do not fill whole groups.
    """
    apart = len(features) % group != 0
    views = (ranks.gathered(features) if apart else features).unbind(1)
    loss = torch.stack([koleo_loss(view, group, floor) for view in views]).mean()
    return loss.detach() + ranks.size() * (loss - loss.detach()) if apart else loss


def nearest(unit: Tensor) -> Tensor:
    """The index of each unit vector's nearest other one in its group: [G, g, D] -> [G, g].

    About the group's mean, so that vectors in a narrow cone are still told apart.
    """
    spread = unit - unit.mean(1, keepdim=True)
    similarity = spread @ spread.mT - 0.5 * spread.square().sum(-1)[:, None, :]  # orders as minus the distance
    similarity.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return similarity.argmax(-1)


def centred(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Teacher probabilities: softmax of the logits about a running centre (DINO); [..., K]."""
    return F.softmax((logits.float() - centre) / temperature, dim=-1)


def sinkhorn(logits: Tensor, temperature: float, rounds: int = 3) -> Tensor:
    """Teacher probabilities that use all prototypes equally over the batch of all ranks; [N, K] (SwAV, DINOv2).

    In logarithms: a prototype far from every image would otherwise underflow to a column of zeros.
    """
    log_q = logits.float() / temperature
    for _ in range(rounds):
        log_q = log_q - ranks.all_logsumexp(log_q)  # each prototype gets the same mass
        log_q = log_q.log_softmax(dim=1)  # each image gives the same mass
    return log_q.exp()
