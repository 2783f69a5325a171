"""Whether the class token still tells images apart: numbers to watch from the first step.

The entropy of the teacher alone cannot tell learning from collapse: it starts at almost its maximum and is as high when
every image gets the same flat answer. The mutual information between image and prototype is near zero in both failures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def mutual_information(probabilities: Tensor) -> Tensor:
    """Entropy of the mean answer minus mean entropy of the answers, nats; [N, K] -> scalar, at most log min(N, K)."""
    p = probabilities.float()
    return entropy(p.mean(0)) - entropy(p).mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy over the last axis, nats."""
    return torch.special.entr(probabilities).sum(-1)


def prototypes_used(probabilities: Tensor) -> Tensor:
    """How many prototypes are the first choice of some image; [N, K] -> scalar."""
    chosen = torch.zeros(probabilities.shape[1], device=probabilities.device)
    return chosen.index_fill(0, probabilities.argmax(1), 1.0).sum()


def class_token_std(features: Tensor) -> Tensor:
    """Deviation over images of unit class tokens, times sqrt(D): 0 when all agree, about 1 when spread evenly."""
    unit = F.normalize(features.float(), dim=-1)
    return unit.std(0, correction=0).mean() * features.shape[1] ** 0.5


def rankme(features: Tensor) -> Tensor:
    """Effective rank: exp of the entropy of the normalised singular values (Garrido et al. 2023); [N, D] -> scalar."""
    values = torch.linalg.svdvals(features.float())
    return entropy(values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)).exp()
