"""Person detectors: decoding of raw network outputs, the classical detector on a real photograph, hostile shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_onnx import write_constant

from curation.models.boxes import iou
from curation.models.person_builtin import BuiltinDetector
from curation.models.person_detector import build_person_detector
from curation.models.person_picodet import PicodetDetector, decode_picodet
from curation.models.person_yolox import YoloxDetector, anchor_points, decode_yolox

BOX = np.array([100.0, 60.0, 180.0, 300.0])  # in network pixels


def yolox_raw(side: int, boxes: list[tuple[np.ndarray, float, int]]) -> np.ndarray:
    """The raw output that a network would give for these (box, score, class): the decoder's formula turned round."""
    raw = np.zeros((sum((side // s) ** 2 for s in (8, 16, 32)), 85), np.float32)
    for box, score, label in boxes:
        stride, cells, before = 16, side // 16, (side // 8) ** 2
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        column, row = (centre // stride).astype(int)
        place = before + row * cells + column
        raw[place, :2] = centre / stride - [column, row]
        raw[place, 2:4] = np.log(size / stride)
        raw[place, 4], raw[place, 5 + label] = score, 1.0
    return raw


def picodet_raw(side: int, box: np.ndarray, score: float, label: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Class scores and side distributions with one box at stride 64, each side spread over two neighbouring bins."""
    cells = [-(-side // s) for s in (8, 16, 32, 64)]
    classes = [np.zeros((c * c, 80), np.float32) for c in cells]
    distances = [np.full((c * c, 32), -30.0, np.float32) for c in cells]
    column, row = ((box[:2] + box[2:]) / 2 // 64).astype(int)
    centre = (np.array([column, row]) + 0.5) * 64
    place = row * cells[3] + column
    classes[3][place, label] = score
    for index, value in enumerate(np.concatenate([centre - box[:2], box[2:] - centre]) / 64):
        low, part = int(value), value % 1
        distances[3][place, index * 8 + low] = np.log(1 - part + 1e-12)
        distances[3][place, index * 8 + low + 1] = np.log(part + 1e-12)
    return classes, distances


def test_yolox_anchor_points_cover_the_input():
    points = anchor_points(416)
    assert points.shape == (3549, 3)
    assert points[1].tolist() == [1, 0, 8] and points[52].tolist() == [0, 1, 8] and points[-1].tolist() == [12, 12, 32]


def test_yolox_decoding_gives_the_box_back():
    car = np.array([10.0, 10.0, 60.0, 40.0])
    found = decode_yolox(yolox_raw(416, [(BOX, 0.8, 0), (car, 0.9, 2)]), 416, 0.3)
    np.testing.assert_allclose(found.boxes, [BOX], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.8], atol=1e-6)
    assert len(decode_yolox(yolox_raw(416, [(BOX, 0.29, 0)]), 416, 0.3)) == 0
    with pytest.raises(ValueError, match="anchor points"):
        decode_yolox(np.zeros((100, 85), np.float32), 416, 0.3)


def test_picodet_decoding_gives_the_box_back():
    found = decode_picodet(*picodet_raw(416, BOX, 0.7), 416, 0.3)
    np.testing.assert_allclose(found.boxes, [BOX], atol=0.05)
    np.testing.assert_allclose(found.scores, [0.7], atol=1e-6)
    assert len(decode_picodet(*picodet_raw(416, BOX, 0.7, label=16), 416, 0.3)) == 0
    with pytest.raises(ValueError, match="stride 8"):
        decode_picodet(*picodet_raw(416, BOX, 0.7), 320, 0.3)


@pytest.mark.parametrize("width, height", [(832, 1664), (1664, 832), (208, 208)])
def test_onnx_detectors_answer_in_picture_pixels(tmp_path: Path, width: int, height: int):
    raw = yolox_raw(416, [(BOX, 0.8, 0)])[None]
    classes, distances = picodet_raw(416, BOX, 0.8)
    files = {
        YoloxDetector: write_constant(tmp_path / "yolox.onnx", [1, 3, 416, 416], [raw]),
        PicodetDetector: write_constant(
            tmp_path / "pico.onnx", [1, 3, 416, 416], [o[None] for o in (*classes, *distances)]
        ),
    }
    scale = max(width, height) / 416
    wanted = np.clip(BOX * scale, 0, [width, height, width, height])
    for kind, path in files.items():
        (found,) = kind(path, score_floor=0.3, nms_iou=0.6).detect([np.zeros((height, width, 3), np.uint8)])
        np.testing.assert_allclose(found.boxes, [wanted], atol=0.3)


def test_builtin_finds_the_astronaut():
    from skimage.data import astronaut

    (found,) = BuiltinDetector(score_floor=0.5, nms_iou=0.6).detect([astronaut()])
    assert len(found) == 1
    assert found.scores[0] > 0.6
    # Her head and torso, read off the picture by eye: from her hair to the lower edge, from sleeve to sleeve.
    assert iou(found.boxes, np.array([[90, 0, 400, 512]], np.float32))[0, 0] > 0.6


def test_builtin_finds_no_person_in_a_texture():
    from skimage.data import brick, gravel

    pictures = [np.repeat(p[..., None], 3, 2) for p in (brick(), gravel())]
    assert [len(d) for d in BuiltinDetector(score_floor=0.5, nms_iou=0.6).detect(pictures)] == [0, 0]


def test_builtin_sees_the_same_person_twice_as_large():
    from skimage.data import astronaut

    detector = BuiltinDetector(score_floor=0.5, nms_iou=0.6)
    large = np.repeat(np.repeat(astronaut(), 2, 0), 2, 1)
    once, twice = detector.detect([astronaut(), large])
    assert iou(once.boxes[:1] * 2, twice.boxes[:1])[0, 0] > 0.85


@pytest.mark.parametrize("shape", [(1, 1), (10, 2000), (2000, 10), (63, 127), (480, 3), (128, 64)])
def test_no_shape_ends_the_process(shape: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (found,) = BuiltinDetector(score_floor=0.3, nms_iou=0.6).detect([noise])
    assert (found.boxes >= 0).all() and (found.boxes <= [shape[1], shape[0]] * 2).all()


def test_unknown_detector_and_missing_weights_are_named():
    with pytest.raises(ValueError, match="yolox_nano"):
        build_person_detector("yolo", "x.onnx", score_floor=0.3, nms_iou=0.6)
    with pytest.raises(ValueError, match="picodet_s"):
        build_person_detector("picodet_s", None, score_floor=0.3, nms_iou=0.6)
