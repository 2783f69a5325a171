"""Fits the realism models on the `fit` half of a labelled pool and writes their coefficients beside the scorer.

    python -m curation.audit.fit_realism POOL [--weights nsfwjs_mobilenet_v2_224.onnx] [--out curation/models]

POOL holds manifest.jsonl (file, kind, split, notes, dup_group) and the images. Photographs are the class 1; drawings,
graphics and screenshots the class 0. Photographs with a synthetic caption are photographs here: a caption is the text
scorer's affair. The `measure` half is never opened.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.images.header import read_header
from curation.images.reasons import Reject
from curation.models.image_embedding import MobileNetFeatures
from curation.models.realism import realism_inputs
from curation.models.realism_features import FEATURES
from curation.models.scorer import View
from curation.models.views import view_of

Vector = NDArray[np.float64]

LONG_SIDE_PX = 768  # what ScoreConfig.long_side_px decodes to
PHOTO_REJECTS = 0.05  # share of photographs that may fall under 0.5, by cross-validation
PENALTIES = {"statistics": 3.0, "mobilenet": 300.0}
STATISTICS_GAIN = 4.0  # beside 1280 pooled features, so that 34 statistics are not drowned by the penalty
PHOTOS = ("photo_person", "photo_no_person")
DRAWN = ("illustration", "graphic", "screenshot")


def label_of(row: dict[str, Any]) -> int | None:
    """1 for a photograph, 0 for a drawn picture, None for what teaches neither."""
    if row["kind"] in PHOTOS or (row["kind"] == "text_overlay" and "synthetic_text" in row["notes"]):
        return 1
    return 0 if row["kind"] in DRAWN else None


def labelled_views(pool: Path, split: str) -> list[tuple[dict[str, Any], View]]:
    """Manifest rows of a split with their views, as the score stage makes them; what does not decode is left out."""
    found = []
    for line in (pool / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["split"] != split or label_of(row) is None:
            continue
        data = (pool / row["file"]).read_bytes()
        header = read_header(data)
        if isinstance(header, Reject):
            continue
        view = view_of(row["file"], data, width=header.width, height=header.height, long_side_px=LONG_SIDE_PX)
        if isinstance(view, View):
            found.append((row, view))
    return found


def fit_logistic(x: Vector, y: Vector, weights: Vector, penalty: float) -> Vector:
    """Coefficients [D + 1], the intercept last, of the L2-penalised weighted logistic regression, by Newton steps.

    Minimises sum w log(1 + exp(-s z)) + penalty / 2 |c|^2 (s = +-1, z the logit); the intercept is not penalised.
    """
    joined = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    ridge = np.full(joined.shape[1], penalty)
    ridge[-1] = 1e-6
    c = np.zeros(joined.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(joined @ c, -30, 30)))
        gradient = joined.T @ (weights * (p - y)) + ridge * c
        hessian = (joined * (weights * p * (1 - p) + 1e-9)[:, None]).T @ joined + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        c -= step
        if np.abs(step).max() < 1e-8:
            break
    return c


def row_weights(y: Vector, groups: list[str]) -> Vector:
    """Each duplicate group counts once, each class half; the weights sum to the number of rows."""
    sizes = Counter(groups)
    weights = np.array([1.0 / sizes[group] for group in groups])
    for label in (0, 1):
        weights[y == label] *= 0.5 * len(y) / weights[y == label].sum()
    return weights


def standardise(x: Vector) -> tuple[Vector, Vector]:
    """Mean and scale [D] of the inputs: each statistic by its own deviation, the pooled features by one for all.

    Beside pooled features the statistics are scaled up by STATISTICS_GAIN, which makes the penalty lighter on them.
    """
    mean, scale = x.mean(axis=0), x.std(axis=0)
    n = len(FEATURES)
    scale[:n] = np.maximum(scale[:n], 1e-3)
    if len(scale) > n:
        scale[n:] = float(np.sqrt((scale[n:] ** 2).mean()))
        scale[:n] /= STATISTICS_GAIN
    return mean, scale


def cross_validated(x: Vector, y: Vector, groups: list[str], penalty: float, folds: int = 5) -> Vector:
    """Logits [N] of rows by models that saw no picture of their duplicate group, the mean of three seeded splits."""
    names = sorted(set(groups))
    total = np.zeros(len(y))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(names))
        fold_of = {names[i]: position % folds for position, i in enumerate(order)}
        fold = np.array([fold_of[group] for group in groups])
        for k in range(folds):
            train, test = fold != k, fold == k
            kept = [g for g, t in zip(groups, train, strict=True) if t]
            c = fit_logistic(x[train], y[train], row_weights(y[train], kept), penalty)
            total[test] += x[test] @ c[:-1] + c[-1]
    return total / 3


def fit(name: str, x: Vector, y: Vector, groups: list[str], weights_sha256: str | None) -> dict[str, Any]:
    """The stored form of one model; its intercept puts PHOTO_REJECTS of the cross-validated photographs under 0.5."""
    mean, scale = standardise(x)
    z = (x - mean) / scale
    logits = cross_validated(z, y, groups, PENALTIES[name])
    c = fit_logistic(z, y, row_weights(y, groups), PENALTIES[name])
    shift = float(np.quantile(logits[y == 1], PHOTO_REJECTS))
    provenance = {
        "date": datetime.date.today().isoformat(),
        "split": "fit",
        "photographs": int((y == 1).sum()),
        "drawn": int((y == 0).sum()),
        "duplicate_groups": len(set(groups)),
        "penalty": PENALTIES[name],
        "operating_point": f"0.5 rejects {PHOTO_REJECTS:.0%} of photographs in 5-fold cross-validation by group",
        "cross_validated_drawn_rejected": round(float((logits[y == 0] < shift).mean()), 3),
        "weights_sha256": weights_sha256,
    }
    return {
        "inputs": "statistics" if weights_sha256 is None else "statistics+mobilenet",
        "features": list(FEATURES),
        "mean": [float(f"{v:.5g}") for v in mean],
        "scale": [float(f"{v:.5g}") for v in scale],
        "coefficients": [float(f"{v:.5g}") for v in c[:-1]],
        "intercept": float(f"{c[-1] - shift:.5g}"),
        "provenance": provenance,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--weights", type=Path, help="the MobileNetV2 file; without it only `statistics` is fitted")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "models")
    arguments = parser.parse_args(argv)
    rows = labelled_views(arguments.pool, "fit")
    y = np.array([label_of(row) for row, _ in rows], dtype=np.float64)
    groups = [row["dup_group"] or row["file"] for row, _ in rows]
    views = [view for _, view in rows]
    pictures = [view.pixels for view in views]
    runs: list[tuple[str, MobileNetFeatures | None]] = [("statistics", None)]
    if arguments.weights:
        runs.append(("mobilenet", MobileNetFeatures(arguments.weights)))
    for name, features in runs:
        pooled = None if features is None else features.of_views(views)[0]
        x = realism_inputs(pictures, pooled).astype(np.float64)
        stored = fit(name, x, y, groups, None if features is None else features.sha256)
        (arguments.out / f"realism_{name}.json").write_text(json.dumps(stored) + "\n")
        print(name, json.dumps(stored["provenance"]))


if __name__ == "__main__":
    main()
