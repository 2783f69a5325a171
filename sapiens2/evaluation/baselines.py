"""What can be said without learning: the mean of the training labels, and the labels of the likest training picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sapiens2.evaluation.measure import Answer
from sapiens2.tasks.pointmap_scale import canonical_scale
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import parts

Array = np.ndarray


def mean_map(task: str, samples: Sequence[Sample]) -> Answer:
    """The constant answer of training samples, all of one size.

    pose: mean place of each keypoint where labelled; segmentation: most frequent class of each pixel; others: mean over
    the samples whose person covers the pixel (canonical for pointmap), and the overall mean where none does.
    """
    if task == "pose":
        xy = np.stack([np.asarray(s.keypoints) for s in samples])
        known = np.stack([np.asarray(s.labelled) for s in samples])[..., None]
        count = known.sum(0)
        anywhere = (xy * known).sum((0, 1)) / max(int(known.sum()), 1)
        mean = np.where(count > 0, (xy * known).sum(0) / np.maximum(count, 1), anywhere)
        return {"keypoints": mean.astype(np.float32), "scores": np.ones(len(mean), np.float32)}
    if task == "segmentation":
        masks = np.stack([np.asarray(s.mask) for s in samples])
        votes = np.stack([(masks == c).sum(0) for c in range(len(parts()))])
        return {"labels": votes.argmax(0).astype(np.uint8)}
    field = {"normal": "normals", "pointmap": "points", "albedo": "albedo"}[task]
    total: Array | float = 0.0
    covered: Array | float = 0.0
    for sample in samples:
        values, valid = getattr(sample, field).astype(np.float64), np.asarray(sample.valid)[..., None]
        if task == "pointmap":
            values = values * float(canonical_scale(torch.from_numpy(sample.intrinsics)[None], valid.shape[1]))
        total, covered = total + values * valid, covered + valid
    overall = np.asarray(total).sum((0, 1)) / np.maximum(np.asarray(covered).sum(), 1)
    return {"map": np.where(covered > 0, total / np.maximum(covered, 1), overall).astype(np.float32)}


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
        values = values * float(canonical_scale(torch.from_numpy(sample.intrinsics)[None], values.shape[1]))
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
