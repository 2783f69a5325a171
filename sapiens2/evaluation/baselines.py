"""What can be said without learning: the mean of the training labels, the picture itself as albedo, retrieval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sapiens2.evaluation.measure import Answer, canonical_per_metre
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import parts

Array = np.ndarray


def mean_map(task: str, samples: Iterable[Sample]) -> Answer:
    """The constant answer of training samples, all of one size, taken one at a time.

    pose: mean place of each keypoint where labelled; segmentation: most frequent class of each pixel; others: mean over
    the samples whose person covers the pixel (canonical for pointmap), and the overall mean where none does.
    """
    total: Array | float = 0.0
    count: Array | float = 0.0
    for sample in samples:
        values, known = _mean_parts(task, sample)
        total, count = total + np.where(known > 0, values, 0), count + known
    total, count = np.asarray(total), np.asarray(count)
    if task == "segmentation":
        return {"labels": total.argmax(0).astype(np.uint8)}
    axes = tuple(range(total.ndim - 1))
    anywhere = total.sum(axes) / np.maximum(count.sum(), 1)
    mean = np.where(count > 0, total / np.maximum(count, 1), anywhere).astype(np.float32)
    return {"keypoints": mean, "scores": np.ones(len(mean), np.float32)} if task == "pose" else {"map": mean}


def _mean_parts(task: str, sample: Sample) -> tuple[Array, Array]:
    """What a sample adds to the sum, and 1 where it is known: [308, 2], votes [29, H, W] or a map [H, W, 3]."""
    if task == "pose":
        return np.asarray(sample.keypoints, np.float64), np.asarray(sample.labelled, float)[:, None]
    if task == "segmentation":
        votes = np.asarray(sample.mask)[None] == np.arange(len(parts()))[:, None, None]
        return votes.astype(np.int32), np.ones(1, np.int32)
    field = {"normal": "normals", "pointmap": "points", "albedo": "albedo"}[task]
    values = getattr(sample, field).astype(np.float64)
    if task == "pointmap":
        values = values * canonical_per_metre(sample)
    return values, np.asarray(sample.valid, float)[..., None]


def picture_answer(task: str, sample: Sample) -> Answer | None:
    """A sample's own picture as its albedo: what can be said without learning of it; None for other tasks."""
    return {"map": sample.image.astype(np.float32) / 255} if task == "albedo" else None


def label_answer(task: str, sample: Sample) -> Answer:
    """A sample's own labels as an answer: what a copy of it says."""
    if task == "pose":
        assert sample.keypoints is not None
        return {"keypoints": sample.keypoints, "scores": np.ones(len(sample.keypoints), np.float32)}
    if task == "segmentation":
        assert sample.mask is not None
        return {"labels": sample.mask}
    values = np.asarray(getattr(sample, {"normal": "normals", "pointmap": "points", "albedo": "albedo"}[task]))
    if task == "pointmap":
        values = values * canonical_per_metre(sample)
    return {"map": values.astype(np.float32)}


def thumbnails(samples: Sequence[Sample], cell: int = 8) -> Array:
    """Each picture as the mean colours of its cells, about its own mean: float32 [N, D], what retrieval compares."""
    import cv2

    rows = []
    for sample in samples:
        height, width = sample.image.shape[:2]
        small = cv2.resize(sample.image, (width // cell, height // cell), interpolation=cv2.INTER_AREA)
        rows.append(small.astype(np.float32).ravel() / 255)
    found = np.stack(rows)
    return found - found.mean(1, keepdims=True)


def retrieved(queries: Array, known: Array) -> Array:
    """Index [M] of the nearest row of `known` [N, D] to each of `queries` [M, D]."""
    distance = (known**2).sum(1)[None] - 2 * queries @ known.T
    return np.asarray(distance.argmin(1))
