"""Geometry: what is moved can be moved back, and agrees with the scene seen through the moved camera."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy import ndimage

from sapiens2.data.synthetic import render
from sapiens2.data.synthetic.camera import Camera
from sapiens2.tasks.affine import apply, compose, inverse, region_matrix, resample, split_camera, turn, warp
from sapiens2.tasks.blurring import WIDEST, blurred
from sapiens2.tasks.mixture import framed
from sapiens2.tasks.regions import crop, whole_region
from sapiens2.tasks.sample import Sample, flip, from_scene
from sapiens2.tasks.vocabulary import parts

SIZE = (192, 144)


def sample(seed: int) -> Sample:
    return from_scene(render(seed, *SIZE))


def shift_zoom(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-20, 20, 2)
    w, h = rng.uniform(0.6, 1.4, 2) * [144, 192]
    return region_matrix(np.array([x, y, x + w, y + h]), SIZE)


CHANGES = {
    "shift and stretch": shift_zoom,
    "turn": lambda seed: turn(25.0 if seed % 2 else -40.0, (70, 90)),
    "turn, then crop": lambda seed: compose(shift_zoom(seed), turn(30.0, (60, 100))),
}


def through(matrix: np.ndarray) -> dict[str, object]:
    """The change of a scene's camera that a change of its picture stands for."""

    def change(camera: Camera) -> Camera:
        intrinsics, rotation = split_camera(matrix, camera.intrinsics)
        return Camera(rotation @ camera.axes, rotation @ camera.shift, intrinsics)

    return {"change": change}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("seed", [1, 4])
def test_a_changed_sample_is_the_scene_through_the_changed_camera(name: str, seed: int) -> None:
    matrix = CHANGES[name](seed)
    moved = warp(sample(seed), matrix, SIZE)
    truth = from_scene(render(seed, *SIZE, **through(matrix)))  # type: ignore[arg-type]
    assert moved.intrinsics is not None and truth.intrinsics is not None
    np.testing.assert_allclose(moved.intrinsics, truth.intrinsics, atol=1e-3)
    assert moved.keypoints is not None and truth.keypoints is not None
    np.testing.assert_allclose(moved.keypoints, truth.keypoints, atol=2e-3)
    for given in (moved, truth):
        assert given.valid is not None and given.mask is not None
    # What came from outside the first picture is unknown; of the rest, silhouettes may differ by a pixel.
    known = resample(np.ones(SIZE, np.uint8), matrix, SIZE, nearest=True) > 0
    both = moved.valid & truth.valid  # type: ignore[operator]
    inner = ndimage.binary_erosion(both, iterations=2)
    assert inner.sum() > 1000
    outside = known & ~ndimage.binary_dilation(truth.valid, iterations=2)
    assert not moved.valid[outside].any()  # type: ignore[index]
    assert (moved.mask == truth.mask)[inner].mean() > 0.93  # type: ignore[index]
    angle = np.rad2deg(np.arccos((moved.normals * truth.normals).sum(-1)[inner].clip(-1, 1)))  # type: ignore[operator]
    assert np.median(angle) < 4
    gap = np.linalg.norm(moved.points - truth.points, axis=-1)[inner]  # type: ignore[operator]
    assert np.median(gap) < 0.006  # metres
    assert np.median(np.abs(moved.albedo - truth.albedo).max(-1)[inner]) < 0.04  # type: ignore[operator]
    assert (moved.labelled & ~truth.labelled).mean() < 0.1  # type: ignore[operator]


@pytest.mark.parametrize("name", CHANGES)
def test_forgetting_the_turn_or_the_camera_is_noticed(name: str) -> None:
    """The test above has teeth: labels that stay behind do not agree with the changed scene."""
    matrix, one = CHANGES[name](4), sample(1)
    truth = from_scene(render(1, *SIZE, **through(matrix)))  # type: ignore[arg-type]
    moved = resample(one.normals, matrix, SIZE, nearest=True)  # type: ignore[arg-type]
    inner = ndimage.binary_erosion((moved != 0).any(-1) & truth.valid, iterations=2)
    angle = np.rad2deg(np.arccos((moved * truth.normals).sum(-1)[inner].clip(-1, 1)))
    assert np.median(angle) > 4 or name == "shift and stretch"
    projected = truth.points[inner] @ one.intrinsics.T  # type: ignore[index, union-attr]
    error = np.linalg.norm(projected[:, :2] / projected[:, 2:] - np.argwhere(inner)[:, ::-1], axis=1)
    assert np.median(error) > 2 or name == "turn"


def test_pixels_that_are_not_square_turn_and_mirror_with_their_skew() -> None:
    def oblong(camera: Camera) -> Camera:
        return replace(camera, intrinsics=camera.intrinsics * [[1], [1.1], [1]])

    one = warp(from_scene(render(5, *SIZE, change=oblong)), turn(40, (70, 90)), SIZE)
    for each in (one, flip(one)):
        assert each.points is not None and each.valid is not None and each.intrinsics is not None
        assert abs(each.intrinsics[0, 1]) > 5
        projected = each.points[each.valid].astype(np.float64) @ each.intrinsics.T.astype(np.float64)
        found = projected[:, :2] / projected[:, 2:]
        np.testing.assert_allclose(found, np.argwhere(each.valid)[:, ::-1], atol=1e-3)


@pytest.mark.parametrize("name", CHANGES)
def test_there_and_back(name: str) -> None:
    one = sample(7)
    matrix = CHANGES[name](2)
    # A canvas with room for all of it.
    matrix = compose(np.array([[1, 0, 200.0], [0, 1, 200.0]]), matrix)
    back = warp(warp(one, matrix, (700, 700)), inverse(matrix), SIZE)
    np.testing.assert_allclose(back.keypoints, one.keypoints, atol=1e-3)  # type: ignore[arg-type]
    np.testing.assert_allclose(back.intrinsics, one.intrinsics, atol=2e-3)  # type: ignore[arg-type]
    inner = ndimage.binary_erosion(one.valid, iterations=2)
    assert (back.mask == one.mask)[inner].mean() > 0.93  # type: ignore[index]
    np.testing.assert_allclose(np.median(np.abs(back.points - one.points)[inner], 0), 0, atol=0.006)  # type: ignore[operator]
    angle = np.rad2deg(np.arccos((back.normals * one.normals).sum(-1)[inner].clip(-1, 1)))  # type: ignore[operator]
    assert np.median(angle) < 4


def test_every_point_stays_on_the_ray_of_its_pixel() -> None:
    one = warp(sample(3), CHANGES["turn, then crop"](5), SIZE)
    assert one.points is not None and one.valid is not None and one.intrinsics is not None and one.normals is not None
    projected = one.points[one.valid].astype(np.float64) @ one.intrinsics.T.astype(np.float64)
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], np.argwhere(one.valid)[:, ::-1], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(one.normals[one.valid], axis=1), 1, atol=1e-3)
    assert not one.points[~one.valid].any() and not one.normals[~one.valid].any()
    assert set(np.unique(one.mask)) <= {*range(len(parts())), 255}  # type: ignore[arg-type]


def test_udp_corners() -> None:
    """The centres of a crop's corner pixels lie on the corners of its region, by hand."""
    matrix = region_matrix(np.array([10.0, 20, 40, 80]), (61, 31))
    np.testing.assert_allclose(apply(matrix, np.array([[10.0, 20], [40, 80], [25, 50]])), [[0, 0], [30, 60], [15, 30]])
    picture = np.arange(100 * 60, dtype=np.float32).reshape(100, 60)
    crop = resample(picture, matrix, (61, 31))
    np.testing.assert_allclose(crop, picture[20:81, 10:41], atol=1e-2)


def test_a_turn_by_hand() -> None:
    """90 degrees clockwise: what points right points down, in pixels and in space."""
    one = sample(2)
    matrix = turn(90, (0, 0))
    np.testing.assert_allclose(apply(matrix, np.array([[1.0, 0], [0, 1]])), [[0, 1], [-1, 0]], atol=1e-12)
    _, rotation = split_camera(matrix, np.asarray(one.intrinsics, np.float64))
    np.testing.assert_allclose(rotation @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_shrinking_averages() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resample(stripes, region_matrix(np.array([0.0, 0, 63, 63]), (13, 13)), (13, 13))
    assert abs(small[2:-2, 2:-2].astype(float).mean() - 127.5) < 6 and small[2:-2, 2:-2].std() < 25
    reference = cv2.resize(stripes, (13, 13), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - reference)[2:-2, 2:-2].mean() < 25


@pytest.mark.parametrize("shape", [(120, 1900), (1500, 130), (300, 700), (150, 200), (700, 525), (90, 60)])
@pytest.mark.parametrize("size", [(128, 96), (64, 48)])
def test_training_and_prediction_see_the_same_picture(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Stretched or whole, very wide or not: the frame of training is the crop of prediction."""
    picture = cv2.resize(sample(3).image, shape[::-1], interpolation=cv2.INTER_LINEAR)
    picture[::7], picture[:, ::5] = 255, 0  # lines that each axis loses by its own shrinking
    for task in ("segmentation", "normal"):
        trained = framed(task, Sample(picture), size).image
        asked = crop(picture, whole_region(shape, size, stretch=task == "segmentation"), size)
        gap = np.abs(trained.astype(int) - asked)
        assert gap.max() <= 2 and gap.mean() < 0.1, (task, gap.max(), gap.mean())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_wide_blur_is_the_gaussian_at_a_bounded_cost(dtype: type) -> None:
    one = cv2.resize(sample(3).image, (288, 384)).astype(dtype)
    for sigma in ((5.0, 0.0), (0.0, 20.0), (WIDEST, WIDEST)):  # the very kernel
        plain = cv2.GaussianBlur(one, (0, 0), sigmaX=max(sigma[0], 1e-3), sigmaY=max(sigma[1], 1e-3))
        np.testing.assert_array_equal(blurred(one, *sigma), plain)
    for sigma in ((80.0, 80.0), (300.0, 3.0), (0.0, 100.0)):
        plain = cv2.GaussianBlur(one, (0, 0), sigmaX=max(sigma[0], 1e-3), sigmaY=max(sigma[1], 1e-3))
        wide = blurred(one, *sigma)
        assert wide.dtype == dtype and wide.shape == one.shape
        assert np.abs(wide.astype(float) - plain).max() < 2.5
    mean = one.mean((0, 1))
    np.testing.assert_allclose(blurred(one, 1e9, float("inf")), np.broadcast_to(mean, one.shape), atol=1)
    for small in (one[:1, :1], one[:, :1], one[:1]):
        assert blurred(small, 1e12, 1e12).shape == small.shape


@pytest.mark.parametrize("far", [1e5, 1e7, 1e9, 1e100])
def test_a_region_far_beyond_the_picture_costs_what_the_picture_does(far: float) -> None:
    picture = np.full((600, 800, 3), 200, np.uint8)
    start = time.perf_counter()
    for region in (np.array([10.0, 10, 50, far]), np.array([-far, -far, far, far])):
        for made in (resample(picture, region_matrix(region, SIZE), SIZE), crop(picture, region, SIZE)):
            assert made.shape == (*SIZE, 3) and made.max() <= 200
            assert (made > 0).any(-1).sum() <= 2 * SIZE[1]  # the rows, or the pixel, where the picture is
    if far < 1e100:  # there it is flat to a float
        warp(Sample(picture), region_matrix(np.array([10.0, 10, 50, far]), SIZE), SIZE)
    assert time.perf_counter() - start < 5  # with a kernel as wide as the shrinking: minutes


def test_what_is_not_finite_is_refused() -> None:
    for wrong in (np.nan, np.inf):
        matrix = np.array([[1.0, 0, 0], [0, wrong, 0]])
        with pytest.raises(ValueError, match="not finite"):
            resample(np.zeros((8, 8, 3), np.uint8), matrix, (4, 4))
        with pytest.raises(ValueError, match="not finite"):
            warp(Sample(np.zeros((8, 8, 3), np.uint8)), matrix, (4, 4))


def test_mirrors_are_refused_and_unknown_is_unknown() -> None:
    one = sample(1)
    with pytest.raises(ValueError, match="mirrors or flattens"):
        warp(one, np.array([[-1.0, 0, 143], [0, 1, 0]]), SIZE)
    moved = warp(one, np.array([[1.0, 0, 100], [0, 1, 0]]), SIZE)
    assert (moved.mask[:, :100] == 255).all() and not moved.valid[:, :100].any()  # type: ignore[index]
    gone = moved.keypoints[:, 0] > 143.5  # type: ignore[index]
    assert gone.any() and not moved.labelled[gone].any()  # type: ignore[index]


def test_turning_and_flipping_agree() -> None:
    """A mirrored turn is the turn, the other way, of the mirrored sample."""
    one, middle = sample(5), (71.5, 95.5)
    a, b = flip(warp(one, turn(20, middle), SIZE)), warp(flip(one), turn(-20, middle), SIZE)
    shared = a.labelled & b.labelled  # type: ignore[operator]
    np.testing.assert_allclose(a.keypoints[shared], b.keypoints[shared], atol=1e-3)  # type: ignore[index]
    inner = ndimage.binary_erosion(a.valid & b.valid, iterations=2)  # type: ignore[operator]
    assert np.abs(a.normals - b.normals)[inner].mean() < 0.02  # type: ignore[operator]
    np.testing.assert_allclose(a.box, b.box, atol=1e-3)  # type: ignore[arg-type]
