"""The five tasks and the widths of their heads: what a configuration checks, without loading PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

TaskName = Literal["pose", "segmentation", "normal", "pointmap", "albedo"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
Source = Literal["release", "paper"]
"""Which of two published descriptions is followed where they differ."""
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
SMALL_HEADS = ("nano", "tiny")
"""Sizes with a decoder of another kind."""
PAPER_POSE_CONVS = (768, 768, 512)
"""Widths after the deconvolutions as the paper prints them (appendix A.2); no released file has them."""
NARROWEST = 32


def head_spec(task: TaskName, size: str, *, style: Source = "release", to_2k: bool = False) -> HeadSpec:
    """The widths of a head; raises ValueError for an unknown task or size.

    style "paper" changes pose alone; to_2k adds a fifth doubling to the four of the dense heads.
    """
    if task not in SPECS:
        raise ValueError(f"there is no task called {task!r}; use one of {', '.join(TASKS)}")
    if size not in SPECS[task]:
        raise ValueError(f"no {task} head is defined for size {size!r}; use one of {', '.join(SPECS[task])}")
    spec = SPECS[task][size]
    if task == "pose":
        return replace(spec, convs=PAPER_POSE_CONVS) if style == "paper" else spec
    return replace(spec, ups=(*spec.ups, max(spec.ups[-1] // 2, NARROWEST))) if to_2k else spec
