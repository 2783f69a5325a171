"""Alignment and classical descriptors on drawn scenes: copies agree, other exposures of a scene do not."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from curation.dedup.geometry import Alignment, align, sketch
from curation.dedup.keypoints import MIRROR, borders, keypoints, trim_borders
from curation.models.copy_descriptor import build_copy_descriptor

Picture = np.ndarray


def scene(seed: int, width: int = 480, height: int = 360) -> Picture:
    """A random scene of shapes over a gradient, RGB: corners, edges and texture."""
    rng = np.random.default_rng(seed)
    left, right, top = rng.integers(30, 220), rng.integers(30, 220), rng.uniform(0.4, 1.0)
    ramp = np.linspace(left, right, width)[None, :, None] * np.linspace(top, 1.0, height)[:, None, None]
    picture = np.repeat(ramp, 3, axis=2).astype(np.uint8)
    for _ in range(60):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        colour = [int(c) for c in rng.integers(0, 255, 3)]
        if rng.random() < 0.5:
            cv2.circle(picture, (x, y), int(rng.integers(5, 40)), colour, -1)
        else:
            cv2.rectangle(picture, (x, y), (x + int(rng.integers(8, 70)), y + int(rng.integers(8, 70))), colour, -1)
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


def person(picture: Picture, dx: int) -> Picture:
    """The scene with a figure in the foreground, `dx` px to the right: another pose, the same background."""
    rng = np.random.default_rng(99)
    out = picture.copy()
    figure = cv2.resize(rng.integers(0, 255, (30, 14, 3), dtype=np.uint8), (140, 300), interpolation=cv2.INTER_CUBIC)
    out[40:340, 120 + dx : 260 + dx] = figure
    return out


def jpeg(picture: Picture, quality: int) -> Picture:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "recompressed": lambda p: jpeg(p, 35),
    "half size": lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "brighter": lambda p: np.clip(p.astype(float) * 1.25, 0, 255).astype(np.uint8),
    "less contrast": lambda p: (p * 0.7 + 30).astype(np.uint8),
    "blurred": lambda p: cv2.GaussianBlur(p, (0, 0), 1.5),
    "grey": lambda p: cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "flipped": lambda p: np.ascontiguousarray(p[:, ::-1]),
    "bordered": lambda p: cv2.copyMakeBorder(p, 30, 30, 40, 40, cv2.BORDER_CONSTANT, value=(255, 255, 255)),
    "cropped": lambda p: np.ascontiguousarray(p[20:290, 50:410]),
    "cropped and flipped": lambda p: np.ascontiguousarray(p[20:290, 50:410][:, ::-1]),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_copies_agree(name: str, seed: int) -> None:
    original = scene(seed)
    a, b = sketch(original), sketch(COPIES[name](original))
    for found in (align(a, b), align(b, a)):
        assert found.agreement >= 0.9 and found.correlation >= 0.95, found
        assert found.mirrored == ("flipped" in name)


def test_another_pose_before_the_same_background_does_not_agree() -> None:
    background = scene(3)
    found = align(sketch(person(background, 0)), sketch(person(background, 60)))
    assert found.inliers > 20, "the background aligns"
    assert found.agreement < 0.8


def test_unrelated_and_empty_pictures_do_not_agree() -> None:
    assert align(sketch(scene(4)), sketch(scene(5))).agreement < 0.3
    flat = sketch(np.full((200, 300), 128, np.uint8))
    assert align(flat, sketch(scene(4))) == Alignment()
    assert align(flat, flat) == Alignment()


def test_the_mirrored_descriptor_is_that_of_the_mirrored_picture() -> None:
    picture = cv2.cvtColor(scene(6, 240, 200), cv2.COLOR_RGB2GRAY)
    direct, flipped = keypoints(picture), keypoints(np.ascontiguousarray(picture[:, ::-1]))
    mirrored = direct.descriptors[:, MIRROR]
    at = np.stack([239 - direct.xy[:, 0], direct.xy[:, 1]], axis=1)
    gap = np.linalg.norm(at[:, None] - flipped.xy[None], axis=2)
    same = gap.argmin(axis=1)[gap.min(axis=1) < 0.7], np.flatnonzero(gap.min(axis=1) < 0.7)
    assert len(same[0]) > 50
    cosine = (flipped.descriptors[same[0]] * mirrored[same[1]]).sum(axis=1) / (
        np.linalg.norm(flipped.descriptors[same[0]], axis=1) * np.linalg.norm(mirrored[same[1]], axis=1)
    )
    assert np.median(cosine) > 0.98


def test_borders_are_measured_and_cut() -> None:
    inner = cv2.cvtColor(scene(7, 200, 160), cv2.COLOR_RGB2GRAY)
    framed = cv2.copyMakeBorder(inner, 12, 20, 30, 5, cv2.BORDER_CONSTANT, value=0)
    assert borders(framed) == (12, 20, 30, 5)
    np.testing.assert_array_equal(trim_borders(framed), inner)
    flat = np.full((50, 60), 9, np.uint8)
    assert trim_borders(flat).shape == flat.shape


def test_classical_descriptor_separates_copies_from_others() -> None:
    descriptor = build_copy_descriptor("builtin", {})
    originals = [scene(seed) for seed in range(10, 16)]
    x = descriptor.embed(originals)
    assert x.shape == (6, descriptor.dim) and x.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    others = (x @ x.T)[np.triu_indices(6, 1)].max()
    for name, change in COPIES.items():
        copies = descriptor.embed([change(p) for p in originals])
        assert (copies * x).sum(axis=1).min() > others, name


def test_a_vector_does_not_depend_on_its_batch() -> None:
    descriptor = build_copy_descriptor("builtin", {})
    pictures = [scene(20), scene(21, 90, 300), np.zeros((3, 3, 3), np.uint8), np.full((40, 900, 3), 200, np.uint8)]
    together = descriptor.embed(pictures)
    for row, picture in zip(together, pictures, strict=True):
        np.testing.assert_array_equal(row, descriptor.embed([picture])[0])
    assert descriptor.embed([]).shape == (0, descriptor.dim)
