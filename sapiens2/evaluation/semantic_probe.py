"""What one vector per picture tells: the pose's class, colours, where the joints are. Closed forms, no training.

Vectors are the class token's and the mean patch's. Ridge regressions choose their penalty by the exact leave-one-out
error on the fitted scenes; k-NN votes by cosine with a temperature, as in DINO's evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapiens2.evaluation.headline import PCK_SHARE
from sapiens2.evaluation.measure import tight_box
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import keypoints, parts

Array = np.ndarray
PENALTIES = 10.0 ** np.arange(-5, 3)  # relative to the mean variance
FLOOR = 0.1  # of the usual spread: a channel that hardly moves on the fitted scenes may leap on others
TEMPERATURE = 0.07
REGIONS = ("Upper_Clothing", "Lower_Clothing", "Face_Neck")
ENOUGH_PIXELS = 12


@dataclass(frozen=True)
class Ratio:
    """A metric that is a sum over images divided by another: numerator and denominator of each image [N]."""

    top: Array
    bottom: Array
    complement: bool = False  # the metric is 1 - the ratio

    def value(self, index: Array) -> float:
        """The metric over the images with these indices, which may repeat; NaN when it is undefined."""
        bottom = self.bottom[index].sum()
        ratio = float(self.top[index].sum() / bottom) if bottom else float("nan")
        return 1 - ratio if self.complement else ratio

    def errors(self) -> Array:
        """Error of each image [N], lower is better, on the scale of 1 - metric; NaN where it is undefined."""
        scale = self.bottom.mean() if self.complement else self.bottom
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(self.bottom > 0, self.top / scale, np.nan)
        return ratio if self.complement else 1 - ratio


# ---- fitting ----


class Ridge:
    """Linear regression with an intercept; y: [N, K], `known` [N] chooses rows. Needs two rows or more."""

    def __init__(self, x: Array, y: Array, known: Array | None = None) -> None:
        chosen = np.ones(len(x), bool) if known is None else known
        x, y = x[chosen].astype(np.float64), y[chosen].astype(np.float64)
        self.centre, self.level = x.mean(0), y.mean(0)
        spread = x.std(0)
        self.scale = np.maximum(spread, FLOOR * max(float(np.sqrt((spread**2).mean())), 1e-12))
        x, y = (x - self.centre) / self.scale, y - self.level
        values, vectors = np.linalg.eigh(x @ x.T)
        values, turned = values.clip(0), vectors.T @ y
        penalties = PENALTIES * max(values.mean(), 1e-12)
        self.errors = [_left_out(values, vectors, turned, penalty) for penalty in penalties]
        best = penalties[int(np.argmin(self.errors))]
        self.weights = x.T @ (vectors @ (turned / (values + best)[:, None]))

    def __call__(self, x: Array) -> Array:
        """[M, D] -> [M, K]."""
        return (x.astype(np.float64) - self.centre) / self.scale @ self.weights + self.level


def _left_out(values: Array, vectors: Array, turned: Array, penalty: float) -> float:
    """Mean squared leave-one-out error, exact: (y - H y)_i / (1 - H_ii), H = 1/N + K (K + p)^-1 with the intercept."""
    kept = penalty / (values + penalty)
    free = (vectors**2) @ kept - 1 / len(values)
    return float(np.mean((vectors @ (turned * kept[:, None]) / np.maximum(free, 1e-9)[:, None]) ** 2))


def nearest(queries: Array, known: Array, k: int) -> tuple[Array, Array]:
    """The k most similar of `known` [N, D] for each query [M, D]: indices and cosines [M, k], best first."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, known))
    cosine = a.astype(np.float64) @ b.astype(np.float64).T
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosine, order, 1)


def vote(queries: Array, known: Array, labels: Array, classes: int, k: int) -> Array:
    """Class of each query [M] by the votes exp(cosine / 0.07) of its k nearest."""
    order, cosine = nearest(queries, known, min(k, len(known)))
    votes = np.exp((cosine - cosine.max(1, keepdims=True)) / TEMPERATURE)
    totals = np.zeros((len(queries), classes))
    np.add.at(totals, (np.arange(len(queries))[:, None], labels[order]), votes)
    return totals.argmax(1)


# ---- questions ----


@dataclass(frozen=True)
class Questions:
    """What is asked of a set of scenes."""

    classes: list[str]  # pose family
    colours: Array  # [N, 1 + regions, 3] mean albedo of the person and of parts
    seen: Array  # bool [N, 1 + regions]: enough of the part is in the picture
    joints: Array  # [N, 17, 2] body keypoints over the picture's size
    labelled: Array  # bool [N, 17]
    diagonal: Array  # [N] of the tight box, over the picture's size in x and y: what PCK is relative to
    size: tuple[int, int]


def ask(samples: Sequence[Sample], classes: list[str]) -> Questions:
    """The right answers of samples of one size."""
    body = keypoints().group("body")
    ids = [parts().id(name) for name in REGIONS]
    colours, seen = zip(*(_colours(sample, ids) for sample in samples), strict=True)
    height, width = samples[0].image.shape[:2]
    boxes = np.stack([tight_box(sample) for sample in samples])
    return Questions(
        classes=classes,
        colours=np.stack(colours),
        seen=np.stack(seen),
        joints=np.stack([s.keypoints[body] for s in samples if s.keypoints is not None]) / (width, height),
        labelled=np.stack([s.labelled[body] for s in samples if s.labelled is not None]),
        diagonal=np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1),
        size=(height, width),
    )


def _colours(sample: Sample, ids: list[int]) -> tuple[Array, Array]:
    assert sample.albedo is not None and sample.mask is not None
    regions = [sample.mask > 0, *(sample.mask == i for i in ids)]
    seen = np.array([region.sum() >= ENOUGH_PIXELS for region in regions])
    means = [sample.albedo[region].mean(0) if there else np.zeros(3) for region, there in zip(regions, seen)]
    return np.stack(means), seen


def pose_classes(
    x: Array, known: Questions, queries: Array, asked: Questions, k: int
) -> tuple[dict[str, Ratio], Ratio, Array]:
    """Share of pose classes told by a linear map and by k-NN; the same of the commonest class; k-NN's answers [M]."""
    names = sorted(set(known.classes))
    labels = np.array([names.index(name) for name in known.classes])
    truth = np.array([names.index(name) if name in names else -1 for name in asked.classes])
    linear = Ridge(x, np.eye(len(names))[labels])(queries).argmax(1)
    voted = vote(queries, x, labels, len(names), k)
    common = np.bincount(labels).argmax()
    right = {"linear": linear == truth, "knn": voted == truth}
    one = np.ones(len(truth))
    return (
        {name: Ratio(hit.astype(float), one) for name, hit in right.items()},
        Ratio((truth == common) * one, one),
        voted,
    )


def colours(x: Array, known: Questions, queries: Array, asked: Questions) -> Ratio:
    """R2 of mean colours: 1 for exact answers, 0 for the mean of the fitted scenes."""
    top, bottom = np.zeros(len(queries)), np.zeros(len(queries))
    for region in range(known.colours.shape[1]):
        there = known.seen[:, region]
        if there.sum() < 2:
            continue
        model = Ridge(x, known.colours[:, region], there)
        truth, seen = asked.colours[:, region], asked.seen[:, region]
        top += seen * ((model(queries) - truth) ** 2).sum(1)
        bottom += seen * ((model.level - truth) ** 2).sum(1)
    return Ratio(top, bottom, complement=True)


def joints(x: Array, known: Questions, queries: Array, asked: Questions) -> tuple[Ratio, Ratio]:
    """PCK@0.1 of body keypoints that are read off a vector, and of their mean places."""
    found, mean = np.zeros_like(asked.joints), np.zeros_like(asked.joints)
    for joint in range(known.joints.shape[1]):
        there = known.labelled[:, joint]
        if there.sum() < 2:
            continue
        model = Ridge(x, known.joints[:, joint], there)
        found[:, joint], mean[:, joint] = model(queries), model.level
    return _pck(found, asked), _pck(mean, asked)


def _pck(found: Array, asked: Questions) -> Ratio:
    away = np.linalg.norm((found - asked.joints) * (asked.size[1], asked.size[0]), axis=-1)
    near = (away <= PCK_SHARE * asked.diagonal[:, None]) & asked.labelled
    return Ratio(near.sum(1).astype(float), asked.labelled.sum(1).astype(float))
