"""A task model: the backbone and one head, by task and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sapiens2.model.backbone import Backbone, build_backbone
from sapiens2.model.heads import DeconvHead, PointmapHead, ShuffleHead
from sapiens2.model.heads_small import SmallHead
from sapiens2.model.sizes import architecture
from sapiens2.tasks.vocabulary import keypoints, parts

TaskName = Literal["pose", "segmentation", "normal", "pointmap", "albedo"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
OUTPUT = {
    "pose": "heatmaps",
    "segmentation": "logits",
    "normal": "normals",
    "pointmap": "points",
    "albedo": "albedo",
}
"""The key of a task model's output."""


@dataclass(frozen=True)
class HeadSpec:
    """Widths of a head: one upsampling stage per entry of `ups`."""

    ups: tuple[int, ...]
    convs: tuple[int, ...]
    scale_convs: tuple[int, ...] = ()
    scale_hidden: tuple[int, ...] = ()


_SCALE = {"scale_convs": (1536, 512, 128), "scale_hidden": (512, 128)}
_POSE = HeadSpec((1024, 768), (512, 512, 256))
_SEG = HeadSpec((512, 256, 128, 64), (64, 64))
_SHUFFLE = HeadSpec((768, 512, 256, 128), (64, 32, 16))
_POINTS = HeadSpec((1536, 768, 512, 256), (64, 32, 16), **_SCALE)
# Released sizes as published; "0.1b" is ours: no such checkpoint exists. Tiny has a decoder of another kind.
SPECS: dict[str, dict[str, HeadSpec]] = {
    "pose": {
        "0.1b": HeadSpec((384, 256), (256, 256)),
        **dict.fromkeys(("0.4b", "0.8b", "5b"), _POSE),
        "1b": HeadSpec((1536, 1024), (768, 512, 256)),
    },
    "segmentation": {
        "0.1b": HeadSpec((256, 128, 64, 64), (64,)),
        **dict.fromkeys(("0.4b", "0.8b", "1b", "5b"), _SEG),
    },
    "normal": {
        "0.1b": HeadSpec((256, 128, 64, 48), (32, 16)),
        **dict.fromkeys(("0.4b", "0.8b", "1b"), _SHUFFLE),
        "5b": HeadSpec((1536, 768, 512, 256), (128, 64, 32)),
    },
    "albedo": {
        "0.1b": HeadSpec((256, 128, 64, 48), (32, 16)),
        **dict.fromkeys(("0.4b", "0.8b", "1b"), _SHUFFLE),
        "5b": HeadSpec((1536, 768, 512, 256), (64, 32, 16)),
    },
    "pointmap": {
        "0.1b": HeadSpec((384, 192, 96, 48), (32, 16), (256, 128), (128,)),
        **dict.fromkeys(("0.4b", "0.8b", "1b"), _POINTS),
        "5b": HeadSpec((1536, 768, 768, 768), (128, 64, 32), **_SCALE),
    },
}
OWN_SIZES = ("nano", "tiny", "0.1b")
"""Sizes whose heads are ours and take any input size."""


class TaskModel(nn.Module):
    """Backbone and head. Parameters are `backbone.*` and `decode_head.*`, as in released task checkpoints."""

    def __init__(self, task: TaskName, size: str, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.task: TaskName = task
        self.size = size
        self.image_size: tuple[int, int] | None = None  # height and width it was trained at, where known
        self.backbone = backbone
        self.decode_head = head

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """images: [B, 3, H, W] normalised -> the head's raw output under the task's key, `OUTPUT[task]`.

        heatmaps [B, 308, h, w]; logits [B, 29, h, w]; normals, points, albedo [B, 3, h, w]; pointmap adds `scale` [B].
        h, w are a quarter of the input for pose, half for the other tiny heads, the input's own size otherwise.
        """
        features, head = self.backbone(images).patches, self.decode_head
        maps = head(features, images) if isinstance(head, SmallHead) else head(features)
        out = {OUTPUT[self.task]: maps}
        if self.task == "pointmap":
            assert isinstance(head, SmallHead | PointmapHead)
            out["scale"] = head.scale(features)
        return out


def build_head(task: TaskName, size: str) -> nn.Module:
    """A head for backbones of a size; raises ValueError for an unknown task or size."""
    if task not in SPECS:
        raise ValueError(f"there is no task called {task!r}; use one of {', '.join(TASKS)}")
    dim = architecture(size).dim
    if size in ("nano", "tiny"):
        if task == "pose":
            return SmallHead(dim, len(keypoints()), stride=4, width=96)
        if task == "segmentation":
            return SmallHead(dim, len(parts()), stride=2, width=32, gain=30.0)
        return SmallHead(dim, 3, stride=2, width=24, scalar=task == "pointmap")
    if size not in SPECS[task]:
        raise ValueError(f"no {task} head is defined for size {size!r}; use one of {', '.join(SPECS[task])}")
    spec = SPECS[task][size]
    if task == "pose":
        return DeconvHead(dim, spec.ups, spec.convs, len(keypoints()), "pose")
    if task == "segmentation":
        return DeconvHead(dim, spec.ups, spec.convs, len(parts()), "seg")
    if task == "pointmap":
        return PointmapHead(dim, spec.ups, spec.convs, spec.scale_convs, spec.scale_hidden, size in OWN_SIZES)
    return ShuffleHead(dim, spec.ups, spec.convs, task)


def build_task(task: TaskName, size: str, *, rope_dtype: str = "float32") -> TaskModel:
    """A freshly initialised task model on the default device; build under `torch.device("meta")` to allocate nothing.

    Initialisation draws from torch's global generator.
    """
    head = build_head(task, size)
    model = TaskModel(task, size, build_backbone(size, rope_dtype=rope_dtype), head)
    assert all(p.is_meta == (torch.get_default_device().type == "meta") for p in head.parameters())
    return model
