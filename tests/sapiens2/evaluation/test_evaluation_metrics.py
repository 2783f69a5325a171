"""Metrics against independent oracles: loops, scikit-learn, scikit-image, hand arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sapiens2.evaluation import metrics as m
from sapiens2.evaluation.baselines import mean_map
from sapiens2.evaluation.bootstrap import bootstrap
from sapiens2.evaluation.measure import statistic_of
from sapiens2.evaluation.medians import Medians
from sapiens2.tasks.sample import Sample

RNG = np.random.default_rng(0)


def test_confusion_and_scores_agree_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, recall_score

    truth = RNG.integers(0, 5, (20, 30)).astype(np.uint8)
    predicted = np.where(RNG.random((20, 30)) < 0.6, truth, RNG.integers(0, 4, (20, 30))).astype(np.uint8)
    truth[:3] = 255
    known = truth != 255
    counts = m.confusion(predicted, truth, 7)
    np.testing.assert_array_equal(counts[:5, :5], confusion_matrix(truth[known], predicted[known], labels=range(5)))
    got = m.pool_segmentation(counts)
    iou = jaccard_score(truth[known], predicted[known], labels=range(5), average=None)
    assert got["mIoU"] == pytest.approx(iou.mean()) and got["mIoU_all"] == pytest.approx(iou.sum() / 7)
    recall = recall_score(truth[known], predicted[known], average="macro")
    assert got["mAcc"] == pytest.approx(recall) and got["mAcc_all"] == pytest.approx(recall * 5 / 7)
    assert got["aAcc"] == pytest.approx(accuracy_score(truth[known], predicted[known]))


def test_angles_by_hand() -> None:
    truth = np.zeros((1, 4, 3))
    truth[..., 2] = -1
    turned = np.radians([0.0, 10.0, 20.0, 180.0])
    predicted = np.stack([np.sin(turned), np.zeros(4), -np.cos(turned)], -1)[None] * 7
    angles = m.angles_deg(predicted, truth, np.array([[True, True, True, False]]))
    np.testing.assert_allclose(angles, [0, 10, 20], atol=1e-5)
    got = m.pool_angles(np.stack([m.angle_sums(part) for part in (angles[:2], angles[2:])]))
    assert got["mean_deg"] == pytest.approx(10)
    assert got["rmse_deg"] == pytest.approx(math.sqrt(500 / 3)) and got["within_11.25"] == pytest.approx(2 / 3)


def test_point_errors_and_best_scale() -> None:
    truth = RNG.normal((0, 0, 4), 1, (50, 3))
    assert m.best_scale(truth * 0.25, truth) == pytest.approx(4)
    noisy = truth + RNG.normal(0, 0.1, truth.shape)
    scale = m.best_scale(noisy, truth)
    errors = [((noisy * s - truth) ** 2).sum() for s in (scale - 1e-3, scale, scale + 1e-3)]
    assert errors[1] == min(errors)
    got = m.pool_points(m.point_sums(m.point_errors(np.array([[0.03, 0.04, 0.0]]), np.zeros((1, 3))))[None])
    assert got["l2"] == pytest.approx(0.05) and got["mae_y"] == pytest.approx(0.04) and got["within_0.1"] == 1


def test_medians_are_those_of_all_values_however_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sapiens2.evaluation.medians._CHUNK", 7)
    images = [RNG.gamma(2, 9, n).clip(0, 180).astype(np.float32) for n in (40, 0, 1, 56)] + [np.full(3, 180.0)]
    medians = Medians(180.0)
    assert np.isnan(medians.exact())
    for image in images:
        medians.add(image)
    assert medians.exact() == pytest.approx(float(np.median(np.concatenate(images))), abs=1e-6)
    medians.add(np.array([50.0]))  # an odd and an even number of values
    assert medians.exact() == pytest.approx(float(np.median(np.concatenate([*images, [50.0]]))), abs=1e-6)
    for drawn in ([0, 0, 3], [3, 2, 1], [4, 4], [0, 1, 2, 3, 4, 5]):
        values = np.sort(np.concatenate([[*images, np.array([50.0])][k] for k in drawn]))
        low, high = (values[k] for k in ((len(values) - 1) // 2, len(values) // 2))
        assert low - 1 / 64 <= medians.near(np.array(drawn)) <= high + 1 / 64
    assert np.isnan(medians.near(np.array([1, 1])))


def test_angles_of_samples_are_pooled_by_pixel() -> None:
    """Sums of images give what all pixels together give, also when images are drawn twice or have no pixel."""
    samples, answers, angles = [], [], []
    for k in range(4):
        truth, answer = RNG.normal(size=(2, 9, 7, 3)).astype(np.float32)
        valid = RNG.random((9, 7)) < (0.0 if k == 2 else 0.6)
        samples.append(Sample(np.zeros((9, 7, 3), np.uint8), normals=truth, valid=valid))
        answers.append({"map": answer})
        angles.append(m.angles_deg(answer, truth, valid))
    statistic = statistic_of("normal", answers, samples)
    for drawn in ([0, 1, 2, 3], [3, 3, 2, 0]):
        together, got = np.concatenate([angles[k] for k in drawn]), statistic(np.array(drawn))
        assert got["mean_deg"] == pytest.approx(together.mean())
        assert got["rmse_deg"] == pytest.approx(np.sqrt((together**2).mean()))
        assert got["within_30"] == pytest.approx((together < 30).mean())
    everything = float(np.median(np.concatenate(angles)))
    assert statistic(np.arange(4))["median_deg"] == pytest.approx(everything, abs=1e-4)
    assert all(np.isnan(value) for value in statistic(np.array([2, 2])).values())


def test_surfaces_are_compared_away_from_silhouettes() -> None:
    """A tilted plane against a level one: their angle, everywhere; rubbish outside the mask changes nothing."""
    u, v = np.meshgrid(np.arange(40) - 19.5, np.arange(30) - 14.5)
    valid = np.zeros((30, 40), bool)
    valid[4:26, 6:35] = True

    def plane(tilt_deg: float) -> np.ndarray:
        """Points of the plane z = 3 + tan(tilt) x, seen by a pinhole of focal length 50 pixels."""
        depth = 3 / (1 - np.tan(np.radians(tilt_deg)) * u / 50)
        return np.stack([u / 50 * depth, v / 50 * depth, depth], -1)

    level = np.where(valid[..., None], plane(0), 1e6)
    angles = m.surface_angles_deg(plane(12), level, valid)
    assert len(angles) == (22 - 4) * (29 - 4)  # the window of 5 pixels fits
    np.testing.assert_allclose(angles, 12, atol=0.05)
    np.testing.assert_allclose(m.surface_angles_deg(plane(7), plane(7), valid), 0, atol=1e-3)


def test_albedo_sums_agree_with_plain_formulas_and_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    truth = RNG.random((40, 32, 3))
    predicted = np.clip(truth + RNG.normal(0, 0.1, truth.shape), 0, 1)
    got = m.pool_albedo([m.albedo_sums(predicted, truth, np.ones((40, 32), bool))])
    assert got["mae"] == pytest.approx(np.abs(predicted - truth).mean())
    assert got["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, predicted, data_range=1))
    gradients = [np.abs(np.diff(predicted - truth, axis=a)).mean(-1).ravel() for a in (0, 1)]
    assert got["gradient_l1"] == pytest.approx(np.concatenate(gradients).mean())
    ours, _ = m.masked_ssim(predicted, truth, np.ones((40, 32), bool))
    _, theirs = structural_similarity(
        truth, predicted, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        full=True,
    )  # fmt: skip
    np.testing.assert_allclose(ours[6:-6, 6:-6], theirs.mean(-1)[6:-6, 6:-6], atol=1e-6)


def test_nothing_to_measure_is_no_score() -> None:
    """No pixel is not perfect albedo; a lone pixel has an error, but neither a window nor a neighbour."""
    truth, valid = RNG.random((12, 12, 3)), np.zeros((12, 12), bool)
    empty = m.albedo_sums(truth + 0.5, truth, valid)
    assert all(np.isnan(value) for value in m.pool_albedo([empty]).values())
    valid[6, 6] = True
    lone = m.pool_albedo([empty, m.albedo_sums(truth + 0.5, truth, valid)])
    assert lone["mae"] == pytest.approx(0.5) and lone["psnr"] == pytest.approx(-20 * np.log10(0.5))
    assert np.isnan(lone["ssim"]) and np.isnan(lone["gradient_l1"])
    nothing = bootstrap(lambda index: m.pool_albedo([empty] * len(index)), 3, rounds=4, seed=0)
    assert all(np.isnan([e.value, e.low, e.high]).all() for e in nothing.values())


def test_albedo_does_not_see_outside_the_mask() -> None:
    truth, predicted = RNG.random((30, 30, 3)), RNG.random((30, 30, 3))
    valid = np.zeros((30, 30), bool)
    valid[5:25, 8:22] = True
    worse = np.where(valid[..., None], predicted, 1e3)
    np.testing.assert_allclose(m.albedo_sums(predicted, truth, valid), m.albedo_sums(worse, truth, valid))


def test_pck_by_hand() -> None:
    truth = np.zeros((3, 2))
    predicted = np.array([[3.0, 4.0], [0, 6.0], [99, 99]])
    assert m.pck_hits(predicted, truth, np.array([True, True, False]), 100.0, 0.05) == (1, 2)


def test_one_image_has_no_interval() -> None:
    got = bootstrap(lambda index: {"a": 0.25, "b": math.nan}, 1, rounds=20, seed=0)
    assert got["a"].value == 0.25 and math.isnan(got["a"].low) and math.isnan(got["a"].high)
    assert got["a"].text() == "0.250" and got["b"].text() == "not measured"


def test_bootstrap_covers_the_mean_of_known_noise() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    got = bootstrap(lambda i: {"mean": float(values[i].mean())}, 400, rounds=400, seed=1)["mean"]
    assert got.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert got.high - got.low == pytest.approx(2 * half, rel=0.2) and got.low < got.value < got.high
    again = bootstrap(lambda i: {"mean": float(values[i].mean())}, 400, rounds=400, seed=1)["mean"]
    assert got == again
    with pytest.raises(ValueError, match="n_test"):
        bootstrap(lambda _: {}, 0, rounds=1, seed=0)


def _pose_sample(points: np.ndarray) -> Sample:
    image = np.zeros((8, 8, 3), np.uint8)
    return Sample(image, keypoints=points.astype(np.float32), labelled=np.ones(308, bool))


def test_perfect_keypoints_score_one() -> None:
    samples = [_pose_sample(RNG.uniform(0, 100, (308, 2))) for _ in range(3)]
    answers = [{"keypoints": s.keypoints, "scores": np.ones(308)} for s in samples]
    got = statistic_of("pose", answers, samples)(np.arange(3))  # type: ignore[arg-type]
    assert got["AP"] == pytest.approx(1) and got["PCK@0.05 all"] == 1 and got["AP left_hand"] == pytest.approx(1)
    assert (
        got["AR left_hand"] == got["AR large"] == 1
        and got["AP large"] == pytest.approx(1)
        and np.isnan(got["AP medium"])
    )


def test_points_are_judged_in_canonical_units() -> None:
    k = np.array([[20.0, 0, 3.5], [0, 20, 2.5], [0, 0, 1]], np.float32)
    points = np.random.default_rng(0).normal((0, 0, 3), 1, (6, 8, 3)).astype(np.float32)
    sample = Sample(np.zeros((6, 8, 3), np.uint8), valid=np.ones((6, 8), bool), points=points, intrinsics=k)
    got = statistic_of("pointmap", [{"map": points * 8 / 20 + np.array([0.1, 0, 0])}], [sample])(np.array([0]))
    assert got["l2"] == pytest.approx(0.1, rel=1e-4) and got["mae_x"] == pytest.approx(0.1, rel=1e-4)
    doubled = statistic_of("pointmap", [{"map": points * 16 / 20}], [sample])(np.array([0]))
    assert doubled["l2_scaled"] == pytest.approx(0, abs=1e-6) and doubled["l2"] > 0.5


def test_mean_map_baselines() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    samples = [
        Sample(
            image,
            mask=np.array([[a, b]], np.uint8),
            valid=np.array([[a > 0, b > 0]]),
            albedo=np.array([[[a / 4] * 3, [b / 4] * 3]], np.float32),
            keypoints=np.full((308, 2), 10.0 * a, np.float32),
            labelled=np.arange(308) < (308 if a else 1),
        )
        for a, b in ((2, 0), (2, 1), (0, 0))
    ]
    np.testing.assert_array_equal(mean_map("segmentation", samples)["labels"], [[2, 0]])
    np.testing.assert_allclose(mean_map("albedo", samples)["map"][0, :, 0], [0.5, 0.25])
    pose = mean_map("pose", samples)["keypoints"]
    np.testing.assert_allclose(pose[0], 40 / 3, rtol=1e-6)
    np.testing.assert_allclose(pose[1], 20)


def test_retrieval_finds_the_likest_picture_and_answers_with_its_labels() -> None:
    from sapiens2.data.synthetic import render
    from sapiens2.evaluation.baselines import label_answer, retrieved, thumbnails
    from sapiens2.evaluation.headline import headline
    from sapiens2.tasks.sample import from_scene

    known = [from_scene(render(seed, 64, 48)) for seed in range(6)]
    queries = [known[k] for k in (4, 1, 3)]
    found = retrieved(thumbnails(queries), thumbnails(known))
    assert found.tolist() == [4, 1, 3]
    for task, perfect in (("pose", 1.0), ("segmentation", 1.0), ("normal", 0.0), ("pointmap", 0.0), ("albedo", 0.0)):
        answers = [label_answer(task, known[k]) for k in found]
        assert headline(task, answers, queries).value(np.arange(3)) == pytest.approx(perfect, abs=1e-3), task
        if task != "segmentation":
            wrong = headline(task, [label_answer(task, known[0])] * 3, queries).value(np.arange(3))
            assert abs(wrong - perfect) > 0.01, task
