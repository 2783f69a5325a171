"""Normals of surfaces that are known, and views from the side that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sapiens2.tasks.drawing import draw_normals
from sapiens2.tasks.geometry import surface_normals, turned_view
from sapiens2.tasks.overlays import LEAST, overlay
from sapiens2.tasks.predict import Prediction

Array = np.ndarray
SHAPE = HEIGHT, WIDTH = 41, 61
FOCAL = 100.0
DARK = 24


def rays() -> Array:
    """Per pixel the direction (x right, y down, 1 away) in which a camera of FOCAL looks."""
    v, u = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    return np.stack([(u - (WIDTH - 1) / 2) / FOCAL, (v - (HEIGHT - 1) / 2) / FOCAL, np.ones(SHAPE)], -1)


def plane(normal: Array, distance: float = 2.0) -> Array:
    """The points at which a plane through (0, 0, distance) is seen."""
    return rays() * (normal[2] * distance / (rays() @ normal))[..., None]


def speckled(seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(60, 255, (*SHAPE, 3), np.uint8)


@pytest.mark.parametrize("towards", [(0, 0, -1), (0.5, 0, -1), (-0.5, 0, -1), (0, 0.4, -1), (0.3, -0.4, -1)])
def test_normals_of_a_plane_look_back_at_the_camera(towards: tuple[float, float, float]) -> None:
    """x right, y down, z away: a plane that falls back to the right looks to the right, x > 0."""
    expected = np.array(towards) / np.linalg.norm(towards)
    normals, holds = surface_normals(plane(expected), np.ones(SHAPE, bool))
    assert holds[1:-1, 1:-1].all() and holds.sum() == (HEIGHT - 2) * (WIDTH - 2)
    np.testing.assert_allclose(normals[holds], np.broadcast_to(expected, (holds.sum(), 3)), atol=1e-5)
    assert not normals[~holds].any()


def test_normals_of_a_sphere_point_away_from_its_middle() -> None:
    middle, radius = np.array([0.1, -0.1, 3.0]), 0.8
    unit = rays() / np.linalg.norm(rays(), axis=-1, keepdims=True)
    along = unit @ middle
    inside = along**2 - (middle @ middle - radius**2)
    points = unit * (along - np.sqrt(np.maximum(inside, 0)))[..., None]
    normals, holds = surface_normals(points, inside > 0)
    outward = (points - middle) / radius
    assert holds.sum() > 1000 and not holds[inside <= 0].any()
    assert ((normals * outward).sum(-1)[holds] > np.cos(np.deg2rad(8))).all()
    assert ((normals * unit).sum(-1)[holds] < 0).all()
    high, right = np.argwhere(holds)[0], np.argwhere(holds.T)[-1][::-1]
    assert normals[tuple(high)][1] < -0.4 and normals[tuple(right)][0] > 0.4


def test_no_normal_spans_two_surfaces_or_touches_an_invalid_pixel() -> None:
    points = plane(np.array([0.0, 0.0, -1.0]))
    points[:, 30:] *= 1.5
    valid = np.ones(SHAPE, bool)
    valid[10, 10] = False
    _, holds = surface_normals(points, valid)
    expected = np.zeros(SHAPE, bool)
    expected[1:-1, 1:-1] = True
    expected[:, 29:31] = False
    expected[[10, 9, 11, 10, 10], [10, 10, 10, 9, 11]] = False
    np.testing.assert_array_equal(holds, expected)
    assert not surface_normals(points[:2], valid[:2])[1].any()


# Seen from 2 m, a point right of, below or behind the middle of the rest, and where it is after a walk of 30 or 90
# degrees: u = 85 x / z + 30, v = 85 y / z + 20 with x = cos dx + sin dz, y = dy, z = 2 - sin dx + cos dz.
@pytest.mark.parametrize(
    ("offset", "yaw", "pixel"),
    [
        ((0.4, 0.2, 0.0), 0, (47, 28)),  # x .4, y .2, z 2
        ((0.4, 0.2, 0.0), 30, (46, 29)),  # x .3464, z 1.8
        ((0.4, 0.2, 0.0), -30, (43, 28)),  # x .3464, z 2.2
        ((0.0, 0.0, 0.4), 30, (37, 20)),  # x .2, z 2.3464
        ((0.0, 0.2, -0.4), 30, (20, 30)),  # x -.2, z 1.6536
        ((0.5, 0.0, 0.0), 90, (30, 20)),  # x 0, z 1.5: before the others now
    ],
)
def test_a_known_point_is_seen_at_a_known_pixel(
    offset: tuple[float, float, float], yaw: float, pixel: tuple[int, int]
) -> None:
    points = np.broadcast_to([0.0, 0.0, 2.0], (*SHAPE, 3)).copy()
    colours = np.full((*SHAPE, 3), 200, np.uint8)
    points[5, 7] += offset
    colours[5, 7] = (255, 0, 0)
    seen = turned_view(points, colours, np.ones(SHAPE, bool), yaw, FOCAL)
    red = np.argwhere((seen == (255, 0, 0)).all(-1))
    assert [(int(u), int(v)) for v, u in red] == [pixel]
    rest = np.argwhere((seen == 200).all(-1))
    assert [(int(u), int(v)) for v, u in rest] == ([] if pixel == (30, 20) else [(30, 20)])
    assert (seen == DARK).all(-1).sum() == HEIGHT * WIDTH - len(red) - len(rest)


def test_without_a_turn_the_picture_comes_back_where_points_are() -> None:
    """The half step back shrinks by 0.85, so the camera's own focal length is given as larger by that."""
    points, colours = plane(np.array([0.0, 0.0, -1.0])), speckled()
    valid = np.ones(SHAPE, bool)
    valid[5:16, 8:19] = valid[-16:-5, -19:-8] = False  # two blocks across the middle, which stays where it is
    valid[20, 20] = valid[20, -21] = False
    seen = turned_view(points, colours, valid, 0, FOCAL / 0.85)
    np.testing.assert_array_equal(seen[valid], colours[valid])
    assert (seen[8:13, 11:16] == DARK).all()
    around = colours[19:22, 19:22].reshape(9, 3).astype(float)
    np.testing.assert_allclose(seen[20, 20], np.delete(around, 4, 0).mean(0), atol=1)
    turned = turned_view(points, colours, valid, 30, FOCAL / 0.85)
    assert (turned[valid] != colours[valid]).any(-1).mean() > 0.5


def test_nothing_valid_or_all_behind_the_camera_is_a_dark_view() -> None:
    points, colours = plane(np.array([0.0, 0.0, -1.0])), speckled()
    assert (turned_view(points, colours, np.zeros(SHAPE, bool), 30, FOCAL) == DARK).all()
    assert (turned_view(-points, colours, np.ones(SHAPE, bool), 30, FOCAL) == DARK).all()


def test_the_overlay_of_a_pointmap_shows_these_normals_and_a_view_from_30_degrees() -> None:
    """Upright and of the panel's own size, so nothing is resized: picture, depth, normals, view in a row."""
    height, width, gap = LEAST, 320, 6
    v, u = np.mgrid[:height, :width].astype(float)
    points = np.stack([(u - (width - 1) / 2) / 400, (v - (height - 1) / 2) / 400, np.ones(u.shape)], -1)
    points = (points * (2 + 0.3 * np.sin(u / 40))[..., None]).astype(np.float32)
    picture = np.random.default_rng(0).integers(60, 255, (height, width, 3), np.uint8)
    everywhere = np.ones((height, width), bool)
    region = np.array([0, 0, width - 1, height - 1], np.float32)
    one = Prediction(
        region, points=points, region=region, window=(0, 0, width, height), focal_px=400.0, valid=everywhere
    )
    drawn = overlay("pointmap", picture, [one])
    assert drawn.shape == (height, 4 * width + 3 * gap, 3)
    panels = [drawn[:, k * (width + gap) :][:, :width] for k in range(4)]
    np.testing.assert_array_equal(panels[0], picture)
    np.testing.assert_array_equal(panels[3], turned_view(points, picture, everywhere, 30, 400))
    normals, holds = surface_normals(points, everywhere)
    np.testing.assert_array_equal(panels[2][holds], draw_normals(normals, holds)[holds])
