"""detect as a stage: rows, rounding, the cache, refinement in its band, errors; on real and marked pictures."""

from __future__ import annotations

import io
import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as pillow

from curation.models.boxes import Detections, Pixels
from curation.stages.detect import DetectConfig, DetectPartition, fragment, profile_config, required_weights
from curation.tables import DETECTIONS, image_id


def encoded(pixels: np.ndarray, form: str = "JPEG", orientation: int = 1) -> bytes:
    out = io.BytesIO()
    exif = pillow.Exif()
    exif[0x0112] = orientation
    pillow.fromarray(pixels).save(out, form, quality=95, exif=exif)
    return out.getvalue()


def table(*pictures: bytes) -> pa.Table:
    rows = []
    for data in pictures:
        picture = pillow.open(io.BytesIO(data))
        turned = picture.getexif().get(0x0112, 1) >= 5
        width, height = picture.size[::-1] if turned else picture.size
        rows.append({"image_id": image_id(data), "width": width, "height": height, "bytes": data})
    return pa.Table.from_pylist(rows)


class Cache:
    """A ModelCache in memory that stores JSON text, as the real one does, and counts what it is asked."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {}

    def get(self, model_key: str, image_ids: list[str]) -> dict[str, dict[str, Any]]:
        known = self.rows.get(model_key, {})
        return {i: json.loads(known[i]) for i in image_ids if i in known}

    def put(self, model_key: str, rows: dict[str, dict[str, Any]]) -> None:
        self.rows.setdefault(model_key, {}).update({i: json.dumps(v) for i, v in rows.items()})


class WhiteBlocks:
    """A detector of a known truth: each white block is a person. Like a network it sees no more than `side` px."""

    revision = "white-1"
    side = 200

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def detect(self, images: list[Pixels]) -> list[Detections]:
        return [self._detect(pixels) for pixels in images]

    def _detect(self, pixels: Pixels) -> Detections:
        import cv2

        self.seen.append(pixels.shape[:2])
        scale = min(1.0, self.side / max(pixels.shape[:2]))
        size = [max(1, round(n * scale)) for n in pixels.shape[1::-1]]
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST)
        count, _, stats, _ = cv2.connectedComponentsWithStats((small[:, :, 0] > 127).astype(np.uint8))
        boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:count]]
        scores = np.linspace(0.5, 0.9, len(boxes), dtype=np.float32)[::-1]
        return Detections((np.array(boxes).reshape(-1, 4) / scale).astype(np.float32), scores)


def stage_of(detector: WhiteBlocks, **settings: Any) -> DetectPartition:
    stage = DetectPartition(DetectConfig(**settings), {})
    stage.detector = detector
    return stage


@pytest.fixture(scope="module")
def astronaut() -> bytes:
    from skimage.data import astronaut

    return encoded(astronaut())


def blocks(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (3000, 2000)) -> bytes:
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    for x0, y0, x1, y1 in boxes:
        picture[y0:y1, x0:x1] = 255
    return encoded(picture)


def test_rows_in_order_and_the_schema(astronaut: bytes):
    empty = encoded(np.full((90, 120, 3), 90, np.uint8), "PNG")
    images = table(empty, astronaut)
    result = DetectPartition(DetectConfig(score_floor=0.5), {})(images)
    data = result.tables["data"]
    assert data.schema == DETECTIONS
    assert data["image_id"].to_pylist() == images["image_id"].to_pylist()
    assert [len(row) for row in data["boxes"].to_pylist()] == [0, 1]
    metrics = result.metrics
    assert (metrics["rows_in"], metrics["kept"], metrics["dropped"]) == (2, 2, {})
    assert metrics["model_calls"] == {"builtin": 2} and metrics["persons"] == 1


def test_remembered_equals_fresh_and_calls_no_model(astronaut: bytes):
    images = table(astronaut, blocks((100, 100, 400, 900)))
    stage, cache = DetectPartition(DetectConfig(), {}), Cache()
    plain = stage(images)
    fresh = stage(images, cache)
    again = stage(images, cache)
    assert plain.tables["data"].equals(fresh.tables["data"])
    assert fresh.tables["data"].equals(again.tables["data"])
    assert fresh.metrics["model_calls"] == {"builtin": 2} and again.metrics["model_calls"] == {"builtin": 0}
    more = stage(table(astronaut, encoded(np.zeros((50, 50, 3), np.uint8))), cache)
    assert more.metrics["model_calls"] == {"builtin": 1}


def test_a_setting_that_changes_boxes_changes_the_key_and_no_other_does():
    key = DetectPartition(DetectConfig(), {}).key
    for settings in ({"score_floor": 0.4}, {"nms_iou": 0.5}, {"refine_px": (0, 0)}, {"refine_margin": 0.3}):
        assert DetectPartition(DetectConfig(**settings), {}).key != key
    for settings in ({"threads": 2}, {"workers": 7}, {"device": "cuda:0"}):
        assert DetectPartition(DetectConfig(**settings), {}).key == key


def test_boxes_are_rounded_and_best_first():
    data = blocks((33, 47, 190, 611), (900, 100, 1000, 450), size=(1111, 777))
    (row,) = stage_of(WhiteBlocks(), refine_px=(0, 0))(table(data)).tables["data"].to_pylist()
    assert row["box_scores"] == sorted(row["box_scores"], reverse=True)
    values = np.array(row["boxes"])
    np.testing.assert_allclose(values, np.round(values, 2), atol=1e-4)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_in_upright_original_pixels(orientation: int):
    upright = np.zeros((1600, 1200, 3), np.uint8)
    upright[400:1200, 80:480] = 255
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]  # quarter turns against the clock that undo the tag's rotation
    data = encoded(np.ascontiguousarray(np.rot90(upright, turns)), orientation=orientation)
    (row,) = stage_of(WhiteBlocks(), refine_px=(0, 0))(table(data)).tables["data"].to_pylist()
    np.testing.assert_allclose(row["boxes"], [[80, 400, 480, 1200]], atol=10)


def test_only_boxes_in_the_band_are_measured_again_and_become_exact():
    band = (1003, 404, 1307, 1208)  # 304 px: in the band
    small, large = (101, 103, 204, 409), (1801, 202, 2606, 1913)  # 103 px under it, 805 px above it
    images = table(blocks(small, band, large))
    once = stage_of(WhiteBlocks(), refine_px=(0, 0))(images).tables["data"].to_pylist()[0]
    detector = WhiteBlocks()
    result = stage_of(detector, refine_px=(256, 512))(images)
    twice = result.tables["data"].to_pylist()[0]
    assert once["box_scores"] == twice["box_scores"] and once["refined"] == [False] * 3
    assert result.metrics["refined"] == sum(twice["refined"]) == 1
    for before, after, refined in zip(once["boxes"], twice["boxes"], twice["refined"], strict=True):
        if refined:
            assert np.abs(np.array(after) - band).max() < np.abs(np.array(before) - band).max()
            np.testing.assert_allclose(after, band, atol=7)  # a crop of 1200 px seen at 200 px: 6 px a pixel
        else:
            assert before == after
    # The picture was decoded reduced, the crop at full resolution.
    whole, crop = detector.seen
    assert whole == (250, 375) and 1150 < crop[0] < 1300 and 420 < crop[1] < 500


def test_a_box_that_fills_its_picture_is_not_measured_again():
    detector = WhiteBlocks()
    result = stage_of(detector)(table(blocks((50, 40, 350, 560), size=(400, 600))))
    assert len(detector.seen) == 1 and result.metrics["refined"] == 0


def test_a_second_look_that_finds_someone_else_changes_nothing():
    class Fickle(WhiteBlocks):
        def detect(self, images: list[Pixels]) -> list[Detections]:
            found = super().detect(images)
            return found if len(self.seen) == 1 else [d.moved(0.2, 0, 0) for d in found]

    images = table(blocks((1000, 400, 1300, 1200)))
    once = stage_of(WhiteBlocks(), refine_px=(0, 0))(images).tables["data"]
    assert stage_of(Fickle())(images).tables["data"].equals(once)


def test_hostile_shapes_and_grey_pictures_pass():
    pictures = [
        encoded(np.zeros((1, 1, 3), np.uint8), "PNG"),
        encoded(np.full((2000, 10, 3), 120, np.uint8)),
        encoded(np.random.default_rng(1).integers(0, 256, (300, 400), dtype=np.uint8)),
    ]
    result = DetectPartition(DetectConfig(), {})(table(*pictures))
    assert result.metrics["rows_in"] == result.tables["data"].num_rows == 3


def test_an_empty_partition_is_an_empty_table():
    images = table(encoded(np.zeros((8, 8, 3), np.uint8))).slice(0, 0)
    result = DetectPartition(DetectConfig(), {})(images, Cache())
    assert result.tables["data"].num_rows == 0 and result.metrics["model_calls"] == {"builtin": 0}


def test_a_picture_that_does_not_decode_is_named():
    images = table(encoded(np.zeros((50, 60, 3), np.uint8)))
    broken = images.set_column(3, "bytes", pa.array([b"\xff\xd8\xff torn"]))
    with pytest.raises(ValueError, match=images["image_id"][0].as_py()):
        DetectPartition(DetectConfig(), {})(broken)


def test_the_stage_travels_to_workers(astronaut: bytes):
    stage = DetectPartition(DetectConfig(), {})
    first = stage(table(astronaut))
    copy = pickle.loads(pickle.dumps(stage))
    assert copy(table(astronaut)).tables["data"].equals(first.tables["data"])


def test_profiles_name_their_weights():
    assert required_weights(profile_config("builtin")) == []
    assert [spec.name for spec in required_weights(profile_config("small"))] == ["yolox_nano"]
    assert [spec.name for spec in required_weights(profile_config("full"))] == ["yolo11n"]
    own = DetectConfig(detector="ultralytics", weights="yolo26m", weights_path="/models/mine.pt")
    (spec,) = required_weights(own)
    assert (spec.name, spec.path, spec.sha256) == ("yolo26m", "/models/mine.pt", None)
    with pytest.raises(ValueError, match="yolox_nano"):
        DetectPartition(profile_config("small"), {})


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"refine_px": (512, 256)}, "refine_px"),
        ({"weights_path": "x.pt"}, "weights_path"),
        ({"detector": "yolox_nano", "weights": "yolo11n"}, "weights=yolo11n"),
        ({"score_floor": 0.0}, "score_floor"),
        ({"detector": "yolo"}, "detector"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], text: str):
    with pytest.raises(ValueError, match=text):
        DetectConfig(**settings)
    with pytest.raises(ValueError, match="huge"):
        profile_config("huge")


def test_fragment_counts_what_the_table_holds(astronaut: bytes):
    pictures = [astronaut, encoded(np.full((90, 120, 3), 90, np.uint8))]
    images = table(*pictures)
    data = DetectPartition(DetectConfig(score_floor=0.5), {})(images).tables["data"]
    known = {image_id(p): p for p in pictures}
    shown = fragment(data, images=images, fetch=lambda ids: {i: known[i] for i in ids}, config=DetectConfig())
    assert json.loads(json.dumps(shown)) == shown
    sections = {section["title"]: section for section in shown["sections"]}
    assert sections["Persons per picture"]["series"][0]["values"][:2] == [1, 1]
    assert sum(sections["Short side of every person box"]["counts"]) == 1
    (item,) = next(s for s in shown["sections"] if s["type"] == "images")["items"]
    assert item["sub"] == image_id(astronaut)[:12]
    none = fragment(data.slice(1), config=None)
    assert [section["type"] for section in none["sections"]] == ["table", "bars"]
