"""Text boxes: geometry of the network's post-processing, and captions drawn on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage

from curation.models.scorer import View
from curation.models.text_lines import LineTextDetector
from curation.models.text_overlay import (
    TextBox,
    TextOverlayScorer,
    boxes_of_map,
    coverage,
    is_level_line,
    share_in_box,
)

DATA = Path(skimage.__file__).parent / "data"


def photo(name: str) -> np.ndarray:
    return cv2.imread(str(DATA / name))[..., ::-1].copy()


def captioned(pixels: np.ndarray, text: str, y: int) -> np.ndarray:
    out = pixels.copy()
    for colour, thickness in (((0, 0, 0), 9), ((255, 255, 255), 3)):
        cv2.putText(out, text, (30, y), cv2.FONT_HERSHEY_DUPLEX, 1.3, colour, thickness, cv2.LINE_AA)
    return out


def extent(box: TextBox) -> list[float]:
    return [*box.quad.min(axis=0), *box.quad.max(axis=0)]


def test_a_map_gives_its_rectangle_grown_by_area_over_perimeter() -> None:
    probability = np.zeros((96, 160), np.float32)
    probability[20:41, 30:111] = 0.9  # 80 x 20 between pixel centres
    (box,) = boxes_of_map(probability, 160, 96, unclip=1.5)
    margin = 80 * 20 * 1.5 / (2 * (80 + 20))  # 12
    assert extent(box) == pytest.approx([30 - margin, 20 - margin, 110 + margin, 40 + margin], abs=0.01)
    assert box.score == pytest.approx(0.9, abs=1e-5)


def test_boxes_are_scaled_to_the_picture_and_weak_or_tiny_ones_are_left_out() -> None:
    probability = np.zeros((96, 160), np.float32)
    probability[20:41, 30:111] = 0.9
    probability[60:80, 10:60] = 0.5  # over the pixel threshold, under the box threshold
    probability[90:92, 100:102] = 1.0  # two pixels wide
    (box,) = boxes_of_map(probability, 320, 96, unclip=0.0, box_threshold=0.7)
    assert extent(box) == pytest.approx([60, 20, 220, 40], abs=0.01)


def test_a_tilted_region_gives_a_tilted_box() -> None:
    probability = np.zeros((200, 200), np.float32)
    corners = cv2.boxPoints(((100, 100), (120, 24), 30))
    cv2.fillConvexPoly(probability, np.round(corners).astype(np.int32), 1.0)
    (box,) = boxes_of_map(probability, 200, 200, unclip=0.0)
    assert cv2.contourArea(box.quad) == pytest.approx(120 * 24, rel=0.05)
    assert not is_level_line(box.quad)


@pytest.mark.parametrize(
    ("width", "height", "angle", "level"),
    [
        (100, 20, 0, True),
        (100, 20, 9, True),
        (100, 20, -8, True),
        (100, 20, 12, False),
        (100, 60, 0, False),
        (20, 100, 0, False),
        (20, 100, 90, True),
    ],
)
def test_level_lines(width: float, height: float, angle: float, level: bool) -> None:
    quad = np.asarray(cv2.boxPoints(((200, 200), (width, height), angle)), np.float32)
    for turn in range(4):  # whichever corner comes first
        assert is_level_line(np.roll(quad, turn, axis=0)) == level


def test_overlapping_boxes_count_once_and_only_inside_the_person() -> None:
    quads = [
        np.array(q, np.float32) for q in ([[0, 0], [99, 0], [99, 19], [0, 19]], [[50, 0], [99, 0], [99, 19], [50, 19]])
    ]
    mask = coverage(quads, 200, 100)
    assert mask.mean() == pytest.approx(0.1)
    assert share_in_box(mask, (50, 10, 150, 30)) == pytest.approx(0.25)
    assert share_in_box(mask, None) is None
    assert share_in_box(mask, (190, 90, 400, 300)) == 0.0


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"])
def test_a_drawn_caption_raises_the_ratio_and_the_plain_photograph_has_none(name: str) -> None:
    plain = photo(name)
    drawn = captioned(plain, "WHEN THE TEST", plain.shape[0] - 30)
    scorer = TextOverlayScorer(LineTextDetector())
    rows: list[dict[str, Any]] = scorer.score([View("a", plain), View("b", drawn)])
    assert rows[0]["text_ratio"] <= 0.01
    assert rows[1]["text_ratio"] > rows[0]["text_ratio"] + 0.015


def test_the_caption_is_found_where_it_was_drawn() -> None:
    plain = photo("coffee.png")
    lines = LineTextDetector().detect(captioned(plain, "GOOD MORNING", 360))
    mask = coverage([line.quad for line in lines], plain.shape[1], plain.shape[0])
    rows = np.flatnonzero(mask.any(axis=1))
    assert rows.min() >= 310 and rows.max() <= 372
    columns = np.flatnonzero(mask.any(axis=0))
    assert columns.min() < 60 and columns.max() > 300


def test_a_person_under_the_caption_is_overlapped_and_another_is_not() -> None:
    view = View("a", captioned(photo("coffee.png"), "GOOD MORNING", 360), boxes=((20, 300, 360, 390),))
    aside = View("b", view.pixels, boxes=((20, 20, 360, 250),))
    rows = TextOverlayScorer(LineTextDetector()).score([view, aside])
    assert rows[0]["text_person_overlap"] > 0.2
    assert rows[1]["text_person_overlap"] < 0.05
