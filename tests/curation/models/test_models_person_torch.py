"""The ultralytics and torchvision adapters on small networks with random weights, saved and loaded as files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curation.models.boxes import Detections, suppress
from curation.models.person_torchvision import TorchvisionDetector
from curation.models.person_ultralytics import UltralyticsDetector

PICTURE = np.random.default_rng(3).integers(0, 256, (120, 200, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def yolo_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLO11n built from the library's yaml, class scores raised so that random weights report boxes."""
    import torch

    pytest.importorskip("ultralytics", reason="needs the ultralytics extra")
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO("yolo11n.yaml", task="detect", verbose=False)
    names = {i: f"class {i}" for i in range(80)} | {0: "person"}
    model.model.names = names
    with torch.no_grad():
        for branch in model.model.model[-1].cv3:
            branch[-1].bias.fill_(-3.0)
            branch[-1].bias[0] = 2.0
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    model.save(str(path))
    return path


def check(found, floor: float) -> None:
    assert len(found) > 0
    assert (np.diff(found.scores) <= 0).all() and (found.scores >= floor).all()
    assert (found.boxes[:, :2] >= 0).all() and (found.boxes[:, 2:] <= [200, 120]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_ultralytics_file_loads_and_answers_in_picture_pixels(yolo_file: Path):
    detector = UltralyticsDetector(yolo_file, score_floor=0.3, nms_iou=0.6, side=128)
    once, again = detector.detect([PICTURE, PICTURE])
    check(once, 0.3)
    np.testing.assert_array_equal(once.boxes, again.boxes)
    # Another picture beside it changes nothing.
    other = np.zeros((300, 90, 3), np.uint8)
    np.testing.assert_array_equal(detector.detect([other, PICTURE])[1].boxes, once.boxes)


def test_ultralytics_agrees_with_the_library_called_directly(yolo_file: Path):
    from ultralytics import YOLO

    result = YOLO(str(yolo_file)).predict(
        np.ascontiguousarray(PICTURE[:, :, ::-1]),
        imgsz=128,
        conf=0.3,
        iou=0.6,
        classes=[0],
        verbose=False,
        device="cpu",
    )[0]
    (found,) = UltralyticsDetector(yolo_file, score_floor=0.3, nms_iou=0.6, side=128).detect([PICTURE])
    wanted = suppress(Detections(result.boxes.xyxy.numpy(), result.boxes.conf.numpy()), 0.6)
    assert len(np.unique(wanted.boxes, axis=0)) == len(wanted) > 1
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)


def test_ultralytics_is_off_line_and_silent(yolo_file: Path, tmp_path: Path):
    """In a fresh process: nothing is sent, nothing is written but in our own cache."""
    script = (
        "import numpy as np, sys\n"
        "from curation.models.person_ultralytics import UltralyticsDetector\n"
        f"d = UltralyticsDetector({str(yolo_file)!r}, score_floor=0.3, nms_iou=0.6, side=64)\n"
        "assert 'ultralytics' not in sys.modules\n"
        "assert len(d.detect([np.zeros((64, 64, 3), np.uint8)])) == 1\n"
        "from ultralytics.utils import ONLINE, SETTINGS\n"
        "assert not ONLINE and SETTINGS['sync'] is False\n"
    )
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    root = Path(__file__).parents[3]
    env = {"HOME": str(home), "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=work, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and list(work.iterdir()) == []
    stray = [p for p in home.rglob("*ltralytics*") if home / ".cache" / "sapiens2" not in p.parents]
    assert stray == []


def test_ultralytics_refuses_what_is_no_person_detector(yolo_file: Path, tmp_path: Path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no network")
    for path, text in ((broken, "could not be loaded"), (tmp_path / "yolo11n.pt", "never downloaded")):
        with pytest.raises(ValueError, match=text):
            UltralyticsDetector(path, score_floor=0.3, nms_iou=0.6).detect([PICTURE])


def test_torchvision_state_dict_loads_and_answers(tmp_path: Path):
    import torch
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

    torch.manual_seed(1)
    network = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, num_classes=91)
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.bias[1] = 4.0
    path = tmp_path / "rcnn.pth"
    torch.save(network.state_dict(), path)
    detector = TorchvisionDetector(path, score_floor=0.2, nms_iou=0.6, side=128)
    once, again = detector.detect([PICTURE, PICTURE])
    check(once, 0.2)
    np.testing.assert_array_equal(once.boxes, again.boxes)
    with torch.no_grad():
        network.roi_heads.box_predictor.bbox_pred.bias[0] = float("nan")
    torch.save(network.state_dict(), path)
    with pytest.raises(ValueError, match=r"rcnn\.pth: roi_heads\.box_predictor\.bbox_pred\.bias holds NaN"):
        TorchvisionDetector(path, score_floor=0.2, nms_iou=0.6, side=128).detect([PICTURE])


def test_torchvision_refuses_another_network(tmp_path: Path):
    import torch

    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"other\.pth is not a state dict"):
        TorchvisionDetector(path, score_floor=0.3, nms_iou=0.6).detect([PICTURE])
