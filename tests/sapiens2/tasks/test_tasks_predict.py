"""Prediction: crops and pastes are inverse, boxes and detectors are honoured, drawings show what they should."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sapiens2.data.synthetic import render
from sapiens2.model.heads_small import SmallHead
from sapiens2.model.normalise import normalise
from sapiens2.model.weights import save_weights
from sapiens2.tasks.build import build_task
from sapiens2.tasks.compose import compose
from sapiens2.tasks.drawing import draw_depth, draw_keypoints, draw_normals, draw_parts, part_colours
from sapiens2.tasks.flip_test import flip_tested
from sapiens2.tasks.head_specs import OUTPUT, TASKS, TaskName
from sapiens2.tasks.load import load_task
from sapiens2.tasks.overlays import overlay
from sapiens2.tasks.pointmap_scale import Convention
from sapiens2.tasks.predict import Prediction, _placed, checked_boxes, forward, predict
from sapiens2.tasks.regions import crop, person_region, place, whole_region, window_of
from sapiens2.tasks.vocabulary import keypoints, parts


def test_regions_pad_and_keep_the_aspect() -> None:
    region = person_region(np.array([10, 20, 30, 100]), 0.75)
    assert region[2] - region[0] == pytest.approx(75) and region[3] - region[1] == pytest.approx(100)
    assert (region[0] + region[2]) / 2 == 20 and (region[1] + region[3]) / 2 == 60
    assert window_of(region, (60, 40)) == (0, 10, 40, 60)


def test_a_whole_image_crop_of_its_own_size_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 18, 3), dtype=np.uint8)
    for stretch in (True, False):
        region = whole_region((24, 18), (24, 18), stretch=stretch)
        np.testing.assert_array_equal(crop(image, region, (24, 18)), image)
        np.testing.assert_array_equal(place(image, region, (0, 0, 18, 24), (24, 18)), image)


@pytest.mark.filterwarnings("error")  # of a division by nothing
@pytest.mark.parametrize("shape", [(1, 1), (300, 1), (1, 300)])
def test_pictures_of_one_row_or_column_are_seen_and_answered(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 90, np.uint8)
    assert (crop(picture, whole_region(shape, (64, 48), stretch=True), (64, 48))[16:48, 12:36] > 40).all()
    torch.manual_seed(0)
    (found,) = predict(build_task("segmentation", "tiny").eval(), [picture], input_size=(64, 48))[0]
    assert found.labels is not None and found.labels.shape == shape
    checked_boxes(np.array([[0.0, 0, shape[1], shape[0]]]), shape)


@pytest.mark.parametrize("size", [(24, 18), (150, 100)])
def test_a_crop_touches_only_what_it_needs_and_is_the_same(size: tuple[int, int]) -> None:
    """Far from the rest of a large picture, with and without the blur that shrinking needs, and over its edge."""
    image = np.random.default_rng(1).integers(0, 256, (400, 500, 3), dtype=np.uint8)
    for region in (np.array([200.0, 110.0, 320.0, 270.0]), np.array([-30.0, 300.0, 60.0, 420.0])):
        blur = (region[2] - region[0]) / (size[1] - 1)
        whole = cv2.GaussianBlur(image, (0, 0), 0.4 * blur) if blur > 1.5 else image
        step = [(region[2] - region[0]) / (size[1] - 1), (region[3] - region[1]) / (size[0] - 1)]
        matrix = np.array([[step[0], 0, region[0]], [0, step[1], region[1]]])
        slow = cv2.warpAffine(whole, matrix, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        assert np.abs(crop(image, region, size).astype(int) - slow).max() <= 1
    assert not crop(image, np.array([900.0, 0, 950, 50]), size).any()


@pytest.mark.parametrize("ratio", [1, 2])
def test_a_map_goes_back_where_it_was(ratio: int) -> None:
    """A ramp of picture coordinates, on the crop's own grid and on one half as fine, edges aligned."""
    region, size = np.array([10.0, 5.0, 57.0, 52.0]), (96, 96)
    centre = (np.arange(96 // ratio) + 0.5) * ratio - 0.5
    x, y = 10 + centre * 47 / 95, 5 + centre * 47 / 95
    ramp = np.stack(np.broadcast_arrays(x[None, :], y[:, None]), -1).astype(np.float32)
    back = place(ramp, region, (12, 8, 50, 50), size)
    expected = np.stack(np.meshgrid(np.arange(12, 50), np.arange(8, 50)), -1)
    np.testing.assert_allclose(back, expected, atol=0.05)


@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_in_the_pixels_of_the_picture(task: str) -> None:
    torch.manual_seed(0)
    model = build_task(task, "tiny")
    images = [render(0, 64, 48).image, render(1, 50, 70).image, render(2, 64, 48).image]
    boxes = [np.array([[5, 5, 40, 60, 0.9], [10, 0, 30, 30, 0.5]]), None, np.zeros((0, 4))]
    found = predict(model, images, boxes=boxes, input_size=(64, 48), batch=2)
    assert [len(f) for f in found] == [2, 1, 0]
    assert [one.score for one in found[0]] == [0.9, 0.5]
    assert found[1][0].window == (0, 0, 70, 50)
    for image, people in zip(images, found, strict=True):
        for one in people:
            x0, y0, x1, y1 = one.window
            assert 0 <= x0 < x1 <= image.shape[1] and 0 <= y0 < y1 <= image.shape[0]
            maps = [m for m in (one.labels, one.normals, one.points, one.albedo) if m is not None]
            assert all(m.shape[:2] == (y1 - y0, x1 - x0) for m in maps)
            assert len(maps) == (0 if task == "pose" else 1)
            if one.normals is not None:
                np.testing.assert_allclose(np.linalg.norm(one.normals, axis=-1), 1, atol=1e-4)
            if one.keypoints is not None:
                left, top, right, bottom = one.region
                inside = (one.keypoints > [left - 0.01, top - 0.01]) & (one.keypoints < [right + 0.01, bottom + 0.01])
                assert inside.all() and one.scores is not None and one.scores.shape == (308,)


@pytest.mark.parametrize("task", TASKS)
def test_batches_across_pictures_give_what_one_at_a_time_gives(task: str) -> None:
    torch.manual_seed(0)
    model = build_task(task, "tiny")
    images = [render(k, 64, 48).image for k in range(3)]
    boxes = [np.array([[4, 4, 40, 60]] * n, float) + np.arange(n)[:, None] for n in (2, 0, 3)]
    together = predict(model, images, boxes=boxes, input_size=(64, 48), batch=4)
    for image, given, people in zip(images, boxes, together):
        for box, one in zip(given, people, strict=True):
            (alone,) = predict(model, [image], boxes=[box[None]], input_size=(64, 48), batch=1)[0]
            for name in ("keypoints", "normals", "points", "albedo"):
                if getattr(one, name) is not None:
                    np.testing.assert_allclose(getattr(one, name), getattr(alone, name), atol=2e-3)
            if one.labels is not None:
                assert (one.labels == alone.labels).mean() > 0.99


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
    assert predict(model, [wide], detector=lambda _: np.zeros((0, 4))) == [[]]


def test_a_flip_test_answers_a_mirror_image_with_the_mirrored_answer() -> None:
    torch.manual_seed(0)
    model, words = build_task("pose", "tiny"), keypoints()
    image = render(3, 64, 48).image
    mirror = np.ascontiguousarray(image[:, ::-1])

    def turned(flip: bool) -> float:
        """How far the answer to the mirror image is from the mirrored answer, in pixels."""
        (one,), (other,) = predict(model, [image, mirror], input_size=(64, 48), flip=flip)
        assert one.keypoints is not None and other.keypoints is not None
        expected = one.keypoints[words.flip] * [-1, 1] + [47, 0]
        return float(np.median(np.abs(other.keypoints - expected)))

    assert turned(True) < 0.05 < 1 < turned(False)


@pytest.mark.parametrize("task", TASKS[1:])
def test_flip_tested_maps_of_a_mirror_image_are_the_mirrored_maps(task: TaskName) -> None:
    torch.manual_seed(0)
    model, images = build_task(task, "tiny").eval(), torch.randn(1, 3, 64, 48)
    key = OUTPUT[task]
    with torch.no_grad():
        one, other = (flip_tested(model, x)[key] for x in (images, images.flip(-1)))
        plain = [model(x)[key] for x in (images, images.flip(-1))]
    expected = one.flip(-1)
    if task == "segmentation":
        expected = expected[:, parts().flip.tolist()]
    if task in ("normal", "pointmap"):
        expected = torch.cat([-expected[:, :1], expected[:, 1:]], 1)
    torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain[0], one, rtol=1e-3) and not torch.allclose(plain[1], other, rtol=1e-3)


def test_labels_are_the_argmax_of_the_interpolated_logits() -> None:
    torch.manual_seed(0)
    model = build_task("segmentation", "tiny")
    image = render(3, 64, 48).image
    (one,) = predict(model, [image], input_size=(64, 48))[0]
    expected = forward(model, normalise(torch.from_numpy(image[None])), (64, 48))["labels"][0].numpy()
    assert (one.labels == expected).mean() > 0.995  # cv2 interpolates in steps of 1/32 pixel


def test_points_of_a_crop_belong_to_the_camera_of_the_picture() -> None:
    """Exact points of a pinhole, cut out away from the middle: their projection falls on their own pixels again."""
    focal, shape, region, size = 80.0, (100, 120), np.array([60.0, 30.0, 107.0, 93.0]), (64, 48)
    columns, rows = np.meshgrid(np.arange(48), np.arange(64))
    depth = 2 + 0.01 * columns
    # What a network would say that takes the middle of the crop for its principal point; one crop pixel is one pixel.
    points = np.stack([(columns - 23.5) / focal * depth, (rows - 31.5) / focal * depth, depth], -1).astype(np.float32)
    scale = 48 / focal
    person = Prediction(region, region=region, window=window_of(region, shape))
    raw = {"points": (points * scale).transpose(2, 0, 1), "scale": np.float32(scale)}
    placed = _placed(person, raw, "pointmap", size, shape)
    assert placed.points is not None and placed.focal_px == pytest.approx(focal)
    u = placed.points[..., 0] / placed.points[..., 2] * focal + 59.5
    v = placed.points[..., 1] / placed.points[..., 2] * focal + 49.5
    np.testing.assert_allclose(u, np.broadcast_to(np.arange(60, 108), u.shape), atol=0.05)
    np.testing.assert_allclose(v, np.broadcast_to(np.arange(30, 94)[:, None], v.shape), atol=0.05)


@pytest.mark.parametrize("convention", ["release", "paper"])
def test_points_are_metres_in_the_convention_of_the_model(convention: Convention) -> None:
    """Two models that say the same canonical points, one s and the other 1 / s, give the same metres and camera."""
    torch.manual_seed(0)
    model, s = build_task("pointmap", "tiny", scale=convention), 0.4
    said = s if convention == "release" else 1 / s
    model.decode_head.scale = lambda features: torch.full((len(features),), said)  # type: ignore[method-assign, assignment]
    image = render(3, 64, 48).image
    (one,) = predict(model, [image], input_size=(64, 48))[0]
    expected = forward(model, normalise(torch.from_numpy(image[None])), (64, 48))["points"][0]
    assert one.points is not None
    np.testing.assert_allclose(one.points, expected.permute(1, 2, 0), rtol=1e-4, atol=2e-3)
    assert one.scale == pytest.approx(s) and one.focal_px == pytest.approx(48 / s)


def test_a_model_of_the_parts_says_whose_pixels_they_are() -> None:
    torch.manual_seed(0)
    normals, parts = build_task("normal", "tiny"), build_task("segmentation", "tiny")
    parts.decode_head = SmallHead(192, 29, stride=2, width=32, gain=30.0)  # sub-pixels of random weights are noise
    image = render(3, 64, 48).image
    box = np.array([[8.0, 4.0, 38.0, 60.0]])
    (one,) = predict(normals, [image], boxes=[box], people=parts, input_size=(64, 48))[0]
    parts.image_size = (64, 48)
    (one,) = predict(normals, [image], boxes=[box], people=parts, input_size=(64, 48))[0]
    (seen,) = predict(parts, [image], boxes=[box])[0]
    assert one.valid is not None and one.valid.any()
    assert (one.valid == (seen.labels > 0)).mean() > 0.99  # the largest part is taken before, not after interpolating
    with pytest.raises(ValueError, match="give a segmentation model"):
        predict(parts, [image], people=normals)


def test_persons_are_composed_by_who_has_a_pixel_most_central() -> None:
    def person(x0: int, x1: int, label: int) -> Prediction:
        region = np.array([x0, 0.0, x1 - 1, 19.0])
        labels = np.full((20, x1 - x0), label, np.uint8)
        return Prediction(region, labels=labels, region=region, window=(x0, 0, x1, 20))

    whole = compose("segmentation", [person(0, 20, 3), person(10, 30, 5)], (20, 40))
    assert whole.values[10].tolist() == [3] * 15 + [5] * 15 + [0] * 10
    assert whole.person[10].tolist() == [0] * 15 + [1] * 15 + [-1] * 10
    assert whole.valid[10].tolist() == [True] * 30 + [False] * 10


@pytest.mark.parametrize("task", TASKS)
def test_a_picture_without_people_is_drawn_like_the_others(task: str) -> None:
    """Frames of one video have one size, and not every frame shows somebody."""
    image = render(3, 64, 48).image
    torch.manual_seed(0)
    found = predict(build_task(task, "tiny").eval(), [image], boxes=[np.array([[4.0, 4, 40, 60]])], input_size=(64, 48))
    assert overlay(task, image, []).shape == overlay(task, image, found[0]).shape
    if task != "pose":
        nobody, somebody = compose(task, [], (64, 48)), compose(task, found[0], (64, 48))
        assert not nobody.valid.any() and not nobody.values.any()
        assert (nobody.values.shape, nobody.values.dtype) == (somebody.values.shape, somebody.values.dtype)


def test_a_model_is_loaded_from_its_folder_its_file_and_by_its_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_task("normal", "tiny")
    save_weights(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="does not say its task"):
        load_task(str(tmp_path / "model.safetensors"))
    image = render(3, 64, 48).image
    expected = predict(model, [image])[0][0].normals
    alone = load_task(str(tmp_path / "model.safetensors"), task="normal", device="cpu")
    np.testing.assert_array_equal(predict(alone, [image])[0][0].normals, expected)
    about = {"task": "normal", "size": "tiny", "image_size": [64, 48]}
    (tmp_path / "config.json").write_text(json.dumps(about))
    assert load_task(str(tmp_path), device="cpu").image_size == (64, 48)
    with pytest.raises(ValueError, match="holds a normal model of size tiny, not task pose"):
        load_task(str(tmp_path), task="pose")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_task(str(tmp_path / "nothing"))


def test_a_released_file_says_by_its_names_what_it_is(tmp_path: Path) -> None:
    state = {f"decode_head.conv_{name}.weight": torch.zeros(1) for name in ("seg",)}
    state |= {f"backbone.blocks.{k}.ln1.weight": torch.zeros(1) for k in range(24)}
    state |= {"backbone.patch_embed.projection.weight": torch.zeros(1, 3, 16, 16)}
    save_file(state | {"backbone.cls_token": torch.zeros(1, 1, 1024)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit this model \(the file holds size 0\.4b"):
        load_task(str(tmp_path / "model.safetensors"))
    with pytest.raises(ValueError, match=r"holds a segmentation model of size 0\.4b, not size 1b"):
        load_task(str(tmp_path / "model.safetensors"), size="1b")


def test_bad_images_and_boxes_are_refused() -> None:
    model = build_task("normal", "tiny")
    with pytest.raises(ValueError, match="uint8"):
        predict(model, [np.zeros((8, 8, 3))])
    with pytest.raises(ValueError, match="one list per image"):
        predict(model, [np.zeros((8, 8, 3), np.uint8)], boxes=[])
    picture = [np.zeros((32, 32, 3), np.uint8)]
    for box, message in (
        ([5, 5, 5, 9], "has no area"),
        ([5, 5, np.nan, 9], "has no area"),
        ([40, 5, 60, 9], "outside the picture of 32 x 32"),
        (
            [5, 5, 9, 1e7],
            r"box \[5\.0, 5\.0, 9\.0, 10000000\.0\] reaches beyond the picture of 32 x 32 pixels by .*: give x0",
        ),
        ([-1e308, 5, 1e308, 9], "reaches beyond the picture of 32 x 32 pixels by more than 10 times its longer side"),
        ([5, -321, 9, 9], "reaches beyond the picture"),
        ([5, 5, np.inf, 9], "has no area"),
        ([1, 2, 3], "give \\[N, 4\\]"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(model, picture, boxes=[np.array([box])])
    (found,) = predict(model, picture, boxes=[np.array([[-320, -320, 352, 352]])])[0]  # as far as boxes may reach
    assert found.normals is not None and found.normals.shape == (32, 32, 3)


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


def test_every_point_that_is_shown_is_seen() -> None:
    """Points of the face too; and points that a weak model heaps up are drawn at the size of the person's box."""
    ground, alone = np.zeros((480, 480, 3), np.uint8), np.zeros(308, bool)
    for index in range(308):
        alone[:] = np.arange(308) == index
        drawn = draw_keypoints(ground, np.full((308, 2), 100.0), alone)
        assert (drawn[99:102, 100].max(-1) > 50).all() and (drawn[100, 99:102].max(-1) > 50).all(), index
    areas = []
    for side in (90, 475, 4000):
        one = Prediction(np.array([5.0, 5, 5 + side, 5 + side]), keypoints=np.full((308, 2), 50.0), scores=np.ones(308))
        areas.append(int((overlay("pose", ground, [one]) > 0).any(-1).sum()))
    assert areas[0] < areas[1] == areas[2]
