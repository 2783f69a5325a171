"""Persons by any detection network that the ultralytics library can load (YOLO11, YOLO26, RT-DETR, ...).

The library and its weights are AGPL-3.0, or sold under the Ultralytics Enterprise licence; it is imported only when
this adapter is chosen. Its telemetry, its downloads and its installation of packages are switched off before it loads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from curation.models.boxes import Detections, Pixels, suppress
from curation.models.person_torch_weights import refuse_broken
from curation.models.weights import cache_directory

_PERSON = 0  # COCO class index


class UltralyticsDetector:
    """`detect(images)` with a local .pt file. device: "cpu", "cuda:0", ...; side: letterbox long side in px.

    Raises ValueError when the file cannot be loaded, holds NaN, or its class 0 is not `person`.
    """

    revision = "ultralytics-1"

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
        """Persons of each picture, in its own pixels. One picture a call: its letterbox depends on no other picture."""
        return [self._detect(pixels) for pixels in images]

    def _detect(self, pixels: Pixels) -> Detections:
        if self._model is None:
            self._model = _load(self.path)
        bgr = np.ascontiguousarray(pixels[:, :, ::-1])
        options = {"imgsz": self.side, "conf": self.score_floor, "iou": self.nms_iou, "classes": [_PERSON]}
        result = self._model.predict(bgr, **options, device=self.device, verbose=False, save=False)[0]
        boxes = result.boxes.xyxy.cpu().numpy().astype(np.float32).reshape(-1, 4)
        scores = result.boxes.conf.cpu().numpy().astype(np.float32)
        height, width = pixels.shape[:2]
        # NMS-free families (YOLO26, RT-DETR) suppress nothing, the others before boxes are cut at the edges.
        return suppress(Detections(boxes, scores), self.nms_iou).clipped(width, height)


def _load(path: Path) -> Any:
    """The network of a local file, with everything off by which the library would leave this machine."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    # Its settings file, changed below, is not the one that the user's own ultralytics reads.
    os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_directory() / "ultralytics"))
    if not path.is_file():
        raise ValueError(f"{path} is not a file; ultralytics weights are never downloaded, name a local .pt file")
    try:
        from ultralytics import YOLO, settings
    except ImportError as error:
        raise ValueError("the ultralytics detector needs `pip install ultralytics` (AGPL-3.0)") from error
    settings.update({"sync": False})
    try:
        model = YOLO(str(path.resolve()), task="detect")
    except Exception as error:  # whatever unpickling a foreign file brings up
        raise ValueError(f"{path} could not be loaded by ultralytics: {error}") from error
    if model.names.get(_PERSON) != "person":
        raise ValueError(f"{path}: class {_PERSON} is {model.names.get(_PERSON)!r}, a person detector has 'person'")
    refuse_broken(model.model, path)
    return model
