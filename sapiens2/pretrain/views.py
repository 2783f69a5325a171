"""The views of one picture: two global and some local crops, resampled on the host as uint8.

Crops are drawn from the whole picture, no prior about people but the data, or from around one person
(person_crops.py). Global views are not recoloured, as the reconstruction needs their true colours; local views are, on
the device (photometric.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.keyed import Stream, generator
from sapiens2.pretrain.masks import kept_tokens
from sapiens2.pretrain.person_crops import WHOLE, Region
from sapiens2.pretrain.photometric import draw

Picture = NDArray[np.uint8]
GLOBAL_VIEWS = 2
TRIES = 10


@dataclass(frozen=True)
class Crop:
    """A rectangle in pixels of the source picture, and whether the view is mirrored."""

    x: float
    y: float
    width: float
    height: float
    mirrored: bool


def sample(
    picture: Picture, config: PretrainConfig, index: int, region: Region = WHOLE
) -> dict[str, NDArray[np.generic]]:
    """Everything that the objective needs of one picture [H, W, 3], keyed by (seed, sample index).

    All views are drawn from `region`.

    globals uint8 [2, H, W, 3], locals uint8 [V, h, w, 3], kept int64 [2, kept tokens], photometric float32 [V, 7],
    upsampling float32 [2 + V]: view pixels per source pixel, above 1 where detail was invented; and where local views
    are reconstructed, kept_local int64 [V, kept tokens].
    """
    seed = config.engine.seed
    height, width = picture.shape[:2]
    left, top = region.x0 * width, region.y0 * height
    size_of_region = max(1.0, region.y1 * height - top), max(1.0, region.x1 * width - left)
    crops = draw_crops(generator(seed, Stream.VIEWS, index), *size_of_region, config)
    crops = [replace(crop, x=crop.x + left, y=crop.y + top) for crop in crops]
    sizes = [config.image_size] * GLOBAL_VIEWS + [config.local_size] * config.local_views
    views = [render(picture, crop, size) for crop, size in zip(crops, sizes)]
    masks = generator(seed, Stream.MASKS, index)
    kept = [kept_tokens(masks, config.grid, config.masked, config.block_share) for _ in range(GLOBAL_VIEWS)]
    local_masks = {}
    if config.local_masked and config.local_views:
        grid, hidden = config.local_grid, config.local_masked
        kept_local = [kept_tokens(masks, grid, hidden, config.block_share) for _ in range(config.local_views)]
        local_masks["kept_local"] = np.stack(kept_local)
    return {
        **local_masks,
        "globals": np.stack(views[:GLOBAL_VIEWS]),
        "locals": np.array(views[GLOBAL_VIEWS:], np.uint8).reshape(config.local_views, *config.local_size, 3),
        "kept": np.stack(kept),
        "photometric": draw(generator(seed, Stream.PHOTOMETRIC, index), config.local_views),
        "upsampling": np.array([size[1] / crop.width for crop, size in zip(crops, sizes)], np.float32),
    }


def draw_crops(rng: np.random.Generator, height: float, width: float, config: PretrainConfig) -> list[Crop]:
    """The crops of the global views, then of the local ones, in a region of height x width pixels."""
    views = [(config.global_area, config.image_size)] * GLOBAL_VIEWS
    views += [(config.local_area, config.local_size)] * config.local_views
    return [draw_crop(rng, height, width, area, size, config) for area, size in views]


def draw_crop(
    rng: np.random.Generator,
    height: float,
    width: float,
    area: tuple[float, float],
    size: tuple[int, int],
    config: PretrainConfig,
) -> Crop:
    """A crop with a uniform share of the area and a log-uniform aspect around the view's own.

    A picture too slender for ten draws is cropped to its largest centred rectangle of the view's aspect.
    """
    aspect = size[1] / size[0]
    low, high = (math.log(limit) for limit in config.aspect_jitter)
    mirrored = bool(rng.random() < config.flip)
    for _ in range(TRIES):
        pixels = rng.uniform(*area) * height * width
        ratio = aspect * math.exp(rng.uniform(low, high))
        w, h = math.sqrt(pixels * ratio), math.sqrt(pixels / ratio)
        if w <= width and h <= height:
            return Crop(rng.uniform(0, width - w), rng.uniform(0, height - h), w, h, mirrored)
    w, h = min(width, height * aspect), min(height, width / aspect)
    return Crop((width - w) / 2, (height - h) / 2, w, h, mirrored)


def render(picture: Picture, crop: Crop, size: tuple[int, int]) -> Picture:
    """The crop resampled to size (height, width): bicubic, over a wider support where it shrinks (antialiased).

    The filter is Pillow's. Torch's kernel for interleaved uint8 gives it, but for rounding, in a third of the time that
    OpenCV takes for a box filter (benchmarks/views.py).
    """
    x0, y0 = round(crop.x), round(crop.y)
    x1 = max(x0 + 1, min(picture.shape[1], round(crop.x + crop.width)))
    y1 = max(y0 + 1, min(picture.shape[0], round(crop.y + crop.height)))
    region = torch.from_numpy(picture[y0:y1, x0:x1])[None].permute(0, 3, 1, 2)  # channels last, as the kernel likes it
    view = F.interpolate(region, size=size, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(cv2.flip(view, 1) if crop.mirrored else view, dtype=np.uint8)
