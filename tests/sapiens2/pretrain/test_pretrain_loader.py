"""Pretraining batches from worker processes: bit for bit those of the thread, corrupt rows and their count included."""

from __future__ import annotations

from pathlib import Path

import pytest
import shard_files
import torch

from sapiens2.engine.feeder import Feeder
from sapiens2.engine.world import World
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.recipes import micro
from sapiens2.pretrain.source import PretrainSource

CONFIG = PretrainConfig(**{**micro().model_dump(), "batch": 8, "koleo_group": 2, "cache_mb": 0})
FIRST, LAST = 1, 4
CORRUPT = (2, 5, 6)


def rows() -> list[dict[str, object]]:
    """Ten pictures, three of which cannot be read."""
    whole = [shard_files.encode(shard_files.picture(i)) for i in range(10)]
    return [shard_files.row(i, data[: len(data) // 9] if i in CORRUPT else data) for i, data in enumerate(whole)]


def fed(source: PretrainSource, workers: int, rank: int = 0, ranks: int = 1) -> list[dict[str, torch.Tensor]]:
    world = World(rank, ranks, torch.device("cpu"))
    feeder = Feeder(source, world, micro_batches=2, prefetch=2, first=FIRST, last=LAST, workers=workers)
    with feeder:
        return [part for _ in range(FIRST, LAST) for part in feeder.next()]


def assert_equal(ours: list[dict[str, torch.Tensor]], reference: list[dict[str, torch.Tensor]]) -> None:
    assert len(ours) == len(reference)
    for a, b in zip(ours, reference):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("rank", [0, 1])
def test_workers_change_nothing_in_the_batches_or_the_count(tmp_path: Path, rank: int) -> None:
    file = shard_files.write(tmp_path / "shard.parquet", rows())
    sources = {workers: PretrainSource([file], CONFIG) for workers in (0, 1, 2)}
    made = {workers: fed(source, workers, rank, 2) for workers, source in sources.items()}
    for workers in (1, 2):
        assert_equal(made[workers], made[0])
        assert sources[workers].skipped == sources[0].skipped
    assert sources[0].skipped <= {f"{i:032x}" for i in CORRUPT} and sources[0].skipped
    assert sources[1].shards.groups_read <= 2 * sources[0].shards.groups_read  # workers read nothing themselves


def test_a_batch_of_corrupt_rows_only_is_filled_by_others(tmp_path: Path) -> None:
    spoiled = [{**row, "bytes": b"spoiled"} if i != 7 else row for i, row in enumerate(rows())]
    file = shard_files.write(tmp_path / "shard.parquet", spoiled)
    one, other = PretrainSource([file], CONFIG), PretrainSource([file], CONFIG)
    assert_equal(fed(one, 1), fed(other, 0))
    assert len(one.skipped) == len(other.skipped) == 9


def test_workers_of_a_source_without_a_readable_picture_say_so(tmp_path: Path) -> None:
    file = shard_files.write(tmp_path / "shard.parquet", [{**row, "bytes": b"spoiled"} for row in rows()])
    with pytest.raises(ValueError, match="none of the 10 pictures"):
        fed(PretrainSource([file], CONFIG), 1)


def test_shards_on_s3_reach_the_workers(tmp_path: Path, s3_root: str) -> None:
    from sapiens2.engine.storage import upload

    local = shard_files.write(tmp_path / "shard.parquet", rows())
    upload(Path(local), f"{s3_root}/shard.parquet")
    assert_equal(fed(PretrainSource([f"{s3_root}/shard.parquet"], CONFIG), 1), fed(PretrainSource([local], CONFIG), 0))
