"""From predictions and labels of one task to metrics that can be resampled by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sapiens2.evaluation import metrics as m
from sapiens2.evaluation.bootstrap import Statistic
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


def pose_statistic(answers: Sequence[Answer], samples: Sequence[Sample]) -> Statistic:
    """AP and AR of all 308, AP of each group, PCK at 5 and 10 % of the box diagonal for body points and for all."""
    words = keypoints()
    groups = {"all": np.arange(len(words))} | {name: words.group(name) for name in GROUPS[:-1]}
    matches: dict[str, list[Matches]] = {name: [] for name in groups}
    hits: dict[str, list[tuple[int, int]]] = {}
    for answer, sample in zip(answers, samples, strict=True):
        assert sample.keypoints is not None and sample.labelled is not None
        box = tight_box(sample)
        area = max(float((box[2:] - box[:2]).prod()), 1.0)
        for name, ids in groups.items():
            people = People(sample.keypoints[None, ids], sample.labelled[None, ids], np.array([area]), box[None])
            found = Detections(answer["keypoints"][None, ids], instance_scores(answer["scores"][None, ids]))
            matches[name].append(match_image(people, found, words.sigmas[ids]))
        diagonal = float(np.linalg.norm(box[2:] - box[:2]))
        for share in PCK_SHARES:
            for name, ids in (("body", groups["body"]), ("all", groups["all"])):
                got = m.pck_hits(answer["keypoints"][ids], sample.keypoints[ids], sample.labelled[ids], diagonal, share)
                hits.setdefault(f"PCK@{share:g} {name}", []).append(got)
    counts = {name: np.array(values) for name, values in hits.items()}

    def statistic(index: Array) -> dict[str, float]:
        out = {}
        for name, values in counts.items():
            right, total = values[index].sum(0)
            out[name] = right / total if total else float("nan")
        whole = average_precision([matches["all"][i] for i in index])
        out |= whole
        for name in GROUPS[:-1]:
            out[f"AP {name}"] = average_precision([matches[name][i] for i in index])["AP"]
        return out

    return statistic


def segmentation_statistic(answers: Sequence[Answer], samples: Sequence[Sample]) -> Statistic:
    """Both conventions of mIoU, mean recall, pixel accuracy."""
    n = len(parts())
    counts = np.stack([m.confusion(a["labels"], _need(s.mask), n) for a, s in zip(answers, samples, strict=True)])
    return lambda index: m.pool_segmentation(counts[index].sum(0))


def normal_statistic(answers: Sequence[Answer], samples: Sequence[Sample]) -> Statistic:
    """Angles over the person's pixels."""
    angles = [m.angles_deg(a["map"], _need(s.normals), _need(s.valid)) for a, s in zip(answers, samples, strict=True)]
    return lambda index: m.pool_angles([angles[i] for i in index])


def pointmap_statistic(answers: Sequence[Answer], samples: Sequence[Sample]) -> Statistic:
    """Errors in canonical units, as predicted and after the best scale of each image (`_scaled`)."""
    import torch

    plain, scaled = [], []
    for answer, sample in zip(answers, samples, strict=True):
        valid, k = _need(sample.valid), torch.from_numpy(_need(sample.intrinsics))[None]
        s = float(canonical_scale(k, valid.shape[1]))
        predicted, truth = answer["map"][valid].astype(np.float64), _need(sample.points)[valid].astype(np.float64) * s
        plain.append(m.point_errors(predicted, truth))
        scaled.append(m.point_errors(predicted * m.best_scale(predicted, truth), truth))

    def statistic(index: Array) -> dict[str, float]:
        out = m.pool_points([plain[i] for i in index])
        return out | {f"{name}_scaled": v for name, v in m.pool_points([scaled[i] for i in index]).items()}

    return statistic


def albedo_statistic(answers: Sequence[Answer], samples: Sequence[Sample]) -> Statistic:
    """MAE, RMSE, PSNR, SSIM, gradient error over the person's pixels."""
    sums = [m.albedo_sums(a["map"], _need(s.albedo), _need(s.valid)) for a, s in zip(answers, samples, strict=True)]
    return lambda index: m.pool_albedo([sums[i] for i in index])


def _need(array: Array | None) -> Array:
    assert array is not None
    return array


STATISTICS: dict[str, Callable[[Sequence[Answer], Sequence[Sample]], Statistic]] = {
    "pose": pose_statistic,
    "segmentation": segmentation_statistic,
    "normal": normal_statistic,
    "pointmap": pointmap_statistic,
    "albedo": albedo_statistic,
}
