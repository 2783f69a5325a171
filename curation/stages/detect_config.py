"""The configuration of `detect`: the detector, what it stores, what it measures twice, the weights it needs."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import model_validator

from curation.config import Config, execution, recipe
from curation.models.catalogue import ModelSpec, known

_FULL_WEIGHTS = {"ultralytics": "yolo11n", "torchvision": "torchvision_fasterrcnn"}


class DetectConfig(Config):
    """Which detector runs and how its boxes are measured. Thresholds belong to `filter`."""

    detector: Literal["builtin", "yolox_nano", "picodet_s", "ultralytics", "torchvision"] = recipe(
        "builtin", "person detector; ultralytics is AGPL-3.0"
    )
    weights: str | None = recipe(
        None, "catalogue name of the ultralytics or torchvision weights; null takes yolo11n or torchvision_fasterrcnn"
    )
    score_floor: float = recipe(0.3, "boxes under this detector score are not stored, 0..1", gt=0, lt=1)
    nms_iou: float = recipe(
        0.6, "of two boxes with a larger intersection over union the better stays, 0..1", gt=0, le=1
    )
    input_px: int = recipe(
        640,
        "input long side in pixels of ultralytics and torchvision; the others have their own",
        ge=64,
        le=4096,
    )
    refine_px: tuple[int, int] = recipe(
        (256, 512),
        "boxes with a short side in this band, in original pixels, are measured again at full resolution",
    )
    refine_margin: float = recipe(0.25, "share of its sides with which a box is cut out to be refined", ge=0, le=2)
    weights_path: str | None = execution(
        None, "a weight file to use in place of the catalogue's; its digest, not its place, enters the version"
    )
    threads: int = execution(1, "threads of one ONNX network", ge=1)
    device: str = execution("cpu", "torch device of ultralytics and torchvision")
    workers: int = execution(2, "processes that detect side by side; 0 works in the calling process", ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> DetectConfig:
        low, high = self.refine_px
        if not 0 <= low <= high:
            raise ValueError(f"detect.refine_px={low},{high} is no band; give 0 <= low <= high, 0,0 refines nothing")
        if self.detector == "builtin" and self.weights_path is not None:
            raise ValueError(
                "detect.weights_path is set, but detect.detector=builtin has no weights; unset one of them"
            )
        if self.weights is not None and self.detector not in _FULL_WEIGHTS:
            raise ValueError(
                f"detect.weights={self.weights} has no meaning with detect.detector={self.detector}; unset it"
            )
        return self

    @property
    def model(self) -> str:
        """The name under which the detector is counted, and its weights are given to the stage."""
        if self.detector in _FULL_WEIGHTS:
            return self.weights or _FULL_WEIGHTS[self.detector]
        return self.detector

    def fingerprint(self) -> str:
        """Eight hex digits of the settings that change a box, for the score cache's key."""
        settings = self.model_dump(mode="json", include={"score_floor", "nms_iou", "refine_px", "refine_margin"})
        if self.detector in _FULL_WEIGHTS:
            settings["input_px"] = self.input_px
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def profile_config(profile: str) -> DetectConfig:
    """The detector of a profile: builtin, small or full. Raises ValueError for another name."""
    detectors: dict[str, DetectConfig] = {
        "builtin": DetectConfig(),
        "small": DetectConfig(detector="yolox_nano"),
        "full": DetectConfig(detector="ultralytics"),
    }
    if profile not in detectors:
        raise ValueError(f"there is no profile {profile!r}; choose builtin, small or full")
    return detectors[profile]


def required_weights(config: DetectConfig) -> list[ModelSpec]:
    """The weight file that the chosen detector needs; none for builtin."""
    if config.detector == "builtin":
        return []
    spec = known(config.model)
    return [spec.at(config.weights_path) if config.weights_path else spec]
