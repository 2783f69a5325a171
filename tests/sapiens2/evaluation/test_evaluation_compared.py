"""A test set is measured as it comes: nothing of it stays but sums and the pictures that are drawn."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sapiens2.data.labelled import DatasetWriter
from sapiens2.data.synthetic import render
from sapiens2.evaluation.baselines import label_answer, mean_map
from sapiens2.evaluation.compared import Compared, Item
from sapiens2.evaluation.labelled import constant_mean
from sapiens2.evaluation.measure import MAIN, statistic_of
from sapiens2.tasks.config import DataSource
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.sample import Sample, from_scene


@pytest.mark.parametrize("task", TASKS)
def test_no_sample_is_kept_but_those_that_are_drawn(task: str) -> None:
    alive: list[weakref.ref[Sample]] = []
    constant = label_answer(task, from_scene(render(90, 64, 48)))

    def items() -> Iterator[Item]:
        for seed in range(5):
            sample = from_scene(render(seed, 64, 48))
            alive.append(weakref.ref(sample))
            yield Item(sample, label_answer(task, sample), constant)

    compared = Compared(task, pictures=2, keep_poses=task == "pose")
    compared.take(items())
    gc.collect()
    assert [ref() is not None for ref in alive] == [True, True, False, False, False]
    assert len(compared.poses) == (5 if task == "pose" else 0) and all(not s.image.size for s, _ in compared.poses)
    found = compared.estimates(rounds=20, seed=0)
    main, higher = MAIN[task]
    ours, theirs = found["model"][main].value, found["baseline"][main].value
    assert ours == pytest.approx(1 if higher else 0, abs=1e-3) and (theirs < ours if higher else theirs > ours)
    samples = [from_scene(render(seed, 64, 48)) for seed in range(5)]
    whole = statistic_of(task, [constant] * 5, samples)(np.arange(5))
    assert whole[main] == pytest.approx(theirs) and compared.headlines()["baseline"].value(
        np.arange(5)
    ) == pytest.approx(theirs)


def test_albedo_stands_beside_the_picture_itself() -> None:
    """The picture as albedo, measured apart; other tasks have no such answer."""
    samples = [from_scene(render(seed, 64, 48)) for seed in range(3)]
    constant = mean_map("albedo", samples)
    compared = Compared("albedo", pictures=0)
    compared.take(Item(sample, label_answer("albedo", sample), constant) for sample in samples)
    found = compared.estimates(rounds=20, seed=0)["picture"]["mae"]
    whole = statistic_of("albedo", [{"map": s.image.astype(np.float32) / 255} for s in samples], samples)(np.arange(3))
    assert found.value == pytest.approx(whole["mae"]) and found.low <= found.value <= found.high and found.value > 0.01
    assert compared.headlines()["picture"].value(np.arange(3)) == pytest.approx(whole["mae"])
    assert set(Compared("normal", pictures=0).names) == {"model", "baseline"}


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(ValueError, match="there are no images to evaluate"):
        Compared("normal", pictures=1).estimates(rounds=5, seed=0)


def test_synthetic_people_are_rendered_only_for_data_without_a_training_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        with DatasetWriter(str(tmp_path / split)) as writer:
            writer.add(from_scene(render(1, 64, 48)), "a", split=split)
            writer.add(from_scene(render(2, 64, 48)), "b", split="test")
    asked: list[Sample] = []

    def synthetic() -> Iterator[Sample]:
        asked.append(from_scene(render(7, 64, 48)))
        yield asked[0]

    for split, count in (("train", 0), ("val", 1)):
        source = DataSource(path=str(tmp_path / split), split="test")
        mean = constant_mean("normal", source, synthetic, (64, 48))
        assert len(asked) == count
    np.testing.assert_array_equal(mean["map"], mean_map("normal", asked)["map"])
