"""A task model: the backbone and one head, by task and size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sapiens2.model.backbone import Backbone, build_backbone
from sapiens2.model.heads import DeconvHead, PointmapHead, ShuffleHead
from sapiens2.model.heads_small import SmallHead
from sapiens2.model.sizes import architecture
from sapiens2.tasks.head_specs import OUTPUT, OWN_SIZES, SPECS, TASKS, TaskName
from sapiens2.tasks.vocabulary import keypoints, parts


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
