"""The OKS evaluator against a literal transcription of its definition, and against cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sapiens2.evaluation.measure import PoseTally, person_area, statistic_of
from sapiens2.evaluation.oks import (
    RECALLS,
    SIZES,
    THRESHOLDS,
    Detections,
    People,
    average_precision,
    instance_scores,
    match_image,
    similarity,
)
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import keypoints

SIGMAS = np.array([0.026, 0.025, 0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089])


def people_of(keypoints: np.ndarray, labelled: np.ndarray | None = None, area: float | None = None) -> People:
    labelled = np.ones(keypoints.shape[:2], bool) if labelled is None else labelled
    box = np.concatenate([keypoints.min(1), keypoints.max(1)], 1)
    areas = (box[:, 2:] - box[:, :2]).prod(1) if area is None else np.full(len(keypoints), area)
    return People(keypoints, labelled, areas, box)


def brute_force_ap(images: list[tuple[People, Detections]]) -> tuple[float, float]:
    """AP and AR written out with loops: match, sort, walk the precision-recall curve."""
    aps, ars = [], []
    for threshold in THRESHOLDS:
        scored, total = [], 0
        for people, detections in images:
            counted = [g for g in range(len(people.area)) if people.labelled[g].any()]
            total += len(counted)
            free = set(range(len(people.area)))
            for d in sorted(range(len(detections.scores)), key=lambda i: -detections.scores[i])[:20]:
                best, at = threshold, None
                for real in (True, False):
                    for g in sorted(free):
                        if (g in counted) != real or (not real and at is not None):
                            continue
                        value = oks_loop(detections.keypoints[d], people, g)
                        if value >= best:
                            best, at = value, g
                if at is not None:
                    free.remove(at)
                    if at in counted:
                        scored.append((detections.scores[d], 1))
                else:
                    scored.append((detections.scores[d], 0))
        scored.sort(key=lambda pair: -pair[0])
        hits = np.cumsum([h for _, h in scored])
        recall, precision = hits / total, hits / np.arange(1, len(scored) + 1)
        at_recall = [max((p for p, r in zip(precision, recall) if r >= want), default=0.0) for want in RECALLS]
        aps.append(np.mean(at_recall))
        ars.append(recall[-1] if len(recall) else 0.0)
    return float(np.mean(aps)), float(np.mean(ars))


def oks_loop(points: np.ndarray, people: People, g: int) -> float:
    values = []
    for k in range(len(points)):
        if people.labelled[g].any() and not people.labelled[g, k]:
            continue
        if people.labelled[g].any():
            d2 = ((points[k] - people.keypoints[g, k]) ** 2).sum()
        else:
            x0, y0, x1, y1 = people.box[g]
            x0, x1, y0, y1 = x0 - (x1 - x0), x1 + (x1 - x0), y0 - (y1 - y0), y1 + (y1 - y0)
            far = [max(0, x0 - points[k, 0], points[k, 0] - x1), max(0, y0 - points[k, 1], points[k, 1] - y1)]
            d2 = far[0] ** 2 + far[1] ** 2
        values.append(np.exp(-d2 / (2 * people.area[g] * (2 * SIGMAS[k]) ** 2)))
    return float(np.mean(values))


def random_images(seed: int) -> list[tuple[People, Detections]]:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(6):
        count = int(rng.integers(1, 4))
        truth = rng.uniform(0, 300, (count, 1, 2)) + rng.uniform(0, 120, (count, len(SIGMAS), 2))
        labelled = rng.random((count, len(SIGMAS))) < 0.7
        if rng.random() < 0.4:
            labelled[0] = False
        found = np.concatenate([truth + rng.normal(0, rng.uniform(1, 15), truth.shape), truth[:1] + 60], 0)
        keep = rng.random(len(found)) < 0.85
        images.append((people_of(truth, labelled), Detections(found[keep], rng.random(int(keep.sum())))))
    return images


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_equals_the_definition(seed: int) -> None:
    images = random_images(seed)
    got = average_precision([match_image(p, d, SIGMAS) for p, d in images])
    ap, ar = brute_force_ap(images)
    assert got["AP"] == pytest.approx(ap, abs=1e-9) and got["AR"] == pytest.approx(ar, abs=1e-9)


def test_similarity_by_hand() -> None:
    truth = np.zeros((1, 2, 2))
    people = People(truth, np.array([[True, False]]), np.array([100.0]), np.array([[0.0, 0, 10, 10]]))
    found = np.array([[[3.0, 4.0], [500.0, 0.0]]])
    assert similarity(found, people, np.array([0.1, 0.1]))[0, 0] == pytest.approx(np.exp(-25 / (2 * 100 * 0.04)))


def test_perfect_and_hopeless_detections() -> None:
    truth = np.random.default_rng(0).uniform(0, 200, (2, len(SIGMAS), 2))
    right = [match_image(people_of(truth), Detections(truth, np.array([0.9, 0.8])), SIGMAS)]
    assert average_precision(right) == {
        "AP": pytest.approx(1),
        "AP50": pytest.approx(1),
        "AP75": pytest.approx(1),
        "AR": 1,
    }
    wrong = [match_image(people_of(truth), Detections(truth + 500, np.array([0.9, 0.8])), SIGMAS)]
    assert average_precision(wrong)["AP"] == 0
    nobody = [match_image(people_of(truth), Detections(truth[:0], np.zeros(0)), SIGMAS)]
    assert average_precision(nobody) == {"AP": 0, "AP50": 0, "AP75": 0, "AR": 0}
    assert np.isnan(average_precision([])["AP"])


def test_a_false_alarm_above_the_hit_halves_precision() -> None:
    truth = np.random.default_rng(0).uniform(0, 200, (1, len(SIGMAS), 2))
    found = Detections(np.concatenate([truth + 900, truth]), np.array([0.9, 0.5]))
    assert average_precision([match_image(people_of(truth), found, SIGMAS)])["AP"] == pytest.approx(0.5)
    found = Detections(found.keypoints, np.array([0.5, 0.9]))
    assert average_precision([match_image(people_of(truth), found, SIGMAS)])["AP"] == pytest.approx(1.0)


def test_sizes_leave_others_out() -> None:
    truth = np.random.default_rng(0).uniform(0, 50, (1, len(SIGMAS), 2))
    medium = people_of(truth, area=2000.0)
    found = Detections(truth, np.array([0.9]))
    assert average_precision([match_image(medium, found, SIGMAS, "medium")])["AP"] == pytest.approx(1)
    assert np.isnan(average_precision([match_image(medium, found, SIGMAS, "large")])["AP"])


def test_instance_score_is_the_mean_above_the_floor() -> None:
    np.testing.assert_allclose(instance_scores(np.array([[0.1, 0.6, 0.8], [0.1, 0.1, 0.1]])), [0.7, 0])


@pytest.mark.parametrize("seed", range(4))
def test_coco17_scores_are_those_of_pycocotools(seed: int) -> None:
    """Several people and false alarms in every picture, hidden points, people without labels, small to large ones."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    words = keypoints()
    sigmas = words.sigmas[[int(np.flatnonzero(words.wholebody == k)[0]) for k in range(17)]]
    images = coco_people(seed, len(sigmas))
    truth, results = COCO(), []
    truth.dataset = {
        "images": [{"id": k} for k in range(len(images))],
        "categories": [{"id": 1, "name": "person", "keypoints": list(map(str, range(17))), "skeleton": []}],
        "annotations": [],
    }
    for k, (people, found) in enumerate(images):
        for g, box in enumerate(people.box):
            points = np.concatenate([people.keypoints[g], 2.0 * people.labelled[g][:, None]], 1)
            given = {"bbox": [*box[:2], *(box[2:] - box[:2])], "area": people.area[g], "iscrowd": 0}
            given |= {"keypoints": points.ravel().tolist(), "num_keypoints": int(people.labelled[g].sum())}
            number = len(truth.dataset["annotations"]) + 1
            truth.dataset["annotations"].append({"id": number, "image_id": k, "category_id": 1, **given})
        for points, score in zip(found.keypoints, found.scores, strict=True):
            rows = np.concatenate([points, np.ones((len(points), 1))], 1).ravel().tolist()
            results.append({"image_id": k, "category_id": 1, "keypoints": rows, "score": float(score)})
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(results), "keypoints")
    np.testing.assert_allclose(judge.params.kpt_oks_sigmas, sigmas)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    ours = {size: average_precision([match_image(p, d, sigmas, size) for p, d in images]) for size in SIZES}
    whole = ours["all"]
    # AP, AP50, AP75, medium and large; AR, AR50, AR75, medium and large.
    got = [whole["AP"], whole["AP50"], whole["AP75"], ours["medium"]["AP"], ours["large"]["AP"]]
    np.testing.assert_allclose(got, judge.stats[:5], atol=1e-9)
    got = [whole["AR"], ours["medium"]["AR"], ours["large"]["AR"]]
    np.testing.assert_allclose(got, judge.stats[[5, 8, 9]], atol=1e-9)
    assert 0.1 < whole["AP"] < 0.9 and len({round(each["AP"], 3) for each in ours.values()}) == 3


def coco_people(seed: int, points: int) -> list[tuple[People, Detections]]:
    """Ten pictures of people of all sizes, some without a labelled point, and what a fair detector says of them."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(10):
        count = int(rng.integers(1, 5))
        sides = rng.uniform(25, 220, (count, 1, 1))
        truth = rng.uniform(0, 300, (count, 1, 2)) + rng.uniform(0, 1, (count, points, 2)) * sides
        labelled = rng.random((count, points)) < 0.7
        labelled[0] &= rng.random() < 0.7
        box = np.concatenate([truth.min(1), truth.max(1)], 1)
        area = (box[:, 2:] - box[:, :2]).prod(1) * rng.uniform(0.4, 0.9, count)
        near = truth + rng.normal(0, 0.06, truth.shape) * sides * rng.uniform(0.2, 1.5, (count, 1, 1))
        found = np.concatenate([near, near[:1] + rng.uniform(-40, 40, (1, 1, 2)), near[-1:] * 1.4])
        found = found[rng.random(len(found)) < 0.85]
        images.append((People(truth, labelled, area, box), Detections(found, rng.random(len(found)))))
    return images


def test_people_of_a_picture_compete_for_its_detections() -> None:
    """A hidden person whose answer lies on the one before it: alone a near hit at 0.5, in the picture a double."""
    rng = np.random.default_rng(0)
    front = rng.uniform(0, 100, (308, 2)).astype(np.float32)
    behind = front + np.float32(0.5)
    image, labelled, scores = np.zeros((4, 4, 3), np.uint8), np.ones(308, bool), np.full(308, 0.9)
    samples = [Sample(image, keypoints=points, labelled=labelled, area=1e4) for points in (front, behind, front)]
    answers = [{"keypoints": p, "scores": s} for p, s in ((front, scores), (front, scores / 2), (front, scores))]
    tally = PoseTally()
    for answer, sample in zip(answers, samples, strict=True):
        tally.add(answer, sample)
    alone, (together, count) = tally.statistic()(np.arange(3)), tally.by_picture(["a", "a", "b"])
    assert count == 2 and together(np.arange(2))["AR"] == pytest.approx(2 / 3)
    assert alone["AR"] > together(np.arange(2))["AR"] and together(np.array([1]))["AP"] == pytest.approx(1)
    assert together(np.array([0, 0]))["PCK@0.05 all"] == alone["PCK@0.05 all"] == 1


def test_the_labelled_area_counts_in_place_of_the_extent() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (308, 2)).astype(np.float32)
    sample = Sample(np.zeros((4, 4, 3), np.uint8), keypoints=points, labelled=np.ones(308, bool))
    answer = {"keypoints": points + np.float32(3), "scores": np.ones(308)}
    extent = float(np.ptp(points, axis=0).prod())
    found = {}
    for area in (None, extent, extent / 16):
        found[area] = statistic_of("pose", [answer], [replace(sample, area=area)])(np.arange(1))["AR body"]
    assert found[None] == found[extent] > found[extent / 16]
    assert person_area(replace(sample, area=50.0)) == 50 and person_area(sample) == pytest.approx(extent)
