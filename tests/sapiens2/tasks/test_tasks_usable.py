"""Frames in which too little is left: told by the published limits, drawn again, and given up in the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sapiens2.data.synthetic import render
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.sample import Sample, from_scene
from sapiens2.tasks.source import TaskSource
from sapiens2.tasks.usable import usable

SIDE = (100, 50)
FRAME = (64, 48)


def bare(**labels: np.ndarray) -> Sample:
    return Sample(image=np.zeros((*SIDE, 3), np.uint8), **labels)


@pytest.mark.parametrize(("pixels", "enough"), [(49, False), (50, True)])
def test_one_percent_of_parts_is_enough(pixels: int, enough: bool) -> None:
    mask = np.zeros(SIDE, np.uint8)
    mask.ravel()[:pixels] = 5
    mask.ravel()[1000:3000] = 255  # unknown is no part
    assert usable("segmentation", bare(mask=mask)) is enough


@pytest.mark.parametrize(("pixels", "enough"), [(0, False), (15, False), (16, True), (4800, True), (4801, False)])
def test_normals_need_sixteen_pixels_and_something_beside_them(pixels: int, enough: bool) -> None:
    valid = np.zeros(SIDE, bool)
    valid.ravel()[:pixels] = True
    assert usable("normal", bare(valid=valid)) is enough
    points = np.full((*SIDE, 3), 2.0, np.float32)
    assert usable("pointmap", bare(valid=valid, points=points, intrinsics=np.diag([60.0, 60, 1]))) is enough


@pytest.mark.parametrize(("metres", "enough"), [(0.07, False), (0.09, True)])
def test_points_are_not_nearer_than_the_canonical_limit(metres: float, enough: bool) -> None:
    """50 pixels wide and a focal length of 100: canonical depth is half the metres."""
    valid = np.zeros(SIDE, bool)
    valid[:4, :10] = True
    points = np.full((*SIDE, 3), 3.0, np.float32)
    points[2, 3, 2] = metres
    points[50, 5, 2] = 0.001  # not valid, so it does not count
    assert usable("pointmap", bare(valid=valid, points=points, intrinsics=np.diag([100.0, 100, 1]))) is enough


@pytest.mark.parametrize("task", ["segmentation", "normal", "pointmap"])
def test_training_is_given_no_frame_without_a_person(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts of the frame often miss a person; with the limits none is left that does."""
    changes = {"crop": {"p": 1.0, "area": (0.01, 0.05), "largest_class": 1.0}, "scale": None, "rotate": None}
    config = FinetuneConfig(task=task, size="tiny", image_size=FRAME, scenes=8, cache_scenes=False, augment=changes)
    source = TaskSource(config)
    drawn = [source.sample(position)[0] for position in range(48)]
    assert all(usable(task, sample) for sample in drawn)
    again = [source.sample(position)[0] for position in range(48)]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(drawn, again, strict=True))
    monkeypatch.setattr("sapiens2.tasks.source.usable", lambda *_: True)
    assert not all(usable(task, source.sample(position)[0]) for position in range(48))


def test_a_picture_that_is_never_usable_is_shown_in_its_own_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"crop": {"p": 1.0, "area": (0.01, 0.02)}, "photometric": None, "flip": None}
    config = FinetuneConfig(task="normal", size="tiny", image_size=FRAME, scenes=8, cache_scenes=False, augment=changes)
    source = TaskSource(config)
    whole = from_scene(render(config.scene_seed, *FRAME, "train"))
    empty = replace(whole, valid=np.zeros(FRAME, bool))
    monkeypatch.setattr(source.mixture, "sample", lambda position: (empty, None))
    assert np.array_equal(source.sample(0)[0].image, empty.image)
