"""Whether a training sample still shows enough to learn from once its frame was moved [specification 4]."""

from __future__ import annotations

import numpy as np

from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import IGNORE

TRIES = 10
"""Frames that are drawn before the picture is shown in its own."""
LEAST_FOREGROUND, LEAST_PIXELS, MOST_COVERED, NEAREST = 0.01, 16, 0.96, 0.04
"""Shares of the pixels, pixels, and the depth of canonical points."""


def usable(task: str, sample: Sample) -> bool:
    """The published limits: 1 % of parts for segmentation; for normals and points 16 pixels, and no more than 96 %.

    Points must also be no nearer than 0.04 canonical units. Pose and albedo have no limit.
    """
    if task == "segmentation":
        assert sample.mask is not None
        return float(((sample.mask != 0) & (sample.mask != IGNORE)).mean()) >= LEAST_FOREGROUND
    if task not in ("normal", "pointmap"):
        return True
    assert sample.valid is not None
    if sample.valid.sum() < LEAST_PIXELS or sample.valid.mean() > MOST_COVERED:
        return False
    return task == "normal" or nearest(sample) >= NEAREST


def nearest(sample: Sample) -> float:
    """The least depth of a sample's valid points in canonical units: metres times image width over focal length."""
    assert sample.points is not None and sample.valid is not None and sample.intrinsics is not None
    depth = sample.points[..., 2][sample.valid].min()
    return float(depth * sample.valid.shape[1] / np.float64(sample.intrinsics[0, 0]))
