"""A task model: the backbone and one head, by task and size.

Where the release and the paper print different heads, both are here under those names. With the window tokenizer (4K)
the dense heads decode to 2K: one more stage on the same grid of 64 x 48.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sapiens2.model.backbone import Backbone, build_backbone
from sapiens2.model.foreign import ForeignBackbone
from sapiens2.model.heads import DeconvHead, PointmapHead, ShuffleHead
from sapiens2.model.heads_small import Only, SmallHead
from sapiens2.model.sizes import architecture
from sapiens2.tasks.head_specs import OUTPUT, OWN_SIZES, SMALL_HEADS, SPECS, TASKS, Source, TaskName, head_spec
from sapiens2.tasks.vocabulary import keypoints, parts


class TaskModel(nn.Module):
    """Backbone and head. Parameters are `backbone.*` and `decode_head.*`, as in released task checkpoints.

    scale: what the pointmap's number means, see sapiens2.tasks.pointmap_scale.
    """

    def __init__(
        self,
        task: TaskName,
        size: str,
        backbone: Backbone | ForeignBackbone,
        head: nn.Module,
        scale: Source = "release",
    ) -> None:
        super().__init__()
        self.task: TaskName = task
        self.size = size
        self.image_size: tuple[int, int] | None = None  # height and width it was trained at, where known
        self.scale: Source = scale
        self.backbone = backbone
        self.decode_head = head

    def forward(self, images: Tensor, *, resting: bool = False, only: Only = None) -> dict[str, Tensor]:
        """images: [B, 3, H, W] normalised -> the head's raw output under the task's key, `OUTPUT[task]`.

        heatmaps [B, 308, h, w]; logits [B, 29, h, w]; normals, points, albedo [B, 3, h, w]; pointmap adds `scale` [B].
        h, w are a quarter of the input for pose, half for tiny normals and points and with the window tokenizer (there
        a sixteenth for pose), the input's own size otherwise. resting: no gradient reaches the backbone. only: of a
        head that answers by sub-pixels, those that are wanted, see SmallHead.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not resting):
            features = self.backbone(images).patches
        return self.decode(features, images, only)

    def decode(self, features: Tensor, images: Tensor, only: Only = None) -> dict[str, Tensor]:
        """The head alone: features [B, D, h, w] of images [B, 3, H, W] -> what `forward` gives."""
        head = self.decode_head
        maps = head(features, images, only) if isinstance(head, SmallHead) else head(features)
        out = {OUTPUT[self.task]: maps}
        if self.task == "pointmap":
            assert isinstance(head, SmallHead | PointmapHead)
            out["scale"] = head.scale(features)
        return out


def build_head(
    task: TaskName, size: str, *, style: Source = "release", to_2k: bool = False, dim: int | None = None
) -> nn.Module:
    """A head for backbones of a size, or of `dim` channels; raises ValueError for an unknown task or size."""
    if task not in SPECS:
        raise ValueError(f"there is no task called {task!r}; use one of {', '.join(TASKS)}")
    dim = dim or architecture(size).dim
    if size in SMALL_HEADS:
        if task == "pose":
            return SmallHead(dim, len(keypoints()), stride=4, width=96)
        if task == "segmentation":
            return SmallHead(dim, len(parts()), stride=2, width=32, gain=30.0, fine=2, deep=2, broad=96)
        if task == "albedo":
            return SmallHead(dim, 6, stride=2, width=24, shading=True)
        return SmallHead(dim, 3, stride=2, width=24, scalar=task == "pointmap")
    spec = head_spec(task, size, style=style, to_2k=to_2k)
    if task == "pose":
        return DeconvHead(dim, spec.ups, spec.convs, len(keypoints()), "pose")
    if task == "segmentation":
        return DeconvHead(dim, spec.ups, spec.convs, len(parts()), "seg")
    if task == "pointmap":
        return PointmapHead(dim, spec.ups, spec.convs, spec.scale_convs, spec.scale_hidden, size in OWN_SIZES)
    return ShuffleHead(dim, spec.ups, spec.convs, task)


def build_task(
    task: TaskName,
    size: str,
    *,
    rope_dtype: str = "float32",
    window_tokenizer: bool = False,
    head: Source = "release",
    scale: Source = "release",
    backbone: ForeignBackbone | None = None,
) -> TaskModel:
    """A freshly initialised task model on the default device; build under `torch.device("meta")` to allocate nothing.

    backbone: somebody else's in place of ours, with the head of `size`. Initialisation draws from torch's global
    generator.
    """
    dim = None if backbone is None else backbone.dim
    decoder = build_head(task, size, style=head, to_2k=window_tokenizer, dim=dim)
    body = backbone or build_backbone(size, rope_dtype=rope_dtype, window_tokenizer=window_tokenizer)
    assert all(p.is_meta == (torch.get_default_device().type == "meta") for p in decoder.parameters())
    return TaskModel(task, size, body, decoder, scale)
