"""detect: images to person boxes in upright original pixels.

A picture is decoded no larger than its detector looks at it. A box near the size gate is then measured again in a
crop at full resolution: at 416 px for a whole picture, a 384 px person is uncertain by more than the gate's band.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pyarrow as pa

from curation.images.decode import Image, decode
from curation.images.reasons import Reject
from curation.models.boxes import Boxes, Detections, Pixels, best_first, crop_around, iou, short_sides
from curation.models.cache import ModelCache
from curation.models.onnx_session import BrokenOutput
from curation.models.person_detector import PersonDetector, build_person_detector
from curation.models.weights import model_key
from curation.stages.detect_config import DetectConfig as DetectConfig
from curation.stages.detect_config import profile_config as profile_config
from curation.stages.detect_config import required_weights as required_weights
from curation.stages.detect_report import fragment as fragment  # the step's report, found by the stage's module
from curation.stages.result import StageResult
from curation.tables import DETECTIONS, from_rows, require_columns

_BOX_DECIMALS, _SCORE_DECIMALS = 2, 4  # px, score: far under any meaning, so that a remembered box equals a fresh one
_REFINE_GAIN = 1.25  # a crop that is seen no larger than this, beside the whole picture, would tell nothing new
_SAME_PERSON = 0.5  # IoU of the second measurement with the first


class DetectPartition:
    """Detects persons in the images of one partition; build it once per worker, networks open at their first use.

    weights: file by model name, for every model in `required_weights(config)`. Raises ValueError for a missing one.
    """

    def __init__(self, config: DetectConfig, weights: dict[str, str]) -> None:
        missing = [spec.name for spec in required_weights(config) if spec.name not in weights]
        if missing:
            raise ValueError(f"detect needs the weights {missing}; given: {sorted(weights) or 'none'}")
        self.config = config
        path = weights.get(config.model)
        self.detector: PersonDetector = build_person_detector(
            config.detector,
            path,
            score_floor=config.score_floor,
            nms_iou=config.nms_iou,
            side=config.input_px,
            threads=config.threads,
            device=config.device,
        )
        revision = f"{self.detector.revision}-{config.fingerprint()}"
        self.key = model_key(path, revision) if path is not None else f"{config.model}-person/{revision}"

    def __call__(self, images: pa.Table, cache: ModelCache | None = None) -> StageResult:
        """Table `data`: one row of DETECTIONS per row of `images`, in its order.

        Raises ValueError when a column is missing, a picture cannot be decoded, or the network gives NaN on one.
        """
        require_columns(images, ["image_id", "width", "height", "bytes"], "detect")
        began = time.perf_counter()
        ids: list[str] = images["image_id"].to_pylist()
        rows = dict(cache.get(self.key, ids)) if cache is not None else {}
        fresh = self._measured(images, [row for row, image_id in enumerate(ids) if image_id not in rows])
        if cache is not None:
            cache.put(self.key, fresh)
        rows.update(fresh)
        table = from_rows(({"image_id": i, **_columns(rows[i])} for i in ids), DETECTIONS)
        metrics = {
            "rows_in": len(ids),
            "kept": len(ids),
            "dropped": {},
            "persons": sum(len(row["scores"]) for row in rows.values()),
            "refined": sum(sum(row["refined"]) for row in rows.values()),
            "model_calls": {self.config.model: len(fresh)},
            "detect_seconds": round(time.perf_counter() - began, 3),
        }
        return StageResult({"data": table}, metrics)

    def _measured(self, images: pa.Table, rows: list[int]) -> dict[str, dict[str, Any]]:
        columns = [images[name] for name in ("image_id", "width", "height", "bytes")]
        fresh = {}
        for row in rows:
            image_id, width, height, data = (column[row].as_py() for column in columns)
            try:
                fresh[image_id] = self._measure(image_id, width, height, data)
            except BrokenOutput as error:
                raise ValueError(f"detect: image {image_id}: {error}") from error
        return fresh

    def _measure(self, image_id: str, width: int, height: int, data: bytes) -> dict[str, Any]:
        """One picture: the whole first, then crops around the boxes in the band."""
        least = math.ceil(min(width, height) * min(1.0, self.detector.side / max(width, height)))
        image = _decoded(image_id, data, min_side=max(1, least))
        found = self.detector.detect([image.pixels])[0].moved(1 / image.scale, 0, 0).clipped(image.width, image.height)
        due = self._due(found.boxes, image)
        if due.any():
            pixels = image.pixels if image.scale == 1 else _decoded(image_id, data, min_side=None).pixels
            found, refined = self._refined(found, due, pixels)
        else:
            refined = due
        return _rounded(found, refined)

    def _due(self, boxes: Boxes, image: Image) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which boxes [N] lie in the band and would be seen larger in a crop than they were in the whole picture."""
        low, high = self.config.refine_px
        short = short_sides(boxes)
        long = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) * (1 + 2 * self.config.refine_margin)
        gain = max(image.width, image.height) / np.maximum(long, 1)
        return np.asarray((short >= low) & (short <= high) & (gain >= _REFINE_GAIN))

    def _refined(
        self, found: Detections, due: np.ndarray[Any, np.dtype[np.bool_]], pixels: Pixels
    ) -> tuple[Detections, np.ndarray[Any, np.dtype[np.bool_]]]:
        """The boxes that are due, each replaced by the box of its crop that overlaps it most; scores stay."""
        boxes, refined = found.boxes.copy(), np.zeros_like(due)
        crops = {int(i): crop_around(pixels, found.boxes[i], self.config.refine_margin) for i in np.flatnonzero(due)}
        for (index, (_, x, y)), again in zip(
            crops.items(), self.detector.detect([crop for crop, _, _ in crops.values()]), strict=True
        ):
            candidates = again.moved(1, x, y).boxes
            overlap = iou(boxes[index][None], candidates)[0]
            if len(overlap) and overlap.max() >= _SAME_PERSON:
                boxes[index], refined[index] = candidates[overlap.argmax()], True
        return Detections(boxes, found.scores), refined


def _decoded(image_id: str, data: bytes, *, min_side: int | None) -> Image:
    image = decode(data, min_side=min_side)
    if isinstance(image, Reject):
        raise ValueError(
            f"detect: image {image_id} cannot be decoded ({image.reason}: {image.detail}), though ingest took it; "
            "the images artifact may be damaged: verify it, or run ingest again"
        )
    return image


def _rounded(found: Detections, refined: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """What is remembered of one picture: plain numbers, best score first; equal scores by position."""
    boxes = np.round(found.boxes.astype(np.float64), _BOX_DECIMALS)
    scores = np.round(found.scores.astype(np.float64), _SCORE_DECIMALS)
    order = best_first(scores.astype(np.float32))
    return {"boxes": boxes[order].tolist(), "scores": scores[order].tolist(), "refined": refined[order].tolist()}


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    return {"boxes": row["boxes"], "box_scores": row["scores"], "refined": row["refined"]}
