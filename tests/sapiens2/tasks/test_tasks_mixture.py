"""Several sources: shares, orders that depend on position alone, weights of 0 for what a source does not label."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sapiens2.data.labelled import DatasetWriter, LabelError
from sapiens2.data.synthetic import render
from sapiens2.engine.config import recipe_of
from sapiens2.tasks import recipes
from sapiens2.tasks.build import TASKS, build_task
from sapiens2.tasks.config import DataSource, FinetuneConfig, data_digest
from sapiens2.tasks.mixture import BLOCK, Deck, Framed, Mixture, shares
from sapiens2.tasks.objective import TaskObjective
from sapiens2.tasks.sample import Sample, from_scene
from sapiens2.tasks.source import TaskSource


def write(folder: Path, count: int = 3, size: tuple[int, int] = (90, 130), labelled: int = 308) -> str:
    """Landscape pictures of people, of which the first `labelled` keypoints are known."""
    with DatasetWriter(str(folder)) as writer:
        for k in range(count):
            sample = from_scene(render(100 + k, *size))
            assert sample.labelled is not None
            writer.add(replace(sample, labelled=sample.labelled & (np.arange(308) < labelled)), f"{k}")
    return str(folder)


def config(task: str, *sources: DataSource, **changes: object) -> FinetuneConfig:
    return recipes.micro(task).model_copy(  # type: ignore[arg-type]
        update={"cache_scenes": False, "sources": sources, "augmentation": "none", **changes}
    )


def test_shares_are_exact_in_every_block() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    decks = [Deck(n, lambda i, n=n: (Sample(picture + np.uint8(n)), None), (0, n)) for n in (3, 5, 7)]  # type: ignore[misc]
    mixture = Mixture(decks, [1, 2, 7], seed=0)
    for block in (0, 3):
        drawn = Counter(int(mixture.sample(block * BLOCK + k)[0].image[0, 0, 0]) for k in range(BLOCK))
        assert drawn == {3: 100, 5: 200, 7: 700}
    drawn = Counter(int(mixture.sample(k)[0].image[0, 0, 0]) for k in range(2 * BLOCK + 57))
    assert mixture.taken(2 * BLOCK + 57) == [drawn[n] for n in (3, 5, 7)] and mixture.taken(0) == [0, 0, 0]
    assert Mixture(decks[:1], [1], seed=0).taken(57) == [57]
    assert shares([1, 1, 1]).sum() == BLOCK and shares([1, 1e9]).tolist() == [1, BLOCK - 1]


def test_a_source_deals_every_sample_once_an_epoch() -> None:
    seen: list[list[int]] = [[], []]

    def deck(n: int) -> Deck:
        def sample(index: int) -> Framed:
            seen[n].append(index)
            return Sample(np.zeros((1, 1, 3), np.uint8)), None

        return Deck(10, sample, (0, n))

    mixture = Mixture([deck(0), deck(1)], [3, 1], seed=5)
    for position in range(2 * BLOCK):
        mixture.sample(position)
    for dealt in seen:
        epochs = [dealt[k : k + 10] for k in range(0, len(dealt), 10)]
        assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1]


@pytest.mark.parametrize("task", TASKS)
def test_labelled_and_synthetic_people_in_one_batch(task: str, tmp_path: Path) -> None:
    """Both collate, losses are finite, and ranks see the halves of what one rank sees."""
    folder = write(tmp_path / "data")
    chosen = config(task, DataSource(), DataSource(path=folder, weight=1), batch=8, scenes=8)
    source = TaskSource(chosen)
    batch = source.batch(0, 0, 1)
    assert batch["images"].shape == (8, 64, 48, 3)
    halves = [TaskSource(chosen).batch(0, rank, 2) for rank in (0, 1)]
    for name, tensor in batch.items():
        assert torch.equal(tensor, torch.cat([half[name] for half in halves])), name
    losses = TaskObjective(chosen, build_task(task, "tiny"))(batch, 0)  # type: ignore[arg-type]
    assert all(torch.isfinite(value) for value in losses.values())


def test_a_set_of_seventy_points_teaches_seventy(tmp_path: Path) -> None:
    """Beside a full set: the loss is blind to the points that a source does not label, and to those alone."""
    seventy, full = write(tmp_path / "seventy", labelled=70), write(tmp_path / "full")
    chosen = config("pose", DataSource(path=seventy), DataSource(path=full), batch=6, scenes=6)
    batch = TaskSource(chosen).batch(0, 0, 1)
    assert batch["labelled"][:, :70].any(1).all()
    few = ~batch["labelled"][:, 70:].any(1)  # the samples of the first source
    assert 0 < few.sum() < 6
    objective = TaskObjective(chosen, build_task("pose", "tiny"))
    heatmaps = torch.randn(6, 308, 16, 12)

    def unlike(samples: torch.Tensor, points: torch.Tensor) -> bool:
        """Whether other heatmaps of these points of these samples give another loss."""
        other = heatmaps + 5 * (samples[:, None] & points)[..., None, None]
        first, second = (objective.losses({"heatmaps": h}, batch) for h in (heatmaps, other))
        return any(not torch.equal(first[name], second[name]) for name in first)

    unlabelled = torch.arange(308) >= 70
    assert not unlike(few, unlabelled) and unlike(~few, unlabelled) and unlike(few, ~unlabelled)


def test_a_pose_is_cropped_to_its_person_and_the_rest_is_shown_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 1)
    pose, _ = TaskSource(config("pose", DataSource(path=folder), batch=1, scenes=1)).sample(0)
    assert pose.keypoints is not None and pose.labelled is not None
    inside = pose.keypoints[pose.labelled]
    assert np.ptp(inside[:, 1]) > 0.5 * 64 or np.ptp(inside[:, 0]) > 0.5 * 48
    points, _ = TaskSource(config("pointmap", DataSource(path=folder), batch=1, scenes=1)).sample(0)
    assert points.points is not None and points.valid is not None and points.intrinsics is not None
    projected = points.points[points.valid] @ points.intrinsics.T
    np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], np.argwhere(points.valid)[:, ::-1], atol=1e-3)
    assert not points.valid[:5].any()  # a landscape has margins above and below


def test_unreadable_samples_end_training_or_are_counted(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 3)
    (tmp_path / "data/masks/1.png").write_bytes(b"broken")
    chosen = config("segmentation", DataSource(path=folder), batch=3, scenes=3)
    with pytest.raises(LabelError, match=r"masks/1\.png: is not a picture"):
        TaskSource(chosen).batch(0, 0, 1)
    source = TaskSource(chosen.model_copy(update={"unreadable": "skip"}))
    assert source.batch(0, 0, 1)["mask"].shape[0] == 3
    assert len(source.mixture.unreadable) == 1
    for k in (0, 2):
        (tmp_path / f"data/masks/{k}.png").write_bytes(b"broken")
    with pytest.raises(LabelError, match="no sample of a source can be read"):
        TaskSource(chosen.model_copy(update={"unreadable": "skip"})).batch(0, 0, 1)


def test_every_sample_is_tried_before_none_can_be_read() -> None:
    """One of nine can be read, wherever an epoch has it: tries go on into the next epoch, whose order is another."""

    def sample(index: int) -> Framed:
        if index != 4:
            raise LabelError(f"row {index}", "is broken", "mend it")
        return Sample(np.full((1, 1, 3), index, np.uint8)), None

    mixture = Mixture([Deck(9, sample, (0, 1))], [1], seed=0, skip=True)
    assert all(mixture.sample(position)[0].image.max() == 4 for position in range(45))
    assert mixture.unreadable == {f"0:{k}" for k in range(9) if k != 4}


def test_a_missing_file_is_part_of_the_digest_where_samples_are_skipped(tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "data", 3))
    strict = config("segmentation", DataSource(path=str(folder)))
    lenient = strict.model_copy(update={"unreadable": "skip"})
    whole = data_digest(strict)
    assert data_digest(lenient) == whole
    names, found = sorted(path.relative_to(folder) for path in folder.rglob("*.png")), {whole}
    for name in names:
        (folder / name).rename(tmp_path / "away.png")
        found.add(data_digest(lenient))
        with pytest.raises(LabelError, match=rf"{name}: is not there"):
            data_digest(strict)
        (folder / name).touch()
        found.add(data_digest(lenient))  # an empty file is not a missing one
        (tmp_path / "away.png").rename(folder / name)
    assert len(names) >= 6 and len(found) == 2 * len(names) + 1 and data_digest(lenient) == whole


def test_the_recipe_knows_the_data_and_not_where_it_lies(tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "data", 1))
    chosen = config("pose", DataSource(path=str(folder), weight=2))
    digest = data_digest(chosen)
    moved = folder.rename(tmp_path / "moved")
    there = config("pose", DataSource(path=str(moved), weight=2))
    assert digest is not None and data_digest(there) == digest and recipe_of(there) == recipe_of(chosen)
    assert recipe_of(chosen)["sources"] == [{"weight": 2.0, "split": "train"}]
    index = moved / "index.jsonl"
    row = json.loads(index.read_text())
    row["keypoints"][0][0] += 1
    index.write_text(json.dumps(row) + "\n")
    assert data_digest(there) != digest
    assert data_digest(config("pose")) is None and data_digest(config("pose", DataSource())) is None
    with pytest.raises(ValueError, match="give it absolute"):
        DataSource(path="data")
