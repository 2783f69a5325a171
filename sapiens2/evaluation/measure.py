"""From predictions and labels of one task to metrics that can be resampled by image."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from sapiens2.evaluation import metrics as m
from sapiens2.evaluation.bootstrap import Statistic
from sapiens2.evaluation.medians import Medians
from sapiens2.evaluation.oks import (
    Detections,
    Matches,
    People,
    average_precision,
    instance_scores,
    match_image,
    without_doubles,
)
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
INSTEAD = {"pose": ("PCK@0.1 all",)}
"""What is told where the headline metric was not measured, as of people with a labelled face alone."""


def main_metric(task: str, measured: Mapping[str, float]) -> str:
    """The headline metric of a task; the first of INSTEAD that was measured (not NaN) where it was not."""
    names = (MAIN[task][0], *INSTEAD.get(task, ()))
    return next((name for name in names if math.isfinite(measured.get(name, math.nan))), names[0])


def tight_box(sample: Sample) -> Array:
    """x0, y0, x1, y1 around the labelled keypoints."""
    assert sample.keypoints is not None and sample.labelled is not None
    points = sample.keypoints[sample.labelled]
    return np.concatenate([points.min(0), points.max(0)]) if len(points) else np.zeros(4, np.float32)


class Tally(Protocol):
    """The metrics of one task over images that come one at a time and are not kept."""

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""

    def extend(self, later: Any) -> None:
        """Takes in what another tally of the task has been given, after what this one has."""

    def statistic(self) -> Statistic:
        """Every metric of the task over chosen images, in the order in which they were added."""


def person_area(sample: Sample) -> float:
    """Square pixels of a person for keypoint similarity: the labelled area, else the extent of its keypoints."""
    box = tight_box(sample)
    return sample.area or max(float((box[2:] - box[:2]).prod()), 1.0)


def people_of(samples: Sequence[Sample]) -> People:
    """The annotated people of one picture."""
    xy, labelled = (np.stack([_need(getattr(s, name)) for s in samples]) for name in ("keypoints", "labelled"))
    area = np.array([person_area(sample) for sample in samples])
    boxes = [tight_box(sample) if sample.box is None else sample.box for sample in samples]
    return People(xy, labelled, area, np.stack(boxes))


class PoseTally:
    """AP and AR of all 308 and of each group, PCK at 5 and 10 % of the box diagonal for body points and for all.

    Of all 308 also by size: medium people cover 32^2 to 96^2 square pixels, large ones more. A detection's score is the
    mean of its keypoint scores above 0.2.
    """

    def __init__(self) -> None:
        words = keypoints()
        self.sigmas = words.sigmas
        self.groups = {"all": np.arange(len(words))} | {name: words.group(name) for name in GROUPS[:-1]}
        self.people: list[tuple[People, Detections]] = []
        self.hits: dict[str, list[tuple[int, int]]] = {}

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""
        found = Detections(answer["keypoints"][None], instance_scores(answer["scores"][None]))
        people, box = people_of([sample]), tight_box(sample)
        self.people.append((people, found))
        diagonal = float(np.linalg.norm(box[2:] - box[:2]))
        for share in PCK_SHARES:
            for name in ("body", "all"):
                ids = self.groups[name]
                truth, labelled = people.keypoints[0, ids], people.labelled[0, ids]
                got = m.pck_hits(answer["keypoints"][ids], truth, labelled, diagonal, share)
                self.hits.setdefault(f"PCK@{share:g} {name}", []).append(got)

    def extend(self, later: PoseTally) -> None:
        """Takes in what another one has been given, after what this one has."""
        self.people += later.people
        for name, found in later.hits.items():
            self.hits.setdefault(name, []).extend(found)

    def statistic(self) -> Statistic:
        """Every metric over chosen samples, each of them alone on its picture."""
        return self.by_picture(range(len(self.people)))[0]

    def by_picture(self, on: Sequence[Hashable]) -> tuple[Statistic, int]:
        """Every metric over chosen pictures, and how many there are; `on` says which picture each sample lies on.

        The people of a picture compete for its detections, of which doubles are removed first.
        """
        places = {picture: k for k, picture in enumerate(dict.fromkeys(on))}
        number = np.array([places[picture] for picture in on], int)
        counts = {name: np.zeros((len(places), 2)) for name in self.hits}
        for name, values in self.hits.items():
            np.add.at(counts[name], number, np.array(values))
        matches = [self._matches([self.people[i] for i in np.flatnonzero(number == k)]) for k in range(len(places))]

        def metrics(index: Array) -> dict[str, float]:
            out = {}
            for name, values in counts.items():
                right, total = values[index].sum(0)
                out[name] = right / total if total else float("nan")
            for name in matches[0]:
                found = average_precision([matches[i][name] for i in index])
                out |= found if name == "all" else {f"{key} {name}": found[key] for key in ("AP", "AR")}
            return out

        return metrics, len(places)

    def _matches(self, picture: Sequence[tuple[People, Detections]]) -> dict[str, Matches]:
        """All 308, each group, and both sizes, on one picture."""
        xy, labelled, area, box = (
            np.concatenate([getattr(people, name) for people, _ in picture])
            for name in ("keypoints", "labelled", "area", "box")
        )
        points, scores = (np.concatenate([getattr(d, name) for _, d in picture]) for name in ("keypoints", "scores"))
        kept = without_doubles(points, scores, self.sigmas) if len(points) > 1 else slice(None)
        out = {}
        for name, ids in self.groups.items():
            people = People(xy[:, ids], labelled[:, ids], area, box)
            found = Detections(points[kept][:, ids], scores[kept])
            out[name] = match_image(people, found, self.sigmas[ids])
            for size in ("medium", "large") if name == "all" else ():
                out[size] = match_image(people, found, self.sigmas[ids], size)
        return out


class SegmentationTally:
    """Both conventions of mIoU and of mean recall, pixel accuracy."""

    def __init__(self) -> None:
        self.counts: list[Array] = []

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""
        self.counts.append(m.confusion(answer["labels"], _need(sample.mask), len(parts())))

    def extend(self, later: SegmentationTally) -> None:
        """Takes in what another one has been given, after what this one has."""
        self.counts += later.counts

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

    def extend(self, later: NormalTally) -> None:
        """Takes in what another one has been given, after what this one has."""
        self.sums += later.sums
        self.medians.extend(later.medians)

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

    def extend(self, later: PointmapTally) -> None:
        """Takes in what another one has been given, after what this one has."""
        self.plain += later.plain
        self.scaled += later.scaled
        self.angles += later.angles

    def statistic(self) -> Statistic:
        """Every metric over chosen images."""
        plain, scaled, angles = (np.stack(each) for each in (self.plain, self.scaled, self.angles))

        def metrics(index: Array) -> dict[str, float]:
            out = m.pool_points(plain[index])
            out |= {f"{name}_scaled": value for name, value in m.pool_points(scaled[index]).items()}
            return out | {f"surface_{name}": value for name, value in m.pool_angles(angles[index]).items()}

        return metrics


class AlbedoTally:
    """MAE, RMSE, PSNR, SSIM, gradient error over the person's pixels, of answers that are not clamped."""

    def __init__(self) -> None:
        self.sums: list[Array] = []

    def add(self, answer: Answer, sample: Sample) -> None:
        """Takes in the answer to one sample."""
        self.sums.append(m.albedo_sums(answer["map"], _need(sample.albedo), _need(sample.valid)))

    def extend(self, later: AlbedoTally) -> None:
        """Takes in what another one has been given, after what this one has."""
        self.sums += later.sums

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
