"""Fine-tuning as the engine sees it: images and labels in, named losses out, parameters in groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.engine.parallel import whole
from sapiens2.model.heads_small import Only
from sapiens2.model.lora import add_lora, merged
from sapiens2.model.normalise import normalise
from sapiens2.model.weights import named_weights
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.counts import Counts, shared_counts
from sapiens2.tasks.depth import depth_groups
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
        self._counts: Counts | None = None
        if config.freeze_backbone:
            model.backbone.requires_grad_(False).eval()
        if config.lora_rank:
            add_lora(model.backbone, config.lora_rank, config.lora_alpha)
        self.averaged = [name for name, p in model.named_parameters() if p.requires_grad] if config.ema else []
        """Names of the parameters whose averages are published."""
        copies = [dict(model.named_parameters())[name].detach().clone() for name in self.averaged]
        self.averages = nn.ParameterList(nn.Parameter(copy, requires_grad=False) for copy in copies)

    def train(self, mode: bool = True) -> Self:
        """As every module's, but a frozen backbone stays as in prediction: no dropout, no statistics that move."""
        super().train(mode)
        if self.config.freeze_backbone:
            self.model.backbone.eval()
        return self

    def before_step(self, parts: Sequence[dict[str, Tensor]], step: int) -> None:
        """What the labels of the whole batch cover, on all ranks and in all micro-batches: the losses' denominators."""
        if "valid" in parts[0]:
            self._counts = shared_counts([part["valid"] for part in parts], mean_over_ranks)

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Losses of one batch as `sapiens2.tasks.source.collate` makes it; `loss` is their sum.

        After `before_step` they are this part's shares: their mean over the parts is the loss of the whole batch.
        """
        images = normalise(photometric(batch["images"], batch["photometric"]))
        batch, only = self._asked(batch, step)
        out = self.model(images, resting=step % self.config.backbone_every > 0, only=only)
        # Losses are computed in fp32 whatever the model's arithmetic.
        with torch.autocast(images.device.type, enabled=False):
            losses = self.losses({name: tensor.float() for name, tensor in out.items()}, batch)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _asked(self, batch: dict[str, Tensor], step: int) -> tuple[dict[str, Tensor], Only]:
        """The batch with those labels of parts that this step looks at, and which sub-pixels answer them."""
        stride, fine = self.config.label_stride, getattr(self.model.decode_head, "fine", 1)
        if "mask" not in batch:
            return batch, None
        if stride > 1:
            # A head that answers by as many sub-pixels is asked for those alone that have a label.
            only = turn(stride, step) if fine == stride else None
            return batch | {"mask": thinned(batch["mask"], stride, step)}, only
        # The loss does not mind the order of pixels: where the head answers by sub-pixels they stay apart.
        return (batch | {"mask": apart(batch["mask"], fine)}, "apart") if fine > 1 else (batch, None)

    def losses(self, out: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The task's named losses."""
        config = self.config
        prediction = out[OUTPUT[config.task]]
        if config.task == "pose":
            size = (prediction.shape[-2], prediction.shape[-1])
            xy = to_heatmap(batch["keypoints"], config.image_size, size)
            target = encode(xy, size, heatmap_sigma(size[1]))
            return pose_losses(prediction, target, batch["labelled"].float(), config.losses, config.hard_keypoints)
        if config.task == "segmentation":
            return segmentation_losses(prediction, batch["mask"], self.class_weights)  # type: ignore[arg-type]
        target, valid, counts = batch["target"], batch["valid"], self._counts
        prediction = enlarge(prediction, (target.shape[-2], target.shape[-1]))
        if config.task == "normal":
            return normal_losses(prediction, target, valid, config.losses, counts)
        if config.task == "albedo":
            return albedo_losses(prediction, target, valid, config.losses, counts)
        return pointmap_losses(
            prediction,
            out["scale"],
            target,
            valid,
            batch["intrinsics"],
            config.losses,
            convention=config.scale,
            counts=counts,
            mean_over_ranks=mean_over_ranks,
        )

    def after_step(self, step: int) -> None:
        """Move the averages towards the weights, where they are kept."""
        self._counts = None
        if self.averaged:
            with torch.no_grad():
                for average, weight in zip(self.averages, self._followed(), strict=True):
                    average.lerp_(weight, 1 - self.config.ema)

    def _followed(self) -> list[nn.Parameter]:
        named = dict(self.model.named_parameters())
        return [named[name] for name in self.averaged]

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups by depth and decay, see sapiens2.tasks.depth."""
        return depth_groups(self.model, lr, weight_decay, self.config.layer_decay)

    def export_state(self) -> dict[str, Tensor]:
        """The task model under the released names: averages in their parameters' places, corrections merged."""
        state = named_weights(self.model)
        state |= {name: average.detach() for name, average in zip(self.averaged, self.averages, strict=True)}
        return merged(self.model, state, whole)


def turn(stride: int, step: int) -> tuple[int, int]:
    """Row and column, in each square of stride x stride pixels, of the label that a step looks at.

    Every round begins one later than the last, so that what is done at every fourth step, too, meets all of them.
    """
    return divmod((step + step // stride**2) % stride**2, stride)


def thinned(mask: Tensor, stride: int, step: int) -> Tensor:
    """One label [B, H / stride, W / stride] of each square of labels [B, H, W], at every step another one of it.

    Over stride^2 steps an output pixel meets all labels that it stands for.
    """
    down, right = turn(stride, step)
    return mask[:, down::stride, right::stride]


def apart(mask: Tensor, side: int) -> Tensor:
    """Labels [B, H, W] by their places in squares, row by row: [B, side^2, H / side, W / side]."""
    return mask.unflatten(2, (-1, side)).unflatten(1, (-1, side)).permute(0, 2, 4, 1, 3).flatten(1, 2)


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean over the ranks of this run; the values themselves where there is one."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


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
