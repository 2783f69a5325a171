"""Faces and head pose: decoding and geometry against values worked out by hand, cascades on a photograph."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
from scipy.spatial.transform import Rotation

from curation.models.faces import CascadeFaces, Face, FaceScorer, decode_yunet, main_face, suppress
from curation.models.head_pose import (
    RotationHeadPose,
    angles_of_matrix,
    fsanet_input,
    margin_crop,
    matrix_of_six,
    rotation_input,
)
from curation.models.scorer import View

DATA = Path(skimage.__file__).parent / "data"


def astronaut() -> np.ndarray:
    return cv2.imread(str(DATA / "astronaut.png"))[..., ::-1].copy()


def test_yunet_cells_become_boxes() -> None:
    width, cells = 64, {8: 64, 16: 16, 32: 4}
    outputs = {}
    for stride, n in cells.items():
        outputs |= {
            f"{k}_{stride}": np.zeros((1, n, c), np.float32)
            for k, c in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        }
    cell = 2 * 4 + 3  # stride 16: row 2, column 3
    outputs["cls_16"][0, cell], outputs["obj_16"][0, cell] = 0.9, 0.4
    outputs["bbox_16"][0, cell] = (0.5, -0.25, np.log(2), np.log(3))
    outputs["kps_16"][0, cell, :2] = (1.0, -1.0)
    (face,) = decode_yunet(outputs, width, 0.5)
    assert face.box == pytest.approx((56 - 16, 28 - 24, 56 + 16, 28 + 24))
    assert face.score == pytest.approx(0.6)
    assert face.landmarks[0] == pytest.approx((64, 16)) and face.landmarks[1] == pytest.approx((48, 32))
    assert decode_yunet(outputs, width, 0.61) == []


def test_suppression_keeps_the_best_of_each_heap() -> None:
    faces = [Face((0, 0, 10, 10), 0.7), Face((1, 0, 11, 10), 0.9), Face((30, 0, 40, 10), 0.5)]
    assert [face.score for face in suppress(faces, 0.45)] == [0.9, 0.5]
    assert len(suppress(faces, 0.9)) == 3


def test_the_main_face_is_the_largest_inside_the_person() -> None:
    near, big = Face((10, 10, 20, 20), 0.9), Face((60, 60, 90, 90), 0.6)
    assert main_face([near, big], (0, 0, 50, 50)) is near
    assert main_face([near, big], None) is big
    assert main_face([big], (0, 0, 50, 50)) is None


def test_cascades_find_the_astronaut_in_original_pixels() -> None:
    pixels = astronaut()
    small = cv2.resize(pixels, (384, 384), interpolation=cv2.INTER_AREA)
    row = FaceScorer(CascadeFaces()).score([View("a", small, scale=0.75, boxes=((60, 0, 330, 384),))])[0]
    x0, y0, x1, y1 = row["face_box"]
    assert x0 < 205 < 245 < x1 and y0 < 108 < 140 < y1  # eyes and mouth in the 512 px original
    assert (x1 - x0) < 150
    assert row["yaw_deg"] == 0.0 and row["pitch_deg"] is None and row["roll_deg"] is None


def test_no_face_gives_nulls_and_no_count() -> None:
    row = FaceScorer(CascadeFaces()).score([View("a", np.full((200, 200, 3), 90, np.uint8))])[0]
    assert row == {"face_count": 0, "face_box": None, "yaw_deg": None, "pitch_deg": None, "roll_deg": None}


def test_crop_geometry() -> None:
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[..., 0] = np.arange(300)[None] % 256
    assert margin_crop(pixels, (100, 80, 140, 130), 0.6).shape == (110, 88, 3)  # 40 + 2 x 24, 50 + 2 x 30
    assert margin_crop(pixels, (-20, -20, 30, 30), 0.6).shape == (60, 60, 3)  # cut at the edge: 30 + 30
    assert margin_crop(pixels, (299, 199, 300, 200), 0.0).shape == (1, 1, 3)


def test_fsanet_input_is_bgr_stretched_to_the_full_range() -> None:
    pixels = np.full((100, 100, 3), 100, np.uint8)
    pixels[:, 50:] = (200, 100, 50)
    x = fsanet_input(pixels, (30, 30, 70, 70))
    assert x.shape == (1, 3, 64, 64) and x.dtype == np.float32
    assert x.min() == pytest.approx(-127.5 / 128) and x.max() == pytest.approx(127.5 / 128)
    assert x[0, 2, 32, 60] > x[0, 0, 32, 60]  # red is the last channel


def convention(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """A rotation made by scipy: 6DRepNet's Rz(roll) Ry(yaw) Rx(pitch), its yaw mirrored to ours."""
    return Rotation.from_euler("xyz", [pitch, -yaw, roll], degrees=True).as_matrix()


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, -20, 10), (-75, 35, -40), (89, 5, 5), (10, -60, 170)])
def test_rotation_to_angles_round_trip(angles: tuple[float, float, float]) -> None:
    assert angles_of_matrix(convention(*angles)) == pytest.approx(angles, abs=1e-6)


def test_at_ninety_degrees_the_same_rotation_comes_back() -> None:
    matrix = convention(90, 20, 30)
    np.testing.assert_allclose(convention(*angles_of_matrix(matrix)), matrix, atol=1e-6)


def test_six_numbers_become_the_rotation_whose_columns_they_are() -> None:
    matrix = convention(25, -10, 40)
    rng = np.random.default_rng(0)
    six = np.concatenate([matrix[:, 0] * 2.5, matrix[:, 1] * 0.7 + matrix[:, 0] * 0.3])
    np.testing.assert_allclose(matrix_of_six(six), matrix, atol=1e-9)
    any_six = matrix_of_six(rng.normal(size=6))
    np.testing.assert_allclose(any_six @ any_six.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(any_six) == pytest.approx(1.0)


class SmallRotationNet(torch.nn.Module):
    """Random weights, the interface of 6DRepNet: an image to six numbers, or to a matrix."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3 * 4 * 4, numbers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))


def test_a_torchscript_head_pose_file_is_loaded_and_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = SmallRotationNet(6).eval()
    path = tmp_path / "pose.torchscript.pt"
    torch.jit.script(net).save(str(path))
    pixels, box = astronaut(), (178.0, 69.0, 270.0, 161.0)
    with torch.no_grad():
        six = net(torch.from_numpy(rotation_input(pixels, box)))[0].double().numpy()
    first = six[:3] / np.linalg.norm(six[:3])
    second = six[3:] - first * (first @ six[3:])
    second /= np.linalg.norm(second)
    expected = Rotation.from_matrix(np.stack([first, second, np.cross(first, second)], axis=1)).as_euler(
        "xyz", degrees=True
    )
    yaw, pitch, roll = RotationHeadPose(path).estimate(pixels, box)
    assert (pitch, -yaw, roll) == pytest.approx(tuple(expected), abs=1e-4)


def test_a_head_pose_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pose.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="TorchScript"):
        RotationHeadPose(path).estimate(astronaut(), (0, 0, 50, 50))
    wrong = tmp_path / "seven.pt"
    torch.jit.script(SmallRotationNet(7)).save(str(wrong))
    with pytest.raises(ValueError, match="7 numbers"):
        RotationHeadPose(wrong).estimate(astronaut(), (0, 0, 50, 50))
