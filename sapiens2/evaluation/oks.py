"""Keypoint average precision and recall by object keypoint similarity, COCO's protocol, for any keypoint set.

Similarity of a detection to a person: the mean over labelled keypoints of exp(-d^2 / (2 area (2 sigma)^2)). For each
threshold, detections are matched to people image by image, best score first; precision is then read at 101 recalls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MAX_DETECTIONS = 20
SAME_PERSON = 0.9
SIZES = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
_EPS = np.spacing(1)


@dataclass(frozen=True)
class People:
    """The annotated people of one image."""

    keypoints: Array  # [G, K, 2] pixels
    labelled: Array  # [G, K] bool
    area: Array  # [G] square pixels
    box: Array  # [G, 4] x0, y0, x1, y1; used for people without labelled keypoints

    @property
    def ignored(self) -> Array:
        """People without a labelled keypoint: matching them neither helps nor hurts."""
        return np.logical_not(self.labelled.any(1))


@dataclass(frozen=True)
class Detections:
    """The predicted people of one image."""

    keypoints: Array  # [D, K, 2] pixels
    scores: Array  # [D]


def similarity(detections: Array, people: People, sigmas: Array) -> Array:
    """OKS [D, G] of detections [D, K, 2]; people without labels are compared with twice their box, as COCO does."""
    variance = (2 * sigmas) ** 2
    dx = detections[:, None, :, 0] - people.keypoints[None, :, :, 0]
    dy = detections[:, None, :, 1] - people.keypoints[None, :, :, 1]
    x0, y0, x1, y1 = people.box.T[:, None, :, None]
    w, h = x1 - x0, y1 - y0
    x, y = detections[:, None, :, 0], detections[:, None, :, 1]
    far_x = np.maximum(0, x0 - w - x) + np.maximum(0, x - (x1 + w))
    far_y = np.maximum(0, y0 - h - y) + np.maximum(0, y - (y1 + h))
    labelled = people.labelled[None]
    empty = people.ignored[None, :, None]
    d2 = np.where(empty, far_x**2 + far_y**2, dx**2 + dy**2)
    e = d2 / variance / (people.area[None, :, None] + _EPS) / 2
    counts = np.where(empty, True, labelled)
    return (np.exp(-e) * counts).sum(-1) / counts.sum(-1)


def _match(oks: Array, people: People, ignored: Array) -> tuple[Array, Array]:
    """For each threshold and detection: matched to a person [T, D], and whether that match is to be ignored [T, D].

    oks: [D, G] with detections in falling score. Real people are tried before ignored ones.
    """
    order = np.argsort(ignored, kind="mergesort")
    matched = np.zeros((len(THRESHOLDS), len(oks)), bool)
    skipped = np.zeros_like(matched)
    for t, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(len(ignored), bool)
        for d in range(len(oks)):
            best, at = min(float(threshold), 1 - 1e-10), -1
            for g in order:
                if taken[g]:
                    continue
                if at >= 0 and not ignored[at] and ignored[g]:
                    break
                if oks[d, g] >= best:
                    best, at = float(oks[d, g]), int(g)
            if at >= 0:
                taken[at] = matched[t, d] = True
                skipped[t, d] = ignored[at]
    return matched, skipped


@dataclass(frozen=True)
class Matches:
    """One image at one size range: everything that precision needs."""

    scores: Array  # [D] falling
    matched: Array  # [T, D]
    skipped: Array  # [T, D]
    people: int  # that count


def match_image(people: People, detections: Detections, sigmas: Array, size: str = "all") -> Matches:
    """Matches the best 20 detections of an image to its people."""
    low, high = SIZES[size]
    order = np.argsort(-detections.scores, kind="mergesort")[:MAX_DETECTIONS]
    points = detections.keypoints[order]
    ignored = people.ignored | (people.area < low) | (people.area > high)
    oks = similarity(points, people, sigmas) if len(points) and len(ignored) else np.zeros((len(points), len(ignored)))
    matched, skipped = _match(oks, people, ignored)
    extent = np.ptp(points, axis=1) if len(points) else np.zeros((0, 2))
    area = extent.prod(-1)
    outside = (area < low) | (area > high)
    skipped |= ~matched & outside[None]
    return Matches(detections.scores[order], matched, skipped, int((~ignored).sum()))


def average_precision(images: list[Matches]) -> dict[str, float]:
    """AP, AP50, AP75 and AR over images; NaN when there is nobody to find."""
    people = sum(m.people for m in images)
    if people == 0:
        return dict.fromkeys(("AP", "AP50", "AP75", "AR"), float("nan"))
    scores = np.concatenate([m.scores for m in images])
    order = np.argsort(-scores, kind="mergesort")
    matched = np.concatenate([m.matched for m in images], 1)[:, order]
    skipped = np.concatenate([m.skipped for m in images], 1)[:, order]
    precision, recall = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    for t in range(len(THRESHOLDS)):
        counted = ~skipped[t]
        tp, fp = np.cumsum(matched[t][counted]), np.cumsum(~matched[t][counted])
        if not len(tp):
            continue
        reached = tp / people
        share = tp / (tp + fp + _EPS)
        share = np.maximum.accumulate(share[::-1])[::-1]
        at = np.searchsorted(reached, RECALLS, side="left")
        precision[t] = np.where(at < len(share), share[np.minimum(at, len(share) - 1)], 0.0).mean()
        recall[t] = reached[-1]
    return {"AP": precision.mean(), "AP50": precision[0], "AP75": precision[5], "AR": recall.mean()}


def without_doubles(points: Array, scores: Array, sigmas: Array) -> Array:
    """Indices of the detections [D, K, 2] that stay, best first: none is as similar as SAME_PERSON to a better one."""
    extent = np.ptp(points, axis=1).prod(-1)
    order, kept = list(np.argsort(-scores, kind="mergesort")), []
    while order:
        best = order.pop(0)
        kept.append(best)
        rest = np.array(order, int)
        d2 = ((points[rest] - points[best]) ** 2).sum(-1)
        area = (extent[rest] + extent[best]) / 2 + np.spacing(1)
        similar = np.exp(-d2 / (2 * sigmas) ** 2 / area[:, None] / 2).mean(1) if len(rest) else np.zeros(0)
        order = [d for d, s in zip(order, similar, strict=True) if s <= SAME_PERSON]
    return np.array(kept, int)


def instance_scores(keypoint_scores: Array, floor: float = 0.2) -> Array:
    """Score of each detection [D]: the mean of its keypoint scores [D, K] above `floor`, 0 if none is."""
    above = keypoint_scores > floor
    return (keypoint_scores * above).sum(1) / np.maximum(above.sum(1), 1)
