"""Fine-tuning as the engine sees it: images and labels in, named losses out, parameters in groups."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.model.normalise import normalise
from sapiens2.model.weights import named_weights
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.head_specs import OUTPUT
from sapiens2.tasks.heatmaps import encode, heatmap_sigma, to_heatmap
from sapiens2.tasks.losses import albedo_losses, normal_losses, pose_losses, segmentation_losses
from sapiens2.tasks.pointmap_losses import pointmap_losses
from sapiens2.tasks.vocabulary import parts


class TaskObjective(nn.Module):
    """A task model and its losses."""

    def __init__(self, config: FinetuneConfig, model: TaskModel) -> None:
        super().__init__()
        self.config = config
        self.model = model
        weights = torch.tensor(parts().weights) ** {"release": 1.0, "root": 0.5, "none": 0.0}[config.class_weights]
        self.register_buffer("class_weights", weights, persistent=False)
        if config.freeze_backbone:
            model.backbone.requires_grad_(False)

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Losses of one batch as `sapiens2.tasks.source.collate` makes it; `loss` is their sum."""
        images = normalise(photometric(batch["images"], batch["photometric"]))
        out = self.model(images)
        # Losses are computed in fp32 whatever the model's arithmetic.
        with torch.autocast(images.device.type, enabled=False):
            losses = self.losses({name: tensor.float() for name, tensor in out.items()}, batch)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def losses(self, out: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The task's named losses."""
        config = self.config
        prediction = out[OUTPUT[config.task]]
        if config.task == "pose":
            size = (prediction.shape[-2], prediction.shape[-1])
            xy = to_heatmap(batch["keypoints"], config.image_size, size)
            target = encode(xy, size, heatmap_sigma(size[1]))
            return pose_losses(prediction, target, batch["labelled"].float(), config.losses)
        if config.task == "segmentation":
            return segmentation_losses(prediction, batch["mask"], self.class_weights)  # type: ignore[arg-type]
        target, valid = batch["target"], batch["valid"]
        prediction = enlarge(prediction, (target.shape[-2], target.shape[-1]))
        if config.task == "normal":
            return normal_losses(prediction, target, valid, config.losses)
        if config.task == "albedo":
            return albedo_losses(prediction, target, valid, config.losses)
        return pointmap_losses(prediction, out["scale"], target, valid, batch["intrinsics"], config.losses)

    def after_step(self, step: int) -> None:
        """Nothing follows a step: fine-tuning has no teacher."""

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups by depth and decay: the rate of a block is `layer_decay` times that of the one above it.

        Norms, gains and biases do not decay; tokens and matrices do (specification 4).
        """
        layers = len(self.model.backbone.blocks)
        groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((layer_of(name, layers), parameter.ndim > 1), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": lr * math.pow(self.config.layer_decay, layers + 1 - layer),
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (layer, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
        ]

    def export_state(self) -> dict[str, Tensor]:
        """The task model under the released names."""
        return named_weights(self.model)


def layer_of(name: str, layers: int) -> int:
    """Depth of a task model's parameter: 0 embeddings, i + 1 block i, layers + 1 final norm and head."""
    if name.startswith("backbone.blocks."):
        return int(name.split(".")[2]) + 1
    shallow = ("cls_token", "storage_tokens", "patch_embed", "tokenizer")
    return 0 if name.startswith(tuple(f"backbone.{word}" for word in shallow)) else layers + 1


def enlarge(prediction: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of a map [B, C, h, w] to (height, width); unchanged if it has that size."""
    if prediction.shape[-2:] == size:
        return prediction
    return F.interpolate(prediction, size, mode="bilinear", align_corners=False)


def photometric(images: Tensor, change: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue on the device: uint8 [B, H, W, 3] and [B, 4] -> float, 0..255.

    Hue turns the colour about the grey axis.
    """
    x = images.float()
    offset, contrast, saturation, hue = (change[:, k, None, None, None] for k in range(4))
    x = (x - 127.5) * contrast + 127.5 + offset
    grey = x.mean(-1, keepdim=True)
    chroma = (x - grey) * saturation
    # Rodrigues' formula about (1, 1, 1) / sqrt 3, to which chroma is orthogonal.
    turned = torch.stack(
        [chroma[..., 2] - chroma[..., 1], chroma[..., 0] - chroma[..., 2], chroma[..., 1] - chroma[..., 0]], -1
    )
    chroma = chroma * torch.cos(hue) + turned * (torch.sin(hue) / math.sqrt(3))
    return (grey + chroma).clamp(0, 255)
