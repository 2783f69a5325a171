"""Views around a person: from the right place, in the asked share of samples, alike on every path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shard_files

from sapiens2.data.shards import Row
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.held_out import held_out_batches
from sapiens2.pretrain.person_crops import WHOLE, kept_persons, region_of
from sapiens2.pretrain.preparation import reduction
from sapiens2.pretrain.recipes import micro
from sapiens2.pretrain.source import PretrainSource
from sapiens2.pretrain.views import sample

SMALL, LARGE, OTHER = (10.0, 10.0, 40.0, 50.0), (300.0, 200.0, 400.0, 320.0), (50.0, 300.0, 150.0, 420.0)


def config(share: float, side: int = 80) -> PretrainConfig:
    return PretrainConfig(**micro().model_dump() | {"person_crops": share, "person_side": side})


def row(*persons: tuple[float, float, float, float]) -> Row:
    return Row("", b"", 640, 480, persons)


def where(picture_size: tuple[int, int] = (480, 640)) -> np.ndarray:
    """A picture whose red tells the column and whose green the row, as shares of 250."""
    rows, columns = np.mgrid[: picture_size[0], : picture_size[1]]
    red, green = columns / picture_size[1] * 250, rows / picture_size[0] * 250
    return np.stack([red, green, np.zeros_like(red)], -1).astype(np.uint8)


def test_views_show_the_surroundings_of_the_person_and_nothing_else() -> None:
    settings, picture = config(1.0), where()
    x0, y0, x1, y1 = LARGE
    sizes = []
    for index in range(60):
        region = region_of(row(LARGE), settings, index)
        views = sample(picture, settings, index, region)["globals"].reshape(-1, 3).astype(float) / 250
        # 2.5 times the box about its centre, 350 and 260; bicubic weights and rounding reach a little beyond.
        for channel, centre, half, size in ((0, 350, 125, 640), (1, 260, 150, 480)):
            assert views[:, channel].min() > (centre - half) / size - 0.02
            assert views[:, channel].max() < (centre + half) / size + 0.02
        assert region.x0 * 640 < x0 and region.x1 * 640 > x1 and region.y0 * 480 < y0 and region.y1 * 480 > y1
        sizes.append((region.x1 - region.x0) * 640 / 100)
    assert np.quantile(sizes, [0, 0.5, 1]) == pytest.approx([1.25, 1.875, 2.5], abs=0.2)


def test_regions_end_where_the_picture_ends() -> None:
    edge = (0.0, 0.0, 600.0, 470.0)
    for index in range(20):
        region = region_of(row(edge), config(1.0), index)
        assert region.x0 == region.y0 == 0 and max(region) <= 1 and region.x1 > 0.9


def test_the_share_is_kept_and_the_other_samples_are_those_of_whole_pictures() -> None:
    chosen = [region_of(row(LARGE), config(0.5), index) != WHOLE for index in range(1000)]
    assert np.mean(chosen) == pytest.approx(0.5, abs=0.05)
    assert all(region_of(row(), config(1.0), index) == WHOLE for index in range(5))
    assert all(region_of(row(LARGE), config(0.0), index) == WHOLE for index in range(5))


def test_large_persons_are_chosen_alike_and_small_ones_where_there_is_no_other() -> None:
    assert kept_persons(row(SMALL, LARGE, OTHER), 80).tolist() == [list(LARGE), list(OTHER)]
    assert kept_persons(row(SMALL, LARGE), 384).tolist() == [list(LARGE)]
    assert kept_persons(row((700.0, 0.0, 800.0, 50.0)), 80).tolist() == []  # outside of the picture
    left = [region_of(row(SMALL, LARGE, OTHER), config(1.0), index).x1 < 0.5 for index in range(400)]
    assert np.mean(left) == pytest.approx(0.5, abs=0.08)


def with_boxes(folder: Path) -> str:
    rows = []
    for index in range(6):
        picture = shard_files.encode(shard_files.picture(index, 480, 640))
        rows.append(shard_files.row(index, picture, 480, 640) | {"boxes": [list(LARGE)] if index % 2 else []})
    return shard_files.write(folder / "shard.parquet", rows)


def test_every_path_makes_the_same_batch_and_another_one_than_without(tmp_path: Path) -> None:
    file, settings = with_boxes(tmp_path), config(1.0)
    source, plain = PretrainSource([file], settings), PretrainSource([file], config(0.0))
    for step in range(3):  # the third step shows pictures that are in memory
        batch = source.batch(step, 0, 1)
        prepared = source.completed(source.worker()(source.job(step, 0, 1)), step, 0, 1)
        differs = []
        for place, index in enumerate(source.sample_indices(step, 0, 1)):
            assert all(bool((batch[name][place] == prepared[name][place]).all()) for name in batch)
            person = source.order.index(index) % 2 == 1
            differs.append(bool((batch["globals"][place] != plain.batch(step, 0, 1)["globals"][place]).any()) == person)
        assert all(differs)
    (held,), (reference,) = (list(held_out_batches([file], c)) for c in (settings, config(0.0)))
    assert bool((held["globals"] == reference["globals"]).all())


def test_pictures_are_decoded_as_finely_as_the_smallest_region_needs() -> None:
    # 64 pixels from half the area need a side of 91: 1600 x 1200 has it eight times over, a region of 375 four times.
    person = (600.0, 500.0, 900.0, 800.0)
    assert reduction(Row("", b"", 1600, 1200, (person,)), config(0.0)) == 8
    assert reduction(Row("", b"", 1600, 1200, (person,)), config(1.0)) == 4
    assert reduction(Row("", b"", 1600, 1200), config(1.0)) == 8


def test_shards_without_boxes_are_refused_only_where_boxes_are_needed(tmp_path: Path) -> None:
    files = shard_files.shards(tmp_path, 4)
    with pytest.raises(ValueError, match=r"shard_0\.parquet lacks the columns \['boxes'\]"):
        PretrainSource(files, config(0.5))
    assert PretrainSource(files, config(0.0)).batch(0, 0, 1)["globals"].shape[0] == 4
