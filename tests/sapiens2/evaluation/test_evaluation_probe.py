"""Frozen probes: what is in the features is read, what is not is not, and one seed gives one answer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scene_oracle import SIZE, Blind, Oracle, config

from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.dense_probe import Decoder, answers, fit, output_grid, split
from sapiens2.evaluation.headline import headline
from sapiens2.evaluation.measure import MAIN, statistic_of
from sapiens2.evaluation.probe import FittedProbe, ProbeResult, probe_backbone
from sapiens2.evaluation.probe_scenes import ProbeScenes, targets
from sapiens2.evaluation.semantic_probe import Ridge, nearest, vote
from sapiens2.evaluation.tables import layout
from sapiens2.tasks.head_specs import TASKS


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProbeScenes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield ProbeScenes(config())


@pytest.fixture(scope="module")
def oracle(scenes: ProbeScenes) -> ProbeResult:
    return probe_backbone(Oracle(scenes), config(), scenes=scenes)


def test_what_the_features_hold_is_read(oracle: ProbeResult) -> None:
    assert oracle.main["pose_class.linear.cls"] > 0.9 and oracle.main["pose_class.knn.cls"] > 0.9
    assert oracle.main["colour.cls"] > 0.8 > oracle.main["colour.mean"]
    for task, least in (("normal", 0.15), ("albedo", 0.15)):
        assert oracle.gain(task) > least, task


def test_what_they_do_not_hold_is_not(scenes: ProbeScenes, oracle: ProbeResult) -> None:
    blind = probe_backbone(Blind(), config(), scenes=scenes)
    assert blind.main["pose_class.linear.cls"] < 0.5
    for task in ("pose", "segmentation", "normal", "albedo"):  # the oracle says nothing of depth
        assert blind.gain(task) < oracle.gain(task), task
        assert blind.baseline[task] == oracle.baseline[task]
    assert blind.score < oracle.score


def test_a_result_says_how_sure_it_is(oracle: ProbeResult) -> None:
    assert set(oracle.main) == set(oracle.baseline) == set(oracle.per_image) == set(oracle.higher_is_better)
    for key, estimate in oracle.estimates.items():
        assert estimate.low <= estimate.value <= estimate.high
        assert oracle.per_image[key].shape == (16,)
    one = oracle.per_image["pose_class.linear.cls"]
    assert 1 - one.mean() == oracle.main["pose_class.linear.cls"]
    assert np.nanmean(oracle.per_image["colour.mean"]) == pytest.approx(1 - oracle.main["colour.mean"])
    assert oracle.score == pytest.approx(np.mean([oracle.gain(task) for task in TASKS]))
    assert [row[0] for row in oracle.table()] == list(oracle.main)


def test_every_column_of_table_2_has_its_interval(oracle: ProbeResult) -> None:
    """Where the column is the probe's own metric, both ways to compute it agree; the others hold their number."""
    assert set(oracle.printed) == {column.metric for column in layout("probe").columns}
    for column, key in (("normal.mean_deg", "normal"), ("pointmap.l2", "pointmap"), ("albedo.mae", "albedo")):
        for part in ("value", "low", "high"):
            told, other = getattr(oracle.printed[column], part), getattr(oracle.estimates[key], part)
            assert told == pytest.approx(other, rel=1e-6), (column, part)
    for column, estimate in oracle.printed.items():
        assert estimate.low <= estimate.value <= estimate.high, column
    for column in ("normal.within_22.5", "segmentation.mIoU"):
        assert oracle.printed[column].low < oracle.printed[column].high


def test_the_same_seed_gives_the_same_numbers(scenes: ProbeScenes, oracle: ProbeResult) -> None:
    torch.manual_seed(123)
    one = config(tasks=("albedo",))
    again = probe_backbone(Oracle(scenes), one, scenes=scenes)
    assert again.main == {key: value for key, value in oracle.main.items() if key in again.main}
    other = probe_backbone(Oracle(scenes), one.model_copy(update={"seed": 1}), scenes=scenes)
    assert other.main["albedo"] != oracle.main["albedo"]


def test_validation_scenes_are_others_of_the_same_families(scenes: ProbeScenes) -> None:
    fitted, val = scenes.images("fit"), scenes.images("val")
    assert not any(np.array_equal(a, b) for a in fitted for b in val)
    assert set(scenes.classes("val")) <= set(scenes.classes("fit")) | {"wave"}
    assert not set(scenes.classes("test")) & set(scenes.classes("fit"))
    assert set(scenes.classes("transfer")) <= set(scenes.classes("fit")) | {"wave"}


def test_splits_are_measured_with_the_same_fit(scenes: ProbeScenes) -> None:
    fitted = FittedProbe(Oracle(scenes), config(tasks=("normal",)), scenes)
    val, test = fitted.measure("val"), fitted.measure("test")
    assert val.main["normal"] != test.main["normal"]
    assert test.main["normal"] == fitted.measure("test").main["normal"]
    with pytest.raises(ValueError, match="use one of val, test"):
        fitted.measure("train")


@pytest.mark.parametrize("task", TASKS)
def test_headlines_are_the_full_metrics(task: str, scenes: ProbeScenes) -> None:
    samples = list(scenes.samples("test"))
    patches = torch.randn(len(samples), 8, 8, 6, generator=torch.Generator().manual_seed(0))
    decoder = Decoder(8, task, config())
    torch.manual_seed(0)
    torch.nn.init.normal_(decoder.last.weight)  # type: ignore[union-attr]
    given = list(answers(task, decoder, patches, SIZE))
    measured = headline(task, given, samples)
    statistic = statistic_of(task, given, samples)
    for index in (np.arange(16), np.array([3, 3, 7])):
        assert measured.value(index) == pytest.approx(statistic(index)[MAIN[task][0]], rel=1e-9)
    first = statistic(np.array([0]))[MAIN[task][0]]
    assert measured.errors()[0] == pytest.approx(1 - first if MAIN[task][1] else first)


@pytest.mark.parametrize("decoder", ["shuffle", "linear"])
@pytest.mark.parametrize("task", TASKS)
def test_a_decoder_starts_from_the_constant_answer_and_learns(task: str, decoder: str, scenes: ProbeScenes) -> None:
    settings = config(decoder=decoder, steps=5)
    grid = output_grid(task, (8, 6))
    labels = targets(task, scenes.fitted, grid)
    patches = torch.randn(32, 24, 8, 6, generator=torch.Generator().manual_seed(0))
    one = fit(task, patches, labels, settings.model_copy(update={"steps": 1, "lr": 1e-12}))
    started = one(patches[:2])
    assert tuple(started.shape[2:]) == grid
    assert (started - started.mean((0, 2, 3), keepdim=True)).abs().max() < 1e-5
    trained = fit(task, patches, labels, settings)(patches[:2])
    assert (trained - started).abs().max() > 1e-3


def test_a_cell_is_split_as_pixel_shuffle_does() -> None:
    x = torch.randn(2, 3, 4, 4 * 5)
    channels_first = x.unflatten(-1, (4, 5)).transpose(-1, -2).flatten(-2).movedim(-1, 1)
    assert torch.equal(split(x, 2).movedim(-1, 1), torch.nn.functional.pixel_shuffle(channels_first, 2))


def test_ridge_chooses_by_the_left_out_error() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 30)), rng.normal(size=(20, 2))
    model = Ridge(x, y)
    z, level = (x - x.mean(0)) / x.std(0), y.mean(0)
    errors, weights = [], []
    scale = np.linalg.eigvalsh(z @ z.T).mean()
    from sapiens2.evaluation.semantic_probe import PENALTIES

    for penalty in PENALTIES * scale:
        fitted = np.linalg.solve(z.T @ z + penalty * np.eye(30), z.T @ (y - level))
        left = []
        for i in range(20):
            others = np.arange(20) != i
            a, b = z[others] - z[others].mean(0), y[others] - y[others].mean(0)
            w = a.T @ np.linalg.solve(a @ a.T + penalty * np.eye(19), b)
            left.append(((z[i] - z[others].mean(0)) @ w + y[others].mean(0) - y[i]) ** 2)
        errors.append(np.mean(left))
        weights.append(fitted)
    np.testing.assert_allclose(model.errors, errors, rtol=1e-8)
    np.testing.assert_allclose(model.weights, weights[int(np.argmin(errors))], atol=1e-8)
    known = np.arange(20) < 12
    np.testing.assert_allclose(Ridge(x, y, known)(x), Ridge(x[known], y[known])(x))


def test_votes_of_the_nearest() -> None:
    rng = np.random.default_rng(1)
    known, queries, labels = rng.normal(size=(30, 6)), rng.normal(size=(7, 6)), rng.integers(0, 3, 30)
    order, cosine = nearest(queries, known, 5)
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    full = unit(queries) @ unit(known).T
    for row in range(7):
        best = sorted(range(30), key=lambda j: -full[row, j])[:5]
        assert list(order[row]) == best
        votes = [sum(np.exp(full[row, j] / 0.07) for j in best if labels[j] == c) for c in range(3)]
        assert vote(queries, known, labels, 3, 5)[row] == int(np.argmax(votes))
    np.testing.assert_allclose(cosine, np.take_along_axis(full, order, 1))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="too small for a scene"):
        ProbeConfig(image_size=(8, 8))
    with pytest.raises(ValueError, match="tasks is empty"):
        ProbeConfig(tasks=())
