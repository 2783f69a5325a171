"""The part of a picture that its views are drawn from: all of it, or the surroundings of one person.

The paper knows no prior about people but its data, so the whole picture is the default. Around a person (specification
8.2, 19), the box of a random one is enlarged 1.25 to 2.5 times about its centre and cut at the picture's edges.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sapiens2.data.shards import Row
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.keyed import Stream, generator

ENLARGED = (1.25, 2.5)


class Region(NamedTuple):
    """A part of a picture, as shares of its width (x) and height (y)."""

    x0: float
    y0: float
    x1: float
    y1: float


WHOLE = Region(0.0, 0.0, 1.0, 1.0)


def region_of(row: Row, config: PretrainConfig, index: int) -> Region:
    """Where the views of a sample are drawn from, keyed by (seed, sample index); all of a picture without persons."""
    if not config.person_crops:
        return WHOLE
    rng = generator(config.engine.seed, Stream.PERSON, index)
    chosen, which, times = rng.random(), rng.random(), rng.uniform(*ENLARGED)
    boxes = kept_persons(row, config.person_side)
    if chosen >= config.person_crops or not len(boxes):
        return WHOLE
    return around(boxes[int(which * len(boxes))], times, row)


def narrowest(row: Row, config: PretrainConfig) -> tuple[float, float]:
    """Height and width, pixels, of the smallest region that the views of a row may be drawn from."""
    sizes = [(float(row.height), float(row.width))]
    if config.person_crops:
        for box in kept_persons(row, config.person_side):
            region = around(box, ENLARGED[0], row)
            sizes.append(((region.y1 - region.y0) * row.height, (region.x1 - region.x0) * row.width))
    return min(height for height, _ in sizes), min(width for _, width in sizes)


def kept_persons(row: Row, side: int) -> np.ndarray:
    """Boxes [P, 4] whose short side has `side` pixels or more; without any, the one whose short side is longest."""
    boxes = np.array(row.persons, np.float64).reshape(-1, 4).clip(0, (row.width, row.height) * 2)
    short = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    boxes, short = boxes[short >= 1], short[short >= 1]
    large = boxes[short >= side]
    return large if len(large) or not len(boxes) else boxes[[short.argmax()]]


def around(box: np.ndarray, times: float, row: Row) -> Region:
    """A box [4] in pixels, enlarged about its centre and cut at the picture's edges."""
    centre, half = (box[:2] + box[2:]) / 2, times * (box[2:] - box[:2]) / 2
    low, high = (centre - half) / (row.width, row.height), (centre + half) / (row.width, row.height)
    return Region(*low.clip(0, 1).tolist(), *high.clip(0, 1).tolist())
