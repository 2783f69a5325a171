"""The flip test: a model's raw output as the mean over a picture and its mirror image."""

from __future__ import annotations

import torch
from torch import Tensor

from sapiens2.tasks import heatmaps
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.head_specs import OUTPUT
from sapiens2.tasks.vocabulary import parts


def mirrored(task: str, maps: Tensor) -> Tensor:
    """A task's raw maps [B, C, h, w] of a picture from those of its mirror image.

    Left and right change places among keypoints and parts; x of normals and points, whose camera looks at the middle of
    the picture, turns round.
    """
    if task == "pose":
        return heatmaps.mirrored(maps)
    turned = maps.flip(-1)
    if task == "segmentation":
        return turned[:, torch.as_tensor(parts().flip, device=maps.device, dtype=torch.long)]
    if task in ("normal", "pointmap"):
        return turned * turned.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
    return turned


def flip_tested(model: TaskModel, images: Tensor) -> dict[str, Tensor]:
    """What `model` gives for normalised images [B, 3, H, W], each output the mean of two answers; twice the cost."""
    key, one, other = OUTPUT[model.task], model(images), model(images.flip(-1))
    other[key] = mirrored(model.task, other[key])
    return {name: 0.5 * (one[name] + other[name]) for name in one}
