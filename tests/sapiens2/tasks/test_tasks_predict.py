"""Prediction: crops and pastes are inverse, boxes and detectors are honoured, drawings show what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sapiens2.data.synthetic import render
from sapiens2.tasks.build import TASKS, build_task
from sapiens2.tasks.drawing import draw_depth, draw_keypoints, draw_normals, draw_parts, part_colours
from sapiens2.tasks.predict import crop, paste, pose_region, predict


def test_regions_pad_and_keep_the_aspect() -> None:
    region = pose_region(np.array([10, 20, 30, 100]), 0.75)
    assert region[2] - region[0] == pytest.approx(75) and region[3] - region[1] == pytest.approx(100)
    assert (region[0] + region[2]) / 2 == 20 and (region[1] + region[3]) / 2 == 60


def test_a_whole_image_crop_of_its_own_size_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 18, 3), dtype=np.uint8)
    region = np.array([0.0, 0.0, 17.0, 23.0])
    np.testing.assert_array_equal(crop(image, region, (24, 18)), image)
    np.testing.assert_array_equal(paste(image, region, (24, 18), nearest=True), image)


def test_paste_puts_a_crop_back_where_it_was() -> None:
    y, x = np.mgrid[0:60, 0:80].astype(np.float32)
    ramp = np.stack([x, y, x + y], -1)
    region = np.array([10.0, 5.0, 57.0, 52.0])
    back = paste(ramp[5:53, 10:58], region, (60, 80), nearest=False)
    np.testing.assert_allclose(back[6:52, 11:57], ramp[6:52, 11:57], atol=0.1)
    assert (back[:4] == 0).all() and (back[:, 60:] == 0).all()


@pytest.mark.parametrize("task", TASKS)
def test_predictions_cover_the_picture(task: str) -> None:
    torch.manual_seed(0)
    model = build_task(task, "tiny")
    images = [render(0, 64, 48).image, render(1, 50, 70).image]
    boxes = [np.array([[5, 5, 40, 60], [10, 0, 30, 30]]), np.zeros((0, 4))]
    found = predict(model, images, boxes=boxes, input_size=(64, 48))
    assert [len(f) for f in found] == [2, 1]
    for image, people in zip(images, found, strict=True):
        for one in people:
            maps = [m for m in (one.labels, one.normals, one.points, one.albedo) if m is not None]
            assert all(m.shape[:2] == image.shape[:2] for m in maps)
            assert len(maps) == (0 if task == "pose" else 1)
            if one.normals is not None:
                length = np.linalg.norm(one.normals, axis=-1)
                assert (np.isclose(length, 1, atol=1e-4) | (length == 0)).all()
            if one.keypoints is not None:
                x0, y0, x1, y1 = one.box
                inside = (one.keypoints > [x0 - 0.01, y0 - 0.01]) & (one.keypoints < [x1 + 0.01, y1 + 0.01])
                assert inside.all() and one.scores is not None and one.scores.shape == (308,)


def test_a_box_moves_the_answer_with_it() -> None:
    torch.manual_seed(0)
    model = build_task("pose", "tiny")
    image = render(3, 64, 48).image
    wide = np.zeros((64, 148, 3), np.uint8)
    wide[:, 100:] = image
    alone = predict(model, [image], boxes=[np.array([[0, 0, 47, 63]])], input_size=(64, 48))[0][0]
    moved = predict(model, [wide], detector=lambda _: np.array([[100, 0, 147, 63]]), input_size=(64, 48))[0][0]
    assert alone.keypoints is not None and moved.keypoints is not None
    np.testing.assert_allclose(moved.keypoints - [100, 0], alone.keypoints, atol=0.5)


def test_bad_images_and_boxes_are_refused() -> None:
    model = build_task("normal", "tiny")
    with pytest.raises(ValueError, match="uint8"):
        predict(model, [np.zeros((8, 8, 3))])
    with pytest.raises(ValueError, match="one list per image"):
        predict(model, [np.zeros((8, 8, 3), np.uint8)], boxes=[])


def test_drawings() -> None:
    scene = render(0, 64, 48)
    drawn = draw_keypoints(scene.image, scene.keypoints, scene.visibility > 0)
    assert drawn.shape == scene.image.shape and (drawn != scene.image).any()
    assert not np.shares_memory(drawn, scene.image)
    parts_drawn = draw_parts(scene.image, scene.mask)
    np.testing.assert_array_equal(parts_drawn[~scene.valid], scene.image[~scene.valid])
    assert len({tuple(c) for c in part_colours().tolist()}) == 29
    for picture in (draw_normals(scene.normals, scene.valid), draw_depth(scene.points, scene.valid)):
        assert (picture[~scene.valid] == 0).all() and picture[scene.valid].any()
    nothing = np.zeros((4, 4), bool)
    assert (draw_depth(np.zeros((4, 4, 3)), nothing) == 0).all()
