"""Box geometry against slow, obvious computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.models.boxes import Detections, best_first, crop_around, iou, letterbox, short_sides, suppress

coordinate = st.floats(0, 100, width=32)


@st.composite
def detections(draw, most: int = 25) -> Detections:
    rows = draw(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=most))
    boxes = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in rows], np.float32).reshape(-1, 4)
    scores = draw(st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), min_size=len(rows), max_size=len(rows)))
    return Detections(boxes, np.array(scores, np.float32))


def slow_iou(a, b) -> float:
    width = max(0.0, min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0])))
    height = max(0.0, min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1])))
    inter = width * height
    area = [(float(q[2]) - float(q[0])) * (float(q[3]) - float(q[1])) for q in (a, b)]
    union = area[0] + area[1] - inter
    return inter / union if union > 0 else 0.0


@given(detections(8), detections(8))
def test_iou_is_that_of_every_pair(a: Detections, b: Detections):
    got = iou(a.boxes, b.boxes)
    assert got.shape == (len(a), len(b))
    for i, box in enumerate(a.boxes):
        for j, other in enumerate(b.boxes):
            # Slivers of 1e-20 px lose all digits in float32; a person's box is no sliver.
            if min((box[2:] - box[:2]).min(), (other[2:] - other[:2]).min()) > 1e-3:
                assert got[i, j] == pytest.approx(slow_iou(box, other), abs=1e-4)


@settings(max_examples=60)
@given(detections(), st.sampled_from([0.3, 0.5, 0.7]))
def test_suppression_equals_the_textbook_loop(found: Detections, threshold: float):
    pairwise = iou(found.boxes, found.boxes)
    left = sorted(range(len(found)), key=lambda i: (-found.scores[i], i))
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if pairwise[best, i] <= threshold]
    got = suppress(found, threshold)
    np.testing.assert_array_equal(got.boxes, found.boxes[kept])
    np.testing.assert_array_equal(got.scores, found.scores[kept])


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([64, 416]))
@settings(max_examples=40, deadline=None)
def test_letterbox_there_and_back(width: int, height: int, side: int):
    canvas, mapping = letterbox(np.full((height, width, 3), 200, np.uint8), side, 7)
    assert canvas.shape == (side, side, 3)
    boxes = np.array([[0, 0, width, height], [width / 4, height / 3, width / 2, height]], np.float32)
    np.testing.assert_allclose(mapping.undo(mapping.apply(boxes)), boxes, rtol=1e-5, atol=1e-3)
    corner = np.round(mapping.apply(boxes)[0]).astype(int)
    assert max(corner[2:]) == side
    assert (canvas[: corner[3], : corner[2]] == 200).all()
    assert (canvas[corner[3] :] == 7).all() and (canvas[:, corner[2] :] == 7).all()


def test_letterbox_keeps_a_marked_place():
    picture = np.zeros((300, 600, 3), np.uint8)
    picture[90:150, 400:500] = 255
    canvas, mapping = letterbox(picture, 416, 0)
    rows, columns = np.nonzero(canvas[:, :, 0] > 127)
    seen = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    np.testing.assert_allclose(mapping.undo(seen), [[400, 90, 500, 150]], atol=1.5)


def test_crop_and_move_bring_a_box_back():
    picture = np.arange(200 * 300 * 3, dtype=np.uint8).reshape(200, 300, 3)
    box = np.array([50.0, 60, 120, 160], np.float32)
    crop, x, y = crop_around(picture, box, 0.1)
    np.testing.assert_array_equal(crop, picture[y : y + crop.shape[0], x : x + crop.shape[1]])
    assert (x, y) == (43, 50) and crop.shape[:2] == (120, 84)
    inside = Detections((box - [x, y, x, y]).astype(np.float32)[None], np.ones(1, np.float32))
    np.testing.assert_allclose(inside.moved(1, x, y).boxes[0], box)
    edge, x, y = crop_around(picture, np.array([0.0, 0, 300, 200]), 0.5)
    assert (x, y) == (0, 0) and edge.shape == picture.shape


def test_clipping_drops_what_lies_outside():
    boxes = np.array([[-5, -5, 10, 10], [50, 5, 60, 9], [20, 5, 45, 30]], np.float32)
    got = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32)).clipped(40, 20)
    np.testing.assert_array_equal(got.boxes, [[0, 0, 10, 10], [20, 5, 40, 20]])
    np.testing.assert_allclose(got.scores, [0.9, 0.7])
    np.testing.assert_array_equal(short_sides(got.boxes), [10, 15])


def test_equal_scores_keep_their_order():
    assert best_first(np.array([0.5, 0.9, 0.5, 0.9], np.float32)).tolist() == [1, 3, 0, 2]
