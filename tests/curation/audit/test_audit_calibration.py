"""Samples, thresholds, confusion and exclusion, held against what is known of generated pools."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from curation.audit.calibration import Labels, choose, points
from curation.audit.confusion import corrected, matrix, precisions
from curation.audit.exclusion import exclusions
from curation.audit.intervals import clopper_pearson, lower_bound
from curation.audit.sampling import band_edges, by_name, by_score


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 7), (48, 50), (499, 500)])
def test_clopper_pearson_is_that_of_scipy(successes, n):
    wanted = binomtest(successes, n).proportion_ci(0.9, method="exact")
    assert clopper_pearson(successes, n, 0.9) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("method", ["wilson", "clopper-pearson"])
def test_lower_bounds_are_one_sided(method):
    names = {"wilson": "wilson", "clopper-pearson": "exact"}
    for successes, n in ((45, 50), (190, 200), (30, 30)):
        wanted = binomtest(successes, n, alternative="greater").proportion_ci(0.95, method=names[method])
        assert lower_bound(successes / n, n, 0.05, method) == pytest.approx(wanted.low, abs=1e-12)


def test_a_sample_covers_every_band_alike_and_can_be_made_again():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(400), rng.random(600), [np.nan] * 50])
    ids = [f"{i:04d}" for i in range(len(values))]
    strata = by_score(ids, values, labels=100, bands=10, seed=1)
    assert sum(s.population for s in strata) == 1000
    assert sum(len(s.rows) for s in strata) == 100 and len({r for s in strata for r in s.rows}) == 100
    for stratum in strata:
        low, high = -np.inf if stratum.low is None else stratum.low, np.inf if stratum.high is None else stratum.high
        assert ((low <= values[list(stratum.rows)]) & (values[list(stratum.rows)] < high)).all()
        assert ((low <= values) & (values < high)).sum() == stratum.population
    assert max(len(s.rows) for s in strata) - min(len(s.rows) for s in strata) <= 1 + 100 % len(strata)
    order = rng.permutation(len(ids))
    again = by_score([ids[i] for i in order], values[order], labels=100, bands=10, seed=1)
    assert [{ids[r] for r in s.rows} for s in strata] == [{ids[order[r]] for r in s.rows} for s in again]
    assert band_edges(np.array([2.0, 2.0, 2.0]), 4) == []


def test_a_small_group_gives_all_it_has():
    names = ["rare"] * 3 + ["common"] * 97
    strata = {s.name: len(s.rows) for s in by_name([str(i) for i in range(100)], names, labels=40, seed=0)}
    assert strata == {"rare": 3, "common": 37}


def labelled(seed, slope=10.0, pool=5_000, n=500):
    """A pool whose pictures are good with a chance that grows with the score; a stratified sample of it, labelled."""
    rng = np.random.default_rng(seed)
    values = rng.random(pool)
    good = rng.random(pool) < 1 / (1 + np.exp(-slope * (values - 0.3)))
    strata = by_score([str(i) for i in range(pool)], values, n, 10, seed)
    rows = np.array([r for s in strata for r in s.rows])
    which = np.array([k for k, s in enumerate(strata) for _ in s.rows])
    labels = Labels(values[rows], good[rows], which, [s.population for s in strata])
    return values, good, labels, [s.low for s in strata if s.low is not None]


@pytest.mark.parametrize("method", ["wilson", "clopper-pearson"])
def test_the_promised_precision_is_kept_on_the_whole_pool(method):
    broken = chosen = 0
    for seed in range(40):
        values, good, labels, thresholds = labelled(seed)
        point = choose(points(labels, thresholds, "min", method=method), 0.9)
        if point is not None:
            chosen += 1
            broken += good[values >= point.threshold].mean() < 0.9
    assert chosen >= 36
    assert broken <= 3  # five in a hundred were promised


def test_estimates_are_those_of_the_pool_though_bands_are_sampled_unevenly():
    values, good, labels, thresholds = labelled(3, n=2000)
    for point in points(labels, thresholds, "min"):
        kept = values >= point.threshold
        assert point.kept == pytest.approx(kept.mean(), abs=1e-9)
        assert point.precision == pytest.approx(good[kept].mean(), abs=0.03)
        assert point.recall == pytest.approx((good & kept).sum() / good.sum(), abs=0.03)
        assert point.bound < point.precision


def test_an_upper_bound_keeps_the_low_side():
    values = np.array([0.1, 0.2, 0.3, 0.4])
    labels = Labels(values, values < 0.25, np.array([0, 0, 1, 1]), [20, 20])
    found = points(labels, [0.2, 0.4], "max")
    assert [(p.threshold, p.precision, p.kept, p.recall) for p in found] == [(0.2, 1.0, 0.5, 1.0), (0.4, 0.5, 1.0, 1.0)]
    assert choose(found, 0.99) is None


def test_a_band_without_labels_is_said():
    with pytest.raises(ValueError, match=r"no picture of the bands \[1\] was labelled"):
        Labels(np.zeros(2), np.ones(2, bool), np.zeros(2, np.int64), [5, 5]).weights()


def test_a_confusion_matrix_corrects_the_shares():
    rng = np.random.default_rng(0)
    bins = ["back", "front", "side"]
    truth = np.array([[0.8, 0.1, 0.1], [0.05, 0.9, 0.05], [0.2, 0.2, 0.6]])  # P(true | measured)
    population = {"back": 1000, "front": 7000, "side": 2000}
    inside = 0
    for _ in range(30):
        pairs = [(bins[p], bins[rng.choice(3, p=truth[p])]) for p in range(3) for _ in range(80)]
        shares = corrected(matrix(*zip(*pairs, strict=True), bins), population, bins)
        exact = np.array([0.1, 0.7, 0.2]) @ truth
        inside += sum(s.low <= e <= s.high for s, e in zip(shares, exact, strict=True))
        assert sum(s.corrected for s in shares) == pytest.approx(1)
        assert [s.measured for s in shares] == [0.1, 0.7, 0.2]
    assert inside >= 80  # of 90


def test_a_bin_without_labels_is_said_and_precision_per_bin_is_counted():
    counts = matrix(["a", "a", "b"], ["a", "b", "b"], ["a", "b", "c"])
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert {k: v[:2] for k, v in precisions(counts, ["a", "b", "c"]).items()} == {
        **{"a": (2, 0.5), "b": (1, 1.0)},
        "c": (0, None),
    }
    with pytest.raises(ValueError, match=r"no picture of \['c'\] was labelled"):
        corrected(counts, {"a": 1, "c": 1}, ["a", "b", "c"])
    with pytest.raises(ValueError, match="none of the bins"):
        matrix(["x"], ["a"], ["a"])


def test_groups_that_lose_more_than_others_are_flagged_and_chance_is_not():
    rng = np.random.default_rng(1)
    source = np.repeat(["a", "b", "c"], [1000, 1000, 4])
    dropped = np.concatenate([rng.random(1000) < 0.2, rng.random(1000) < 0.4, [True, True, False, False]])
    found = {e.group: e for e in exclusions({"source": source.tolist()}, dropped)}
    assert found["b"].flagged and found["b"].ratio == pytest.approx(2, abs=0.25)
    assert not found["a"].flagged and not found["c"].flagged and found["c"].rate == 0.5
    assert [e.group for e in exclusions({"all": ["one"] * 4}, np.array([True, False, False, False]))] == ["one"]
