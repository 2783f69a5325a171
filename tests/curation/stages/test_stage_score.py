"""The score stage with the builtin profile: gate, cache, one decode, rounding, loud failures."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import skimage

from curation.images import decode as canonical_decode
from curation.images.header import Header, read_header
from curation.models import views
from curation.models.quality import QualityScorer, luminance, sharpness
from curation.models.score_values import remembered, restored
from curation.models.scorer import View, boxes_fingerprint
from curation.stages.score import ScoreConfig, ScorePartition, fragment, profile_config, required_weights
from curation.tables import DETECTIONS, IMAGES, from_rows, image_id, scores_schema

DATA = Path(skimage.__file__).parent / "data"
ASTRONAUT, COFFEE, CHELSEA = "astronaut.png", "coffee.png", "chelsea.png"
PERSON = [100.0, 0.0, 440.0, 512.0]


class MemoryCache:
    """A ModelCache that keeps JSON text, as a store does, and counts what it was asked."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[str, str]] = {}

    def get(self, model_key: str, image_ids: list[str]) -> dict[str, dict[str, Any]]:
        known = self.texts.get(model_key, {})
        return {i: json.loads(known[i]) for i in image_ids if i in known}

    def put(self, model_key: str, rows: dict[str, dict[str, Any]]) -> None:
        self.texts.setdefault(model_key, {}).update({i: json.dumps(values) for i, values in rows.items()})


def tables(
    persons: dict[str, list[tuple[list[float], float]]] | None = None, extra: bytes | None = None
) -> tuple[pa.Table, pa.Table, dict[str, str]]:
    """images, detections and ids by name of three photographs."""
    persons = {ASTRONAUT: [(PERSON, 0.9)]} if persons is None else persons
    images, detections, ids = [], [], {}
    for name in (ASTRONAUT, COFFEE, CHELSEA, *(["extra"] if extra is not None else [])):
        data = extra if name == "extra" and extra is not None else (DATA / name).read_bytes()
        header = read_header(data)
        width, height = (header.width, header.height) if isinstance(header, Header) else (9, 9)
        ids[name] = image_id(data)
        images.append({"image_id": ids[name], "bytes": data, "metadata": "{}", "width": width, "height": height})
        boxes = persons.get(name, [])
        detections.append({"image_id": ids[name], "boxes": [b for b, _ in boxes], "box_scores": [s for _, s in boxes]})
    return from_rows(images, IMAGES), from_rows(detections, DETECTIONS), ids


@pytest.fixture(scope="module")
def stage() -> ScorePartition:
    return ScorePartition(profile_config("builtin"), {})


@pytest.fixture(scope="module")
def fresh(stage: ScorePartition) -> dict[str, Any]:
    """One run without a cache: rows by image_id."""
    images, detections, ids = tables()
    result = stage(images, detections)
    return {"result": result, "rows": {r["image_id"]: r for r in result.tables["data"].to_pylist()}, "ids": ids}


def test_rows_follow_the_images_and_the_schema(fresh: dict[str, Any], stage: ScorePartition) -> None:
    table = fresh["result"].tables["data"]
    assert table["image_id"].to_pylist() == list(fresh["ids"].values())
    assert table.schema == scores_schema(stage.config.embedding_dim, stage.config.copy_dim)
    metrics = fresh["result"].metrics
    assert metrics["rows_in"] == metrics["kept"] == 3 and metrics["dropped"] == {}


def test_the_gate_holds_back_the_expensive_columns_only(fresh: dict[str, Any]) -> None:
    passed, held = fresh["rows"][fresh["ids"][ASTRONAUT]], fresh["rows"][fresh["ids"][COFFEE]]
    assert passed["scored"] and not held["scored"]
    for name in ("text_ratio", "face_count", "embedding", "copy_embedding"):
        assert passed[name] is not None and held[name] is None
    for name in ("sharpness", "noise", "realism"):
        assert passed[name] is not None and held[name] is not None
    calls = fresh["result"].metrics["model_calls"]
    assert calls["builtin-quality"] == calls["builtin-realism"] == 3
    assert calls["builtin-text"] == calls["faces"] == calls["builtin-embedding"] == calls["copy-descriptor"] == 1


@pytest.mark.parametrize(
    ("persons", "passes"),
    [
        ([([0, 0, 288, 400], 0.3)], True),
        ([([0, 0, 287.5, 400], 0.9)], False),
        ([([0, 0, 400, 400], 0.29)], False),
        ([([0, 0, 400, 400], 0.2), ([0, 0, 100, 100], 0.9)], False),
        ([], False),
    ],
)
def test_the_gate_needs_size_and_score_of_one_person(persons: list[Any], passes: bool, stage: ScorePartition) -> None:
    assert stage.passes_gate(persons) is passes
    assert ScorePartition(ScoreConfig(gate_min_person_px=0), {}).passes_gate(persons)


def test_what_is_remembered_equals_what_is_fresh_and_calls_nothing(
    fresh: dict[str, Any], stage: ScorePartition, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, detections, _ = tables()
    cache = MemoryCache()
    first = stage(images, detections, cache=cache)
    assert first.tables["data"].equals(fresh["result"].tables["data"])
    monkeypatch.setattr(views, "decode", lambda *a, **k: pytest.fail("decoded although everything is known"))
    again = stage(images, detections, cache=cache)
    assert again.tables["data"].equals(first.tables["data"])
    assert set(again.metrics["model_calls"].values()) == {0} and again.metrics["decoded"] == 0


def test_a_looser_gate_scores_only_the_new_rows(stage: ScorePartition) -> None:
    persons = {ASTRONAUT: [(PERSON, 0.9)], COFFEE: [([10.0, 10.0, 210.0, 300.0], 0.8)]}
    images, detections, ids = tables(persons)
    cache = MemoryCache()
    stage(images, detections, cache=cache)
    loose = ScorePartition(ScoreConfig(gate_min_person_px=150), {})(images, detections, cache=cache)
    calls = loose.metrics["model_calls"]
    assert calls["builtin-quality"] == calls["builtin-realism"] == 0
    assert calls["builtin-text"] == calls["builtin-embedding"] == calls["faces"] == calls["copy-descriptor"] == 1
    assert loose.metrics["decoded"] == 1
    assert [row["scored"] for row in loose.tables["data"].to_pylist()] == [True, True, False]
    assert ids[COFFEE] == loose.tables["data"]["image_id"][1].as_py()


def test_changed_boxes_are_measured_again_where_they_matter(stage: ScorePartition) -> None:
    cache = MemoryCache()
    images, detections, _ = tables()
    stage(images, detections, cache=cache)
    moved = [PERSON[0] + 5, *PERSON[1:]]
    images, detections, _ = tables({ASTRONAUT: [(moved, 0.9)]})
    result = stage(images, detections, cache=cache)
    calls = result.metrics["model_calls"]
    assert calls["builtin-realism"] == calls["copy-descriptor"] == 0
    assert calls["builtin-quality"] == calls["builtin-text"] == calls["faces"] == calls["builtin-embedding"] == 1
    assert result.tables["data"].equals(stage(images, detections).tables["data"])


def test_every_picture_is_decoded_once(stage: ScorePartition, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counting(data: bytes, **options: Any) -> Any:
        seen.append(len(data))
        return canonical_decode(data, **options)

    monkeypatch.setattr(views, "decode", counting)
    images, detections, _ = tables()
    stage(images, detections)
    assert sorted(seen) == sorted(len(b) for b in images["bytes"].to_pylist())


def test_batches_do_not_change_the_result(fresh: dict[str, Any]) -> None:
    images, detections, _ = tables()
    one = ScorePartition(ScoreConfig(batch_images=1), {})(images, detections)
    assert one.tables["data"].equals(fresh["result"].tables["data"])


def test_the_stage_travels_by_pickle(fresh: dict[str, Any], stage: ScorePartition) -> None:
    images, detections, _ = tables()
    there = pickle.loads(pickle.dumps(stage))
    assert there(images, detections).tables["data"].equals(fresh["result"].tables["data"])


def test_boxes_are_measured_in_the_scaled_picture() -> None:
    """Sharpness of a person in a picture larger than long_side_px is that of the box scaled with it."""
    pixels = cv2.imread(str(DATA / ASTRONAUT))
    large = cv2.resize(pixels, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    data = cv2.imencode(".png", large)[1].tobytes()
    view = views.view_of("a", data, width=1536, height=1536, long_side_px=512, boxes=[[300, 0, 1320, 1536]])
    assert isinstance(view, View)
    assert view.pixels.shape == (512, 512, 3) and view.scale == pytest.approx(1 / 3)
    assert view.main_box == pytest.approx((100, 0, 440, 512))
    expected = sharpness(luminance(view.pixels[:, 100:440]))
    assert QualityScorer().score([view])[0]["sharpness"] == pytest.approx(expected)


def test_bytes_that_do_not_decode_end_as_unscored_rows(stage: ScorePartition) -> None:
    broken = (DATA / "rocket.jpg").read_bytes()[:3000]
    images, detections, ids = tables({"extra": [([0.0, 0.0, 400.0, 400.0], 0.9)]}, extra=broken)
    result = stage(images, detections)
    row = result.tables["data"].to_pylist()[-1]
    assert row["image_id"] == ids["extra"] and row["scored"] is False and row["sharpness"] is None
    assert result.metrics["undecodable"] == 1 and result.metrics["scored"] == 0


def test_mistakes_are_named(stage: ScorePartition) -> None:
    images, detections, ids = tables()
    with pytest.raises(ValueError, match=ids[CHELSEA]):
        stage(images, detections.slice(0, 2))
    with pytest.raises(ValueError, match="bytes"):
        stage(images.drop_columns(["bytes"]), detections)
    with pytest.raises(ValueError, match="ppocr_det"):
        ScorePartition(profile_config("small"), {})
    with pytest.raises(ValueError, match="needs faces"):
        ScoreConfig(faces="none", head_pose="fsanet")
    with pytest.raises(ValueError, match="huge"):
        profile_config("huge")


@pytest.mark.parametrize("bad", [float("nan"), np.float32("inf"), np.array([0.1, np.nan]), np.array([1e9])])
def test_numbers_that_are_none_are_an_error_that_names_the_row(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"image 00ff.*sharpness"):
        remembered({"sharpness": bad}, where="net on image 00ff")


def test_values_are_rounded_before_use() -> None:
    stored = remembered({"a": 0.123456, "b": np.array([1 / 3], np.float32), "c": None, "d": 7}, where="x")
    assert stored == {"a": 0.1235, "b": [float(np.float16(1 / 3))], "c": None, "d": 7}
    assert json.loads(json.dumps(stored)) == stored
    with pytest.raises(ValueError, match="cache"):
        restored(stored, ("a", "e"))


def test_fingerprints_follow_the_boxes() -> None:
    assert boxes_fingerprint([]) != boxes_fingerprint([[0, 0, 1, 1]])
    assert boxes_fingerprint([[0, 0, 1, 1]]) == boxes_fingerprint([[0.01, 0, 1, 1.0]])
    assert boxes_fingerprint([[0, 0, 1, 1]]) != boxes_fingerprint([[0, 0, 1, 1.2]])


def test_profiles_need_what_they_name() -> None:
    assert required_weights(profile_config("builtin")) == []
    small = [spec.name for spec in required_weights(profile_config("small"))]
    assert sorted(small) == sorted(set(small)) and {"ppocr_det", "yunet", "fsanet_1x1", "fsanet_var"} <= set(small)
    full = required_weights(profile_config("full").model_copy(update={"clip_path": "/some/clip.pt"}))
    assert {"clip_vit_l14", "laion_aesthetic_l14", "headpose_6drepnet", "sscd_disc_mixup"} <= {s.name for s in full}
    (clip,) = [spec for spec in full if spec.name == "clip_vit_l14"]
    assert clip.path == "/some/clip.pt" and clip.sha256 is None
    assert profile_config("full").embedding_dim == 1536 and profile_config("full").copy_dim == 512


def test_the_report_shows_every_measured_column_and_blurs_what_is_flagged(fresh: dict[str, Any]) -> None:
    images, detections, _ = tables()
    encoded = dict(zip(images["image_id"].to_pylist(), images["bytes"].to_pylist(), strict=True))
    table = fresh["result"].tables["data"]
    asked: list[str] = []

    def fetch(wanted: list[str]) -> dict[str, bytes]:
        asked.extend(wanted)
        return {i: encoded[i] for i in wanted}

    shown = fragment(table, detections, images=images, fetch=fetch)
    assert json.loads(json.dumps(shown)) == shown
    by_title = {section["title"]: section for section in shown["sections"]}
    histogram = by_title["sharpness"]
    assert sum(histogram["counts"]) == 3 and len(histogram["edges"]) == len(histogram["counts"]) + 1
    sheet = by_title["Least and greatest sharpness"]
    assert len(sheet["items"]) == 2 and asked
    assert {i["image_id"] for i in sheet["items"]} < set(encoded), "a report made after filter must know whom it shows"
    column = table.schema.get_field_index("nsfw")
    flagged = table.set_column(column, table.schema.field("nsfw"), pa.array([0.9] * 3, pa.float32()))
    blurred = fragment(flagged, fetch=fetch)
    plain_jpeg, blurred_jpeg = (
        next(s for s in f["sections"] if s["title"] == "Least and greatest sharpness")["items"][0]["jpeg"]
        for f in (shown, blurred)
    )
    assert len(blurred_jpeg) < 0.5 * len(plain_jpeg)
