"""Persons by torchvision's Faster R-CNN with a MobileNetV3 backbone (BSD-3-Clause), from a local state dict.

COCO's 91 labels, of which 1 is person and 0 the background. Input float RGB 0..1; the network resizes by itself.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from curation.models.boxes import Detections, Pixels, suppress
from curation.models.person_torch_weights import refuse_broken

_PERSON = 1
_CLASSES = 91


class TorchvisionDetector:
    """`detect(images)` with fasterrcnn_mobilenet_v3_large_fpn. side: long side of the network's input in px.

    Raises ValueError when the file is not a state dict of that network, or holds NaN.
    """

    revision = "torchvision-1"

    def __init__(
        self, path: str | Path, *, score_floor: float, nms_iou: float, side: int = 640, device: str = "cpu"
    ) -> None:
        self.path = Path(path)
        self.score_floor = score_floor
        self.nms_iou = nms_iou
        self.side = side
        self.device = device
        self._model: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def detect(self, images: list[Pixels]) -> list[Detections]:
        """Persons of each picture, in its own pixels. One picture a call: no padding depends on another picture."""
        return [self._detect(pixels) for pixels in images]

    def _detect(self, pixels: Pixels) -> Detections:
        import torch

        if self._model is None:
            self._model = self._load()
        x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(self.device).float() / 255
        with torch.inference_mode():
            out = self._model([x])[0]
        person = out["labels"] == _PERSON
        boxes = out["boxes"][person].cpu().numpy().astype(np.float32).reshape(-1, 4)
        scores = out["scores"][person].cpu().numpy().astype(np.float32)
        height, width = pixels.shape[:2]
        return suppress(Detections(boxes, scores), self.nms_iou).clipped(width, height)

    def _load(self) -> Any:
        import torch
        from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

        model = fasterrcnn_mobilenet_v3_large_fpn(
            weights=None,
            weights_backbone=None,
            num_classes=_CLASSES,
            min_size=self.side,
            max_size=self.side,
            box_score_thresh=self.score_floor,
            box_nms_thresh=self.nms_iou,
        )
        try:
            model.load_state_dict(torch.load(self.path, map_location="cpu", weights_only=True))
        except (RuntimeError, OSError, pickle.UnpicklingError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path} is not a state dict of this network: {error}") from error
        refuse_broken(model, self.path)
        return model.eval().to(self.device)
