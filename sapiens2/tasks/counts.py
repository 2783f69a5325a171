"""How much the labels of a batch cover: the denominators of the masked losses.

A loss that is averaged over covered pixels must divide by those of the whole batch, wherever its parts are computed:
the mean over ranks of local means would give a person who fills one rank's picture less weight per pixel than a small
one on another. The counts follow from the labels alone, so they are known before any part's forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Counts = dict[str, Tensor]
"""Scalars, fp32: covered pixels, pairs of neighbours (`pairs_x`, `pairs_y`), corners of three (`corners`)."""
AXES = {"pairs_x": -1, "pairs_y": -2}


def pairs(mask: Tensor, axis: int) -> Tensor:
    """Where a pixel and its next neighbour along the axis are both covered: one shorter along it."""
    n = mask.shape[axis] - 1
    return mask.narrow(axis, 1, n) & mask.narrow(axis, 0, n)


def corners(mask: Tensor) -> Tensor:
    """Where a pixel, its right and its lower neighbour are all covered: [B, 1, H - 1, W - 1]."""
    return mask[:, :, :-1, :-1] & mask[:, :, :-1, 1:] & mask[:, :, 1:, :-1]


def mask_counts(mask: Tensor) -> Counts:
    """Counts of one mask, bool [B, 1, H, W]."""
    found = {"covered": mask.sum(), "corners": corners(mask).sum()}
    found |= {name: pairs(mask, axis).sum() for name, axis in AXES.items()}
    return {name: count.float() for name, count in found.items()}


def shared_counts(masks: Sequence[Tensor], mean_over_ranks: Callable[[Tensor], Tensor]) -> Counts:
    """Counts of a whole batch per part: with them, the mean of the parts' losses is the loss of the batch.

    masks: those of this rank's micro-batches, of which every rank has as many.
    """
    each = [mask_counts(mask) for mask in masks]
    stacked = torch.stack([torch.stack([counts[name] for counts in each]).mean() for name in each[0]])
    return dict(zip(each[0], mean_over_ranks(stacked).unbind()))
