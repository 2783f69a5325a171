"""Augmentation carried out: what is drawn is a function of a generator; all geometry is one resampling.

A change of the frame is an affine map of the frame's own pixels, made after the one that frames the picture. Draws come
in the order of the table, one of the probability first, then the transform's own, so that a sample depends on the seed
and its position alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sapiens2.tasks import augmentation as a
from sapiens2.tasks.affine import apply, compose, region_matrix, turn, warp
from sapiens2.tasks.sample import Sample, flip
from sapiens2.tasks.vocabulary import IGNORE, keypoints

Array = np.ndarray
Size = tuple[int, int]
UNCHANGED = np.array([[1.0, 0, 0], [0, 1, 0]])
NEUTRAL = np.array([0.0, 1.0, 1.0, 0.0], np.float32)
_UPPER_PARTS = ("nose", "eye", "ear", "shoulder", "elbow", "wrist")
LEAST_UPPER, LEAST_LOWER = 2, 3


def augmented(
    sample: Sample,
    frame: Array | None,
    size: Size,
    transforms: Mapping[str, a.Transform],
    rng: np.random.Generator,
    *,
    stretch: bool = False,
) -> tuple[Sample, Array]:
    """A sample on a canvas of `size` (height, width), changed; and the change of colours that is left to the device.

    frame: the affine map [2, 3] of the picture's pixels to the canvas; None for a sample that is there already.
    stretch: a crop fills the canvas whatever its shape. The change of colours is that of `photometric`, float32 [4].
    """
    colours, own = NEUTRAL, UNCHANGED
    mirrored, pixels = False, []
    for name, transform in transforms.items():
        if name == "background":  # done before, on the whole picture, see sapiens2.tasks.source
            continue
        if not rng.random() < transform.p:
            continue
        if name == "flip":
            mirrored = True
        elif name == "photometric":
            colours = draw_photometric(rng, transform)  # type: ignore[arg-type]
        elif name in PIXELS:
            pixels.append((name, transform, int(rng.integers(2**32))))
        else:
            seen = _seen(sample, frame, own)
            step = FRAMES[name](transform, seen, size, rng, stretch)
            own = own if step is None else compose(step, own)
    whole = own if frame is None else compose(own, frame)
    if frame is not None or own is not UNCHANGED:
        sample = warp(sample, whole, size)
    sample = flip(sample) if mirrored else sample
    for name, transform, seed in pixels:
        changed = PIXELS[name](sample.image, transform, np.random.default_rng(seed))
        sample = replace(sample, image=np.ascontiguousarray(changed, np.uint8))
    return sample, colours


def draw_photometric(rng: np.random.Generator, how: a.Photometric) -> Array:
    """Brightness offset (0..255 scale), contrast, saturation and hue shift (radians), each with probability 1/2."""
    around = ((0.0, how.brightness), (1.0, how.contrast), (1.0, how.saturation), (0.0, how.hue))
    drawn = np.array([rng.uniform(middle - reach, middle + reach) for middle, reach in around], np.float32)
    return np.where(rng.random(4) < 0.5, drawn, NEUTRAL).astype(np.float32)


# --- the frame -------------------------------------------------------------------------------------------------------


class _Seen:
    """What a change of the frame may look at: labelled points on the canvas, and the mask there."""

    def __init__(self, sample: Sample, matrix: Array) -> None:
        self._sample, self._matrix = sample, matrix

    def points(self) -> tuple[Array, Array]:
        """Places [308, 2] on the canvas and which are labelled [308]."""
        assert self._sample.keypoints is not None and self._sample.labelled is not None
        return apply(self._matrix, self._sample.keypoints.astype(np.float64)), self._sample.labelled

    def largest_class(self, step: Array, size: Size) -> float:
        """The largest share of a class among the known pixels of a quarter-size canvas after `step`."""
        if self._sample.mask is None:
            return 0.0
        small = (max(2, size[0] // 4), max(2, size[1] // 4))
        shrink = region_matrix(np.array([0, 0, size[1] - 1, size[0] - 1]), small)
        matrix = compose(shrink, compose(step, self._matrix))
        mask = warp(Sample(self._sample.image[..., :1].repeat(3, -1), mask=self._sample.mask), matrix, small).mask
        assert mask is not None
        counts = np.bincount(mask.ravel(), minlength=IGNORE + 1)[:IGNORE]
        return float(counts.max() / max(1, counts.sum()))


def _seen(sample: Sample, frame: Array | None, own: Array) -> _Seen:
    return _Seen(sample, own if frame is None else compose(own, frame))


def _about_middle(factor: float, size: Size) -> Array:
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    return np.array([[factor, 0, x - factor * x], [0, factor, y - factor * y]])


def _drawn(law: str, rng: np.random.Generator) -> float:
    """In [-1, 1]: uniform, or normal of sigma 1 and cut there."""
    if law == "uniform":
        return float(rng.uniform(-1, 1))
    while abs(value := float(rng.normal())) > 1:
        pass
    return value


def _scale(how: a.Scale, seen: _Seen, size: Size, rng: np.random.Generator, stretch: bool) -> Array:
    low, high = how.factor
    sides = low + (high - low) * (_drawn(how.law, rng) + 1) / 2
    return _about_middle(1 / sides, size)


def _shift(how: a.Shift, seen: _Seen, size: Size, rng: np.random.Generator, stretch: bool) -> Array:
    x, y = (how.share * side * _drawn("normal", rng) for side in (size[1], size[0]))
    return np.array([[1.0, 0, x], [0, 1, y]])


def _rotate(how: a.Rotate, seen: _Seen, size: Size, rng: np.random.Generator, stretch: bool) -> Array:
    return turn(how.degrees * _drawn(how.law, rng), ((size[1] - 1) / 2, (size[0] - 1) / 2))


def _crop(how: a.Crop, seen: _Seen, size: Size, rng: np.random.Generator, stretch: bool) -> Array:
    step = _one_crop(how, size, rng, stretch)
    for _ in range(how.tries - 1 if how.largest_class < 1 else 0):
        if seen.largest_class(step, size) <= how.largest_class:
            break
        step = _one_crop(how, size, rng, stretch)
    return step


def _one_crop(how: a.Crop, size: Size, rng: np.random.Generator, stretch: bool) -> Array:
    """Parts that would be wider or higher than the frame are cut to it; without `stretch` margins are left."""
    area, aspect = rng.uniform(*how.area), np.exp(rng.uniform(*np.log(how.aspect)))
    w, h = (min(1.0, float(np.sqrt(area * ratio))) for ratio in (aspect, 1 / aspect))
    x0, y0 = (rng.uniform(0, 1 - side) * (n - 1) for side, n in ((w, size[1]), (h, size[0])))
    x1, y1 = x0 + w * (size[1] - 1), y0 + h * (size[0] - 1)
    if not stretch:
        cx, cy, side = (x0 + x1) / 2, (y0 + y1) / 2, max(w, h) / 2
        x0, x1 = cx - side * (size[1] - 1), cx + side * (size[1] - 1)
        y0, y1 = cy - side * (size[0] - 1), cy + side * (size[0] - 1)
    return region_matrix(np.array([x0, y0, x1, y1]), size)


def _half_body(how: a.HalfBody, seen: _Seen, size: Size, rng: np.random.Generator, stretch: bool) -> Array | None:
    from sapiens2.tasks.regions import person_region

    xy, labelled = seen.points()
    body = keypoints().group("body")
    upper = np.array([keypoints().names[k].endswith(_UPPER_PARTS) for k in body])
    halves = [body[half & labelled[body]] for half in (upper, ~upper)]
    if sum(map(len, halves)) < how.least:
        return None
    possible = [len(halves[0]) >= LEAST_UPPER, len(halves[1]) >= LEAST_LOWER]
    if not any(possible):
        return None
    which = int(rng.random() >= how.upper) if all(possible) else possible.index(True)
    points = xy[halves[which]]
    box = np.concatenate([points.min(0), points.max(0)])
    return region_matrix(person_region(box, (size[1] - 1) / (size[0] - 1), how.padding), size)


Frame = Callable[[Any, _Seen, Size, np.random.Generator, bool], "Array | None"]
FRAMES: dict[str, Frame] = {
    "half_body": _half_body,
    "scale": _scale,
    "shift": _shift,
    "rotate": _rotate,
    "crop": _crop,
}


# --- the picture -----------------------------------------------------------------------------------------------------


def _resample(image: Array, how: a.Resample, rng: np.random.Generator) -> Array:
    import cv2

    factor = rng.uniform(*how.factor)
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    back = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(3))]
    return np.asarray(cv2.resize(small, (width, height), interpolation=back))


def _blur(image: Array, how: a.Blur, rng: np.random.Generator) -> Array:
    import cv2

    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(*how.sigma)))


def _median_blur(image: Array, how: a.MedianBlur, rng: np.random.Generator) -> Array:
    import cv2

    return np.asarray(cv2.medianBlur(image, how.side | 1))


def _noise(image: Array, how: a.Noise, rng: np.random.Generator) -> Array:
    sigma = np.sqrt(rng.uniform(*how.variance))
    return (image + rng.normal(0, sigma, image.shape) + 0.5).clip(0, 255)


def _solarize(image: Array, how: a.Solarize, rng: np.random.Generator) -> Array:
    return np.where(image >= how.threshold, 255 - image, image)


def _dropout(image: Array, how: a.Dropout, rng: np.random.Generator) -> Array:
    height, width = image.shape[:2]
    h, w = (round(side * rng.uniform(*how.side)) for side in (height, width))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    out = image.copy()
    out[y : y + h, x : x + w] = 0
    return out


PIXELS: dict[str, Callable[[Array, Any, np.random.Generator], Array]] = {
    "resample": _resample,
    "blur": _blur,
    "median_blur": _median_blur,
    "noise": _noise,
    "solarize": _solarize,
    "dropout": _dropout,
}
