"""What a person detector is, and the ones there are."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from curation.models.boxes import Detections, Pixels

BUILTIN = "builtin"
# Networks whose catalogue name is the detector's name; the other two take any file of their family.
ONNX = ("yolox_nano", "picodet_s")
TORCH = ("ultralytics", "torchvision")


class PersonDetector(Protocol):
    """Finds persons in RGB pictures [H, W, 3].

    revision: changes whenever the same weights would give other boxes. side: the long side in px at which it looks at
    a picture, so that no larger one need be decoded.
    """

    revision: str
    side: int

    def detect(self, images: list[Pixels]) -> list[Detections]:
        """Per picture its persons, in its pixels, best first. A picture's result depends on no other picture."""


def build_person_detector(
    name: str,
    path: str | Path | None,
    *,
    score_floor: float,
    nms_iou: float,
    side: int = 640,
    threads: int = 1,
    device: str = "cpu",
) -> PersonDetector:
    """The detector `name` with the weights at `path` (none for `builtin`).

    side: input of ultralytics and torchvision networks, px; threads: of the ONNX ones; device: of the torch ones.
    Raises ValueError for an unknown name or a missing path.
    """
    if name == BUILTIN:
        from curation.models.person_builtin import BuiltinDetector

        return BuiltinDetector(score_floor=score_floor, nms_iou=nms_iou)
    if path is None:
        raise ValueError(f"the person detector {name!r} needs a weight file")
    if name == "yolox_nano":
        from curation.models.person_yolox import YoloxDetector

        return YoloxDetector(path, score_floor=score_floor, nms_iou=nms_iou, threads=threads)
    if name == "picodet_s":
        from curation.models.person_picodet import PicodetDetector

        return PicodetDetector(path, score_floor=score_floor, nms_iou=nms_iou, threads=threads)
    if name == "ultralytics":
        from curation.models.person_ultralytics import UltralyticsDetector

        return UltralyticsDetector(path, score_floor=score_floor, nms_iou=nms_iou, side=side, device=device)
    if name == "torchvision":
        from curation.models.person_torchvision import TorchvisionDetector

        return TorchvisionDetector(path, score_floor=score_floor, nms_iou=nms_iou, side=side, device=device)
    raise ValueError(f"there is no person detector {name!r}; choose one of {', '.join((BUILTIN, *ONNX, *TORCH))}")
