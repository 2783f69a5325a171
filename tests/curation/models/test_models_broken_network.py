"""A network that answers NaN stops its stage, which names the pictures; nothing is taken for `nothing found`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as pillow
from tiny_onnx import write_constant, write_log

from curation.models.onnx_session import BrokenOutput, OnnxSession
from curation.models.person_torch_weights import refuse_broken
from curation.models.scorer import View
from curation.stages.detect import DetectPartition
from curation.stages.detect import profile_config as detect_config
from curation.stages.score import ScorePartition
from curation.stages.score import profile_config as score_config
from curation.tables import DETECTIONS, IMAGES, from_rows, image_id


def pictures(*tones: int) -> tuple[pa.Table, pa.Table]:
    """images and detections of evenly grey pictures, a person in each."""
    images, detections = [], []
    for tone in tones:
        buffer = io.BytesIO()
        pillow.fromarray(np.full((64, 64, 3), tone, np.uint8)).save(buffer, "PNG")
        data = buffer.getvalue()
        images.append({"image_id": image_id(data), "bytes": data, "metadata": "{}", "width": 64, "height": 64})
        detections.append({"image_id": image_id(data), "boxes": [[0, 0, 60, 60]], "box_scores": [0.9]})
    return from_rows(images, IMAGES), from_rows(detections, DETECTIONS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_detector_that_gives_none_of_the_numbers_is_no_detector_that_finds_nobody(tmp_path: Path, value: float):
    anchors = sum((416 // stride) ** 2 for stride in (8, 16, 32))
    raw = np.zeros((1, anchors, 85), np.float32)
    images, _ = pictures(90)
    for bad in (0.0, value):
        raw[0, 7, 4] = bad
        path = write_constant(tmp_path / f"{bad}.onnx", [1, 3, 416, 416], [raw])
        stage = DetectPartition(detect_config("small"), {"yolox_nano": str(path)})
        if bad == 0:
            assert stage(images).tables["data"]["boxes"].to_pylist() == [[]]
            continue
        with pytest.raises(ValueError, match=rf"image {images['image_id'][0]}.*NaN or infinity.*check its weights"):
            stage(images)


class LogOfBrightness:
    """A scorer with a network that breaks on black pictures."""

    name, key, columns, gated, uses_boxes = "log", "log/1", ("aesthetic",), False, False

    def __init__(self, path: Path) -> None:
        self.session = OnnxSession(path)

    def score(self, views: Sequence[View]) -> list[dict[str, Any]]:
        x = np.array([[view.pixels.mean() - 1] for view in views], np.float32)
        return [{"aesthetic": float(value > 2)} for value in self.session.run_fixed(x, 4)[0][:, 0]]  # NaN > 2 is False


def test_the_pictures_of_a_batch_are_named_on_which_a_scorer_breaks(tmp_path: Path):
    stage = ScorePartition(score_config("builtin"), {})
    stage._scorers = [LogOfBrightness(write_log(tmp_path / "log.onnx"))]
    images, detections = pictures(50, 0, 200)
    good, black, bright = images["image_id"].to_pylist()
    with pytest.raises(ValueError, match=rf"score: log on image {black}: .*NaN or infinity") as told:
        stage(images, detections)
    assert good not in str(told.value) and bright not in str(told.value)
    whole = images.filter(pa.array([True, False, True]))
    assert stage(whole, detections).tables["data"]["aesthetic"].to_pylist() == [1.0, 1.0]


def test_rows_that_only_pad_a_batch_may_break(tmp_path: Path):
    session = OnnxSession(write_log(tmp_path / "log.onnx"))
    (y,) = session.run_fixed(np.ones((3, 1), np.float32), 2)  # padded with a zero, whose log is minus infinity
    assert y.ravel().tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(BrokenOutput):
        session.run_fixed(np.array([[1], [0]], np.float32), 2)


def test_torch_weights_that_are_no_numbers_are_refused(tmp_path: Path):
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    refuse_broken(network, tmp_path / "net.pt")
    with torch.no_grad():
        network[1].running_var[2] = float("nan")
    with pytest.raises(ValueError, match=r"net\.pt: 1\.running_var holds NaN"):
        refuse_broken(network, tmp_path / "net.pt")
