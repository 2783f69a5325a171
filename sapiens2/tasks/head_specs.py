"""The five tasks and the widths of their heads: what a configuration checks, without loading PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

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
