"""Crops, resampling and colour changes against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from sapiens2.pretrain import photometric
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.photometric import augment, draw
from sapiens2.pretrain.recipes import demo
from sapiens2.pretrain.views import Crop, draw_crops, render, sample

CONFIG = demo()
NEUTRAL = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(480, 360), (300, 900), (2000, 100), (20, 20)])
def test_crops_lie_inside_and_have_the_asked_area(size: tuple[int, int]) -> None:
    h, w = size
    for seed in range(200):
        crops = draw_crops(np.random.default_rng(seed), h, w, CONFIG)
        assert len(crops) == 6
        for number, crop in enumerate(crops):
            assert crop.x >= 0 and crop.y >= 0
            assert crop.x + crop.width <= w + 1e-6 and crop.y + crop.height <= h + 1e-6
            low, high = CONFIG.global_area if number < 2 else CONFIG.local_area
            share, ratio = crop.width * crop.height / (h * w), crop.width / crop.height / 0.75
            if size == (480, 360):  # of the views' own aspect, so that no draw fails for long
                assert low - 1e-9 <= share <= high + 1e-9
            assert 3 / 4 - 1e-9 <= ratio <= 4 / 3 + 1e-9


def test_areas_fill_their_range_and_half_the_views_are_mirrored() -> None:
    crops = [c for seed in range(400) for c in draw_crops(np.random.default_rng(seed), 480, 360, CONFIG)[2:]]
    share = np.array([c.width * c.height for c in crops]) / (480 * 360)
    assert np.quantile(share, [0.02, 0.5, 0.98]) == pytest.approx([0.21, 0.45, 0.69], abs=0.02)
    assert np.mean([c.mirrored for c in crops]) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("size", "mirrored"), [((15, 10), True), ((23, 31), False), ((90, 70), True)])
def test_views_are_resampled_as_by_pillow_and_mirrored(size: tuple[int, int], mirrored: bool) -> None:
    """Shrunk, shrunk unevenly, and enlarged; the filter widens where it shrinks."""
    source = picture(80, 60)
    view = render(source, Crop(20, 10, 40, 60, mirrored), size)
    region = Image.fromarray(source[10:70, 20:60])
    expected = np.asarray(region.resize(size[::-1], Image.Resampling.BICUBIC))[:, :: -1 if mirrored else 1]
    assert view.dtype == np.uint8 and view.flags.c_contiguous
    apart = np.abs(view.astype(int) - expected)  # coefficients of 15 bits, on white noise
    assert apart.max() <= 4 and apart.mean() < 0.3


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    # A box of 5.7 pixels misses the balance by one stripe at most, 255 / 5.7; picking pixels would give 255.
    assert np.ptp(render(stripes, Crop(0, 0, 396, 400, False), (70, 70)).astype(int)) < 46


def test_a_sample_is_keyed_and_complete() -> None:
    source = picture(300, 200)
    one, same, other = (sample(source, CONFIG, index) for index in (3, 3, 4))
    assert {name: (a.dtype.name, a.shape) for name, a in one.items()} == {
        "globals": ("uint8", (2, 128, 96, 3)),
        "locals": ("uint8", (4, 64, 48, 3)),
        "kept": ("int64", (2, 12)),
        "photometric": ("float32", (4, 7)),
        "upsampling": ("float32", (6,)),
    }
    for name in one:
        assert np.array_equal(one[name], same[name]), name
        assert not np.array_equal(one[name], other[name]), name
    assert not np.array_equal(one["globals"][0], one["globals"][1])
    seeded = CONFIG.model_copy(update={"engine": CONFIG.engine.model_copy(update={"seed": 1})})
    assert not np.array_equal(sample(source, seeded, 3)["globals"], one["globals"])


def test_upsampling_counts_view_pixels_per_source_pixel() -> None:
    config = PretrainConfig(**{**CONFIG.model_dump(), "global_area": (1.0, 1.0), "aspect_jitter": (1.0, 1.0)})
    assert sample(picture(64, 48), config, 0)["upsampling"][:2] == pytest.approx([2.0, 2.0])


def test_a_config_without_local_views_gives_empty_ones() -> None:
    config = CONFIG.model_copy(update={"local_views": 0})
    out = sample(picture(100, 80), config, 0)
    assert out["locals"].shape == (0, 64, 48, 3)
    assert out["photometric"].shape == (0, 7)


def change(images: np.ndarray, **settings: float) -> np.ndarray:
    names = ["brightness", "contrast", "saturation", "hue", "grey", "sigma", "solarise"]
    values = [settings.get(name, neutral) for name, neutral in zip(names, NEUTRAL)]
    return augment(torch.from_numpy(images), torch.tensor([values] * len(images))).numpy()


def test_neutral_parameters_change_nothing() -> None:
    images = picture(16, 12)[None]
    np.testing.assert_allclose(change(images), images, atol=2e-3)


def test_each_change_does_what_its_name_says() -> None:
    images = picture(24, 20)[None]
    luma = images @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(change(images, brightness=1.3), np.clip(images * 1.3, 0, 255), atol=1e-2)
    np.testing.assert_allclose(change(images, contrast=0.6), luma.mean() + 0.6 * (images - luma.mean()), atol=1e-2)
    np.testing.assert_allclose(
        change(images, saturation=0.5), luma[..., None] + 0.5 * (images - luma[..., None]), atol=1e-2
    )
    np.testing.assert_allclose(change(images, grey=1), np.repeat(luma[..., None], 3, -1), atol=1e-2)
    np.testing.assert_allclose(change(images, solarise=1), np.where(images >= 128, 255 - images, images), atol=1e-2)


def test_hue_turns_colours_and_keeps_luma() -> None:
    images = (picture(8, 8)[None] // 2 + 64).astype(np.uint8)  # away from the limits
    turned = change(images, hue=0.4)
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(turned @ luma, images @ luma, atol=0.05)
    assert np.abs(turned - images).mean() > 3
    grey = np.full((1, 8, 8, 3), 90, np.uint8)
    np.testing.assert_allclose(change(grey, hue=0.4), grey, atol=0.1)
    np.testing.assert_allclose(change(images, hue=2 * np.pi), images, atol=0.05)


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_blur_is_gaussian(sigma: float) -> None:
    images = picture(32, 24)[None]
    expected = gaussian_filter(images[0].astype(float), (sigma, sigma, 0), mode="mirror", radius=6)
    np.testing.assert_allclose(change(images, sigma=sigma)[0], expected, atol=1e-2)


def test_images_of_a_batch_are_changed_apart() -> None:
    images = np.stack([picture(16, 16, seed) for seed in range(4)])
    parameters = torch.from_numpy(draw(np.random.default_rng(3), 4))
    together = augment(torch.from_numpy(images), parameters)
    alone = [augment(torch.from_numpy(images[i : i + 1]), parameters[i : i + 1])[0] for i in range(4)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-2)


def test_parameters_have_the_stated_shares_and_ranges() -> None:
    p = draw(np.random.default_rng(0), 20000)
    jittered = p[:, 0] != 1
    assert jittered.mean() == pytest.approx(0.8, abs=0.01)
    assert (p[:, 4] > 0).mean() == pytest.approx(0.2, abs=0.01)
    assert (p[:, 5] > 0).mean() == pytest.approx(0.5, abs=0.012)
    assert (p[:, 6] > 0).mean() == pytest.approx(0.2, abs=0.01)
    assert p[jittered, 0].min() == pytest.approx(0.6, abs=0.01) and p[jittered, 0].max() == pytest.approx(1.4, abs=0.01)
    assert np.abs(p[:, 3]).max() == pytest.approx(0.2 * np.pi, abs=0.01)
    assert p[p[:, 5] > 0, 5].min() >= 0.1 and p[:, 5].max() <= 2.0
    assert photometric.BLUR_RADIUS >= 3 * 2.0  # three deviations of the widest blur
