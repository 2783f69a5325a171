"""Quality statistics against pictures whose sharpness, noise, colours and light are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from curation.models.quality import (
    QualityScorer,
    colour_count,
    colour_temperature,
    flatness,
    luminance,
    noise_sigma,
    sharpness,
)
from curation.models.scorer import View

DATA = Path(skimage.__file__).parent / "data"


def photo(name: str) -> np.ndarray:
    return cv2.imread(str(DATA / name))[..., ::-1].copy()


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "chelsea.png"])
def test_sharpness_falls_with_every_blur(name: str) -> None:
    grey = luminance(photo(name))
    values = [sharpness(grey), *(sharpness(cv2.GaussianBlur(grey, (0, 0), s)) for s in (1.0, 2.0, 4.0))]
    assert all(a > b + 0.03 for a, b in itertools.pairwise(values)), values


def test_sharpness_does_not_depend_on_contrast() -> None:
    grey = luminance(photo("coffee.png"))
    assert sharpness(grey * 0.25 + 40) == pytest.approx(sharpness(grey), abs=1e-4)
    assert sharpness(np.full((40, 40), 9, np.float32)) == 0.0


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0])
def test_noise_recovers_a_known_sigma(sigma: float) -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 180, 300, dtype=np.float32)[None].repeat(200, 0)
    assert noise_sigma(ramp) == pytest.approx(0.0, abs=0.01)
    noisy = ramp + rng.normal(0, sigma, ramp.shape).astype(np.float32)
    assert noise_sigma(noisy) == pytest.approx(sigma, rel=0.05)


def test_flatness_is_the_share_of_blocks_without_texture() -> None:
    grey = np.full((64, 80), 100, np.float32)
    grey[:, :40] += np.random.default_rng(1).normal(0, 20, (64, 40))
    assert flatness(grey) == pytest.approx(0.5)


def test_colours_are_counted_and_stray_pixels_are_not() -> None:
    pixels = np.zeros((200, 200, 3), np.uint8)
    for i in range(16):
        pixels[:, i * 12 : (i + 1) * 12] = (i * 16 + 3, 128, 255 - i * 16)
    assert colour_count(pixels) == 17  # sixteen stripes and the black rest
    pixels[0, 0] = (7, 250, 7)
    assert colour_count(pixels) == 17  # one pixel of 40,000 is under one in 10,000


def test_temperature_and_exposure_have_the_sign_of_the_light() -> None:
    warm = np.full((20, 20, 3), (200, 150, 100), np.uint8)
    assert colour_temperature(warm) == pytest.approx(1 / 3)
    assert colour_temperature(warm[..., ::-1].copy()) == pytest.approx(-1 / 3)
    row = QualityScorer().score([View("x", np.full((20, 20, 3), 51, np.uint8))])[0]
    assert row["exposure"] == pytest.approx(0.2, abs=1e-6) and row["contrast"] == 0.0
    assert set(row) == set(QualityScorer.columns)


def test_sharpness_is_that_of_the_main_person() -> None:
    pixels = photo("astronaut.png")
    soft = cv2.GaussianBlur(pixels, (0, 0), 4)
    soft[100:300, 150:350] = pixels[100:300, 150:350]
    scorer = QualityScorer()
    whole, person = (
        scorer.score([View("x", soft, boxes=boxes)])[0]["sharpness"] for boxes in ((), ((150, 100, 350, 300),))
    )
    assert person == pytest.approx(sharpness(luminance(pixels[100:300, 150:350])))
    assert person > whole + 0.1
