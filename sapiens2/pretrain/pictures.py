"""What the student saw of a view and what it made of the rest, as pictures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sapiens2.model.backbone import unpatchify
from sapiens2.model.normalise import denormalise, normalise
from sapiens2.pretrain.decoder import take
from sapiens2.pretrain.losses import normalised_targets
from sapiens2.pretrain.objective import PretrainObjective

Picture = NDArray[np.uint8]
GREY = 127


class Completion(NamedTuple):
    """One global view, what the student saw of it, and what it made of the rest; uint8 [H, W, 3] each."""

    image: Picture
    masked: Picture
    completed: Picture


def completions(objective: PretrainObjective, batch: dict[str, Tensor], count: int) -> list[Completion]:
    """The first global view of the first `count` images of a batch made by a PretrainSource.

    The decoder predicts contrast within a patch; the hidden patches' own mean and deviation bring it back to pixels, as
    in the figures of He et al. 2021. 4K views are shown at half their size, which is what is predicted.
    """
    device = objective.centre.device
    images = normalise(batch["globals"][:count, 0].to(device))
    kept = batch["kept"][:count, 0].to(device)
    prediction, masked = objective.complete(images, kept)
    patches = objective.target_patches(images)
    _, mean, deviation = normalised_targets(take(patches, masked))
    place = masked[..., None].expand_as(prediction)
    completed = patches.scatter(1, place, prediction.float() * deviation + mean)
    veil = torch.zeros_like(patches).scatter(1, place, 1.0)
    hidden = unpatchify(veil, *objective.config.grid, objective.config.target_patch).movedim(1, -1).cpu().numpy() > 0
    shown = zip(_pixels(patches, objective), hidden, _pixels(completed, objective))
    return [Completion(image, np.where(veiled, np.uint8(GREY), image), full) for image, veiled, full in shown]


def _pixels(patches: Tensor, objective: PretrainObjective) -> Picture:
    """[N, tokens, pixels] -> uint8 [N, H, W, 3]."""
    config = objective.config
    images = denormalise(unpatchify(patches, *config.grid, config.target_patch))
    return np.asarray(images.cpu().numpy(), dtype=np.uint8)
