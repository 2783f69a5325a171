"""From predictions and labels of one task to metrics that can be resampled by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from sapiens2.evaluation import metrics as m
from sapiens2.evaluation.bootstrap import Statistic
from sapiens2.evaluation.medians import Medians
from sapiens2.evaluation.oks import Detections, Matches, People, average_precision, instance_scores, match_image
from sapiens2.tasks.pointmap_scale import canonical_scale
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import GROUPS, keypoints, parts

Array = np.ndarray
Answer = dict[str, Array]
"""One image's prediction: keypoints [308, 2] and scores [308], labels [H, W], or a map [H, W, 3] under `map`."""
PCK_SHARES = (0.05, 0.1)
MAIN = {
    "pose": ("PCK@0.1 body", True),
    "segmentation": ("mIoU", True),
    "normal": ("mean_deg", False),
    "pointmap": ("l2_scaled", False),
    "albedo": ("mae", False),
}
"""Each task's headline metric, and whether more is better."""


def tight_box(sample: Sample) -> Array:
    """x0, y0, x1, y1 around the labelled keypoints."""
    assert sample.keypoints is not None and sample.labelled is not None
    points = sample.keypoints[sample.labelled]
    return np.concatenate([points.min(0), points.max(0)]) if len(points) else np.zeros(4, np.float32)


class Tally(Protocol):
    """The metrics of one task over images that come one at a time and are not kept."""

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""

    def statistic(self) -> Statistic:
        """Every metric of the task over chosen images, in the order in which they were added."""


class PoseTally:
    """AP and AR of all 308 and of each group, PCK at 5 and 10 % of the box diagonal for body points and for all.

    Of all 308 also by size: medium people cover 32^2 to 96^2 square pixels, large ones more.
    """

    def __init__(self) -> None:
        words = keypoints()
        self.sigmas = words.sigmas
        self.groups = {"all": np.arange(len(words))} | {name: words.group(name) for name in GROUPS[:-1]}
        self.matches: dict[str, list[Matches]] = {name: [] for name in (*self.groups, "medium", "large")}
        self.hits: dict[str, list[tuple[int, int]]] = {}

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""
        xy, labelled, box = _need(sample.keypoints), _need(sample.labelled), tight_box(sample)
        area = max(float((box[2:] - box[:2]).prod()), 1.0)
        for name, ids in self.groups.items():
            people = People(xy[None, ids], labelled[None, ids], np.array([area]), box[None])
            found = Detections(answer["keypoints"][None, ids], instance_scores(answer["scores"][None, ids]))
            for size in ("all", "medium", "large") if name == "all" else ("all",):
                kept = name if size == "all" else size
                self.matches[kept].append(match_image(people, found, self.sigmas[ids], size))
        diagonal = float(np.linalg.norm(box[2:] - box[:2]))
        for share in PCK_SHARES:
            for name in ("body", "all"):
                ids = self.groups[name]
                got = m.pck_hits(answer["keypoints"][ids], xy[ids], labelled[ids], diagonal, share)
                self.hits.setdefault(f"PCK@{share:g} {name}", []).append(got)

    def statistic(self) -> Statistic:
        """Every metric over chosen images."""
        counts = {name: np.array(values) for name, values in self.hits.items()}

        def metrics(index: Array) -> dict[str, float]:
            out = {}
            for name, values in counts.items():
                right, total = values[index].sum(0)
                out[name] = right / total if total else float("nan")
            for name, matches in self.matches.items():
                found = average_precision([matches[i] for i in index])
                out |= found if name == "all" else {f"{key} {name}": found[key] for key in ("AP", "AR")}
            return out

        return metrics


class SegmentationTally:
    """Both conventions of mIoU, mean recall, pixel accuracy."""

    def __init__(self) -> None:
        self.counts: list[Array] = []

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""
        self.counts.append(m.confusion(answer["labels"], _need(sample.mask), len(parts())))

    def statistic(self) -> Statistic:
        """Every metric over chosen images."""
        counts = np.stack(self.counts)
        return lambda index: m.pool_segmentation(counts[index].sum(0))


class NormalTally:
    """Angles over the person's pixels. The median over all images is exact; of resamples, to 1/64 degree."""

    def __init__(self) -> None:
        self.sums: list[Array] = []
        self.medians = Medians(180.0)

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""
        angles = m.angles_deg(answer["map"], _need(sample.normals), _need(sample.valid))
        self.sums.append(m.angle_sums(angles))
        self.medians.add(angles)

    def statistic(self) -> Statistic:
        """Every metric over chosen images."""
        sums, exact = np.stack(self.sums), self.medians.exact()
        everything = np.arange(len(sums))

        def metrics(index: Array) -> dict[str, float]:
            median = exact if np.array_equal(index, everything) else self.medians.near(index)
            found = m.pool_angles(sums[index])
            return {"mean_deg": found["mean_deg"], "median_deg": median, **found}

        return metrics


class PointmapTally:
    """Errors in canonical units, as predicted and after the best scale of each image (`_scaled`); surface angles."""

    def __init__(self) -> None:
        self.plain: list[Array] = []
        self.scaled: list[Array] = []
        self.angles: list[Array] = []

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""
        valid, points = _need(sample.valid), _need(sample.points)
        predicted, truth = answer["map"][valid].astype(np.float64), points[valid].astype(np.float64)
        truth = truth * canonical_per_metre(sample)
        self.plain.append(m.point_sums(m.point_errors(predicted, truth)))
        self.scaled.append(m.point_sums(m.point_errors(predicted * m.best_scale(predicted, truth), truth)))
        self.angles.append(m.angle_sums(m.surface_angles_deg(answer["map"], points, valid)))

    def statistic(self) -> Statistic:
        """Every metric over chosen images."""
        plain, scaled, angles = (np.stack(each) for each in (self.plain, self.scaled, self.angles))

        def metrics(index: Array) -> dict[str, float]:
            out = m.pool_points(plain[index])
            out |= {f"{name}_scaled": value for name, value in m.pool_points(scaled[index]).items()}
            return out | {f"surface_{name}": value for name, value in m.pool_angles(angles[index]).items()}

        return metrics


class AlbedoTally:
    """MAE, RMSE, PSNR, SSIM, gradient error over the person's pixels."""

    def __init__(self) -> None:
        self.sums: list[Array] = []

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""
        self.sums.append(m.albedo_sums(answer["map"], _need(sample.albedo), _need(sample.valid)))

    def statistic(self) -> Statistic:
        """Every metric over chosen images."""
        sums = np.stack(self.sums)
        return lambda index: m.pool_albedo(sums[index])


def canonical_per_metre(sample: Sample) -> float:
    """The scale of a sample's canonical points: image width over focal length."""
    import torch

    return float(canonical_scale(torch.from_numpy(_need(sample.intrinsics))[None], sample.image.shape[1]))


def _need(array: Array | None) -> Array:
    assert array is not None
    return array


TALLIES: dict[str, Callable[[], Tally]] = {
    "pose": PoseTally,
    "segmentation": SegmentationTally,
    "normal": NormalTally,
    "pointmap": PointmapTally,
    "albedo": AlbedoTally,
}


def statistic_of(task: str, answers: Iterable[Answer], samples: Iterable[Sample]) -> Statistic:
    """Every metric of a task; answers and samples are taken one at a time."""
    tally = TALLIES[task]()
    for answer, sample in zip(answers, samples, strict=True):
        tally.add(answer, sample)
    return tally.statistic()
