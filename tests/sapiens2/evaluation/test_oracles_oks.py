"""Keypoint scores of every group, of both sizes and of all 308, as pycocotools and plain loops find them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sapiens2.evaluation.measure import Answer, PoseTally
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import keypoints

# The published vocabulary's ids; the seven points besides count among all 308 only.
GROUPS = {
    "body": [*range(15), 41, 62],
    "foot": [*range(15, 21)],
    "right_hand": [*range(21, 41)],
    "left_hand": [*range(42, 62)],
    "face": [*range(70, 308)],
    "all": [*range(308)],
}
# How far the answers lie off, in units of what similarity forgives: unlike from group to group.
BLUR = {"body": 0.5, "foot": 0.9, "right_hand": 0.65, "left_hand": 0.8, "face": 0.7, "all": 0.6}
PICTURES = 8


def crowd(seed: int) -> tuple[list[Answer], list[Sample], list[int]]:
    """Answers and people, and each one's picture: one to four in each, hidden points and groups, doubles, misses."""
    rng = np.random.default_rng(seed)
    sigmas = keypoints().sigmas.astype(float)
    answers, samples, on = [], [], []
    for picture in range(PICTURES):
        for person in range(int(rng.integers(1, 5))):
            side = float(rng.choice([50.0, 80.0, 150.0, 220.0]))
            truth = rng.uniform(0, 200, 2) + rng.uniform(0, side, (308, 2))
            labelled = rng.random(308) < 0.8
            for ids in GROUPS.values():
                if len(ids) < 308 and rng.random() < 0.2:
                    labelled[ids] = False
            area = side * side * float(rng.uniform(0.5, 0.9))
            box = np.concatenate([truth.min(0), truth.max(0)]).astype(np.float32)
            truth = truth.astype(np.float32)
            image = np.zeros((4, 4, 3), np.uint8)
            samples.append(Sample(image, keypoints=truth, labelled=labelled, area=area, box=box))
            off = np.full(308, BLUR["all"])
            for name, ids in GROUPS.items():
                if name != "all":
                    off[ids] = BLUR[name]
            worse = rng.uniform(0.1, 1.8)
            spread = 2 * sigmas * math.sqrt(area) * off * worse
            found = truth + rng.normal(size=(308, 2)) * spread[:, None]
            if rng.random() < 0.15:
                found += 60.0  # a false alarm
            if person and rng.random() < 0.3:
                found = answers[-1]["keypoints"] + rng.normal(0, 0.01, (308, 2))  # somebody found twice
            scores = np.where(rng.random(308) < 0.8, rng.uniform(0.25, 1, 308), rng.uniform(0, 0.15, 308))
            answers.append({"keypoints": found.astype(np.float32), "scores": scores * rng.uniform(0.9, 1)})
            on.append(picture)
    return answers, samples, on


def score_loop(scores: np.ndarray) -> float:
    """The mean of the keypoint scores above 0.2."""
    above = [float(s) for s in scores if s > 0.2]
    return sum(above) / len(above) if above else 0.0


def alike(one: np.ndarray, other: np.ndarray, sigmas: np.ndarray) -> float:
    """Similarity of two detections, by the mean of the areas that their points span."""
    area = (np.ptp(one[:, 0]) * np.ptp(one[:, 1]) + np.ptp(other[:, 0]) * np.ptp(other[:, 1])) / 2
    return float(np.mean([math.exp(-float(((a - b) ** 2).sum()) / (2 * area * (2 * s) ** 2)) for a, b, s in zip(
        one.astype(float), other.astype(float), sigmas.astype(float))]))  # fmt: skip


def singled(answers: list[Answer], on: list[int], sigmas: np.ndarray) -> list[int]:
    """The answers that stay: best first in each picture, none as similar as 0.9 to one that stayed before."""
    stay: list[int] = []
    for i in sorted(range(len(answers)), key=lambda i: -score_loop(answers[i]["scores"])):
        rivals = [k for k in stay if on[k] == on[i]]
        if all(alike(answers[i]["keypoints"], answers[k]["keypoints"], sigmas) <= 0.9 for k in rivals):
            stay.append(i)
    return sorted(stay)


def coco_stats(
    answers: list[Answer], samples: list[Sample], on: list[int], stay: list[int], ids: list[int], sigmas: np.ndarray
) -> np.ndarray:
    """The ten numbers of pycocotools for the points `ids`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, results = COCO(), []
    names = [str(k) for k in ids]
    truth.dataset = {
        "images": [{"id": k} for k in range(PICTURES)],
        "categories": [{"id": 1, "name": "person", "keypoints": names, "skeleton": []}],
        "annotations": [],
    }
    for number, (sample, picture) in enumerate(zip(samples, on, strict=True), 1):
        assert sample.keypoints is not None and sample.labelled is not None and sample.box is not None
        points = np.concatenate([sample.keypoints[ids], 2.0 * sample.labelled[ids][:, None]], 1).astype(float)
        x0, y0, x1, y1 = sample.box.astype(float)
        truth.dataset["annotations"].append({
            "id": number, "image_id": picture, "category_id": 1, "iscrowd": 0, "area": sample.area,
            "bbox": [x0, y0, x1 - x0, y1 - y0], "keypoints": points.ravel().tolist(),
            "num_keypoints": int(sample.labelled[ids].sum()),
        })  # fmt: skip
    for i in stay:
        rows = np.concatenate([answers[i]["keypoints"][ids].astype(float), np.ones((len(ids), 1))], 1)
        score = score_loop(answers[i]["scores"])
        results.append({"image_id": on[i], "category_id": 1, "keypoints": rows.ravel().tolist(), "score": score})
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(results), "keypoints")
    judge.params.kpt_oks_sigmas = sigmas[ids].astype(float)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats


@pytest.mark.parametrize("seed", range(3))
def test_every_group_scores_what_pycocotools_finds_with_its_own_points_and_sigmas(seed: int) -> None:
    sigmas = keypoints().sigmas
    answers, samples, on = crowd(seed)
    tally = PoseTally()
    for answer, sample in zip(answers, samples, strict=True):
        tally.add(answer, sample)
    metrics, count = tally.by_picture(on)
    got = metrics(np.arange(count))
    stay = singled(answers, on, sigmas)
    assert count == PICTURES and len(stay) < len(answers)
    seen = {}
    for name, ids in GROUPS.items():
        stats = coco_stats(answers, samples, on, stay, ids, sigmas)
        if name == "all":
            keys = {
                "AP": 0,
                "AP50": 1,
                "AP75": 2,
                "AP medium": 3,
                "AP large": 4,
                "AR": 5,
                "AR medium": 8,
                "AR large": 9,
            }
        else:
            keys = {f"AP {name}": 0, f"AR {name}": 5}
        for key, place in keys.items():
            seen[key] = got[key]
            assert got[key] == pytest.approx(stats[place], abs=1e-9), key
        assert 0.1 < stats[0] < 0.95, name
    aps = [round(value, 4) for key, value in seen.items() if key.startswith("AP")]
    assert len(set(aps)) == len(aps)  # no group can stand in for another


def test_shares_of_near_keypoints_are_those_of_a_loop() -> None:
    """Within 5 and 10 % of the diagonal around the labelled points, of the body and of all."""
    rng = np.random.default_rng(9)
    tally, samples, answers = PoseTally(), [], []
    for side in (60.0, 130.0, 300.0):
        truth = rng.uniform(0, side, (308, 2)).astype(np.float32)
        labelled = rng.random(308) < 0.6
        samples.append(Sample(np.zeros((4, 4, 3), np.uint8), keypoints=truth, labelled=labelled))
        off = rng.normal(0, 0.06 * side, (308, 2))
        off[GROUPS["body"]] *= 1.6
        answers.append({"keypoints": truth + off, "scores": np.ones(308)})
        tally.add(answers[-1], samples[-1])
    got = tally.statistic()(np.arange(3))
    for name in ("body", "all"):
        for share in (0.05, 0.1):
            hits = total = 0
            for sample, answer in zip(samples, answers, strict=True):
                assert sample.keypoints is not None and sample.labelled is not None
                known = [sample.keypoints[k] for k in range(308) if sample.labelled[k]]
                width, height = (max(p[a] for p in known) - min(p[a] for p in known) for a in (0, 1))
                for k in GROUPS[name]:
                    if sample.labelled[k]:
                        total += 1
                        hits += math.dist(answer["keypoints"][k], sample.keypoints[k]) <= share * math.hypot(
                            width, height
                        )
            assert got[f"PCK@{share:g} {name}"] == pytest.approx(hits / total), (name, share)
            assert 0.1 < hits / total < 0.95
