"""From shards to batches: pure, split among ranks, skipping what cannot be read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import shard_files
import torch

from sapiens2.data.shards import Row
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.preparation import decode
from sapiens2.pretrain.recipes import micro
from sapiens2.pretrain.source import PretrainSource

CONFIG = micro()


def changed(**settings: object) -> PretrainConfig:
    return PretrainConfig(**{**CONFIG.model_dump(), **settings})


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_batch_is_a_pure_function_of_its_step(tmp_path: Path) -> None:
    files = shard_files.shards(tmp_path, 10)
    source = PretrainSource(files, CONFIG)
    forwards = [source.batch(step, 0, 1) for step in range(4)]
    backwards = PretrainSource(files, CONFIG)
    for step in reversed(range(4)):
        assert equal(backwards.batch(step, 0, 1), forwards[step])
    threaded = PretrainSource(files, changed(decode_threads=3, cache_mb=0))
    assert equal(threaded.batch(2, 0, 1), forwards[2])
    assert not equal(forwards[0], forwards[1])
    assert forwards[0]["globals"].shape == (4, 2, 64, 64, 3)


def test_ranks_share_the_global_batch(tmp_path: Path) -> None:
    source = PretrainSource(shard_files.shards(tmp_path, 10), changed(batch=8, koleo_group=2))
    whole = source.batch(3, 0, 1)
    parts = [source.batch(3, rank, 4) for rank in range(4)]
    assert equal(whole, {name: torch.cat([part[name] for part in parts]) for name in whole})


def test_an_epoch_shows_every_picture_once(tmp_path: Path) -> None:
    source = PretrainSource(shard_files.shards(tmp_path, 12), CONFIG)
    for epoch in range(2):
        ids = [source.shards[source.order.index(epoch * 12 + i)].image_id for i in range(12)]
        assert len(set(ids)) == 12
    assert [source.order.index(i) for i in range(12)] != [source.order.index(12 + i) for i in range(12)]


def test_corrupt_rows_are_counted_and_replaced_by_the_next(tmp_path: Path) -> None:
    rows = [shard_files.row(i, shard_files.encode(shard_files.picture(i))) for i in range(8)]
    whole = shard_files.encode(shard_files.picture(2))
    rows[2]["bytes"], rows[5]["bytes"], rows[6]["bytes"] = b"not a picture", None, whole[:40]
    file = shard_files.write(tmp_path / "shard.parquet", rows)
    one, other = PretrainSource([file], CONFIG), PretrainSource([file], CONFIG)
    batches = [one.batch(step, 0, 1) for step in range(2)]  # eight positions: the whole epoch
    assert one.skipped == {f"{i:032x}" for i in (2, 5, 6)}
    assert equal(other.batch(1, 0, 1), batches[1])
    order = [one.order.index(i) for i in range(9)]
    place = next(p for p in range(8) if order[p] == 2 and order[p + 1] not in (2, 5, 6))
    assert np.array_equal(one.picture(place), one.picture(place + 1))


@pytest.mark.parametrize(("power", "share"), [(0.0, 1 / 2), (1.0, 1 / 3), (2.0, 1 / 5)])
def test_small_pictures_are_seen_less_often_by_a_power_of_their_side(
    tmp_path: Path, power: float, share: float
) -> None:
    """Half of the pictures have half the side: each is taken w times as often as a large one, w / (1 + w) of all."""
    data = shard_files.encode(shard_files.picture(0, 32, 32))
    rows = [shard_files.row(i, data, *((32, 32) if i % 2 else (64, 64))) for i in range(50)]
    source = PretrainSource([shard_files.write(tmp_path / "s.parquet", rows)], changed(resolution_power=power))
    chosen = [next(source._rows_from(position)) for position in range(2000)]
    assert np.mean(np.array(chosen) % 2) == pytest.approx(share, abs=0.035)
    again = PretrainSource(source.shards._metadata.keys(), source.config)  # type: ignore[arg-type]
    assert [next(again._rows_from(position)) for position in (7, 1999)] == [chosen[7], chosen[1999]]
    place = source.sample_indices(3, 0, 1)[0]
    assert source.job(3, 0, 1)[0][1].image_id == source.shards[chosen[place]].image_id


def test_shards_without_a_readable_picture_are_an_error(tmp_path: Path) -> None:
    file = shard_files.write(tmp_path / "shard.parquet", [shard_files.row(i, b"nothing") for i in range(5)])
    with pytest.raises(ValueError, match="none of the 5 pictures"):
        PretrainSource([file], CONFIG).batch(0, 0, 1)


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    source = PretrainSource(shard_files.shards(tmp_path, 4), CONFIG)
    with pytest.raises(ValueError, match="batch=4 does not divide among 3 ranks"):
        source.batch(0, 0, 3)


def test_large_pictures_are_decoded_no_larger_than_needed(tmp_path: Path) -> None:
    rows = [shard_files.row(0, shard_files.encode(shard_files.picture(0, 1200, 1600)), 1200, 1600)]
    source = PretrainSource([shard_files.write(tmp_path / "s.parquet", rows)], CONFIG)
    # 64 pixels from half the area need a side of 91, 32 from a fifth 72; 1200 / 8 still has 150.
    assert source.picture(0).shape == (150, 200, 3)
    assert PretrainSource(shard_files.shards(tmp_path, 2), CONFIG).picture(0).shape == (160, 120, 3)


@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_decoding_gives_red_green_blue_upright(reduction: int) -> None:
    image = np.zeros((64, 32, 3), np.uint8)
    image[:32] = (250, 10, 60)
    pixels = decode(Row("", shard_files.encode(image), 32, 64), reduction)
    assert pixels is not None and pixels.shape == (64 // reduction, 32 // reduction, 3)
    assert np.abs(pixels[4 // reduction, 4 // reduction].astype(int) - (250, 10, 60)).max() < 6
    turned = Row("", exif_turned(image), 64, 32)
    upright = decode(turned, reduction)
    assert upright is not None and upright.shape == (32 // reduction, 64 // reduction, 3)


def exif_turned(image: np.ndarray) -> bytes:
    """A JPEG whose EXIF says that it must be turned by 90 degrees."""
    import io

    from PIL import Image

    picture, buffer = Image.fromarray(image), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(buffer, "jpeg", exif=exif)
    return buffer.getvalue()


def test_formats_beside_jpeg_are_read() -> None:
    image = shard_files.picture(1, 40, 30)
    for extension in (".png", ".webp"):
        data = cv2.imencode(extension, image[..., ::-1])[1].tobytes()
        pixels = decode(Row("", data, 30, 40), 1)
        assert pixels is not None and np.abs(pixels.astype(int) - image).mean() < 8


def test_the_cache_stays_within_its_budget(tmp_path: Path) -> None:
    files = shard_files.shards(tmp_path, 6)
    source = PretrainSource(files, changed(cache_mb=0))
    source.batch(0, 0, 1)
    assert not source._pictures
    source = PretrainSource(files, CONFIG)
    source.batch(0, 0, 1)
    assert len(source._pictures) == 4
    assert source._cached_bytes == 4 * 160 * 120 * 3
