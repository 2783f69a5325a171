"""Each task's headline metric from sums of single images, so that resampling images costs next to nothing.

The numbers are those of sapiens2.evaluation.measure, which computes every metric; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sapiens2.evaluation import metrics as m
from sapiens2.evaluation.measure import MAIN, Answer, canonical_per_metre, tight_box
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import keypoints, parts

Array = np.ndarray
PCK_SHARE = 0.1


@dataclass(frozen=True)
class Headline:
    """The main metric of a task over N images."""

    task: str
    sums: Array  # [N, 2] numerator and denominator; [N, C, C] confusion for segmentation

    def value(self, index: Array) -> float:
        """The metric over the images with these indices [n], which may repeat; NaN when it is undefined."""
        total = self.sums[index].sum(0)
        if self.task == "segmentation":
            return m.pool_segmentation(total)["mIoU"]
        return float(total[0] / total[1]) if total[1] else float("nan")

    def errors(self) -> Array:
        """The error of each image [N], lower is better: 1 - metric where more is better, else the metric."""
        each = np.array([self.value(np.array([i])) for i in range(len(self.sums))])
        return 1 - each if MAIN[self.task][1] else each


def headline(task: str, answers: Iterable[Answer], samples: Iterable[Sample]) -> Headline:
    """Sums of every image; answers and samples are taken one at a time."""
    return Headline(task, np.stack([headline_sums(task, a, s) for a, s in zip(answers, samples, strict=True)]))


def headline_sums(task: str, answer: Answer, sample: Sample) -> Array:
    """The row of one image in the sums of a headline."""
    return np.asarray(_SUMS[task](answer, sample))


def _pose(answer: Answer, sample: Sample) -> Array:
    assert sample.keypoints is not None and sample.labelled is not None
    body, box = keypoints().group("body"), tight_box(sample)
    diagonal = float(np.linalg.norm(box[2:] - box[:2]))
    points = answer["keypoints"][body]
    return np.array(m.pck_hits(points, sample.keypoints[body], sample.labelled[body], diagonal, PCK_SHARE), float)


def _segmentation(answer: Answer, sample: Sample) -> Array:
    assert sample.mask is not None
    return m.confusion(answer["labels"], sample.mask, len(parts()))


def _normal(answer: Answer, sample: Sample) -> Array:
    assert sample.normals is not None and sample.valid is not None
    angles = m.angles_deg(answer["map"], sample.normals, sample.valid)
    return np.array([angles.sum(), len(angles)], float)


def _pointmap(answer: Answer, sample: Sample) -> Array:
    assert sample.points is not None and sample.valid is not None
    predicted = answer["map"][sample.valid].astype(np.float64)
    truth = sample.points[sample.valid].astype(np.float64) * canonical_per_metre(sample)
    errors = m.point_errors(predicted * m.best_scale(predicted, truth), truth)[:, 0]
    return np.array([errors.sum(), len(errors)], float)


def _albedo(answer: Answer, sample: Sample) -> Array:
    assert sample.albedo is not None and sample.valid is not None
    error = np.abs(answer["map"][sample.valid].astype(np.float64) - sample.albedo[sample.valid])
    return np.array([error.sum() / 3, len(error)], float)


_SUMS = {
    "pose": _pose,
    "segmentation": _segmentation,
    "normal": _normal,
    "pointmap": _pointmap,
    "albedo": _albedo,
}
