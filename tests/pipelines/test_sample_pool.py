"""The sample pool: the same bytes every time, left alone when it is there, and hard in the ways it promises."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from curation.stages.ingest import IngestConfig, IngestPartition, list_sources
from pipelines import sample_pool
from pipelines.sample_pool import build_sample_pool
from pipelines.sample_sources import FRAMINGS, find_pictures

MUST_FAIL = {
    "broken/truncated_40.jpg": {"truncated"},
    "broken/truncated_95.jpg": {"truncated"},
    "broken/truncated.png": {"truncated"},
    "broken/noise_inside.jpg": {"corrupt", "truncated"},
    "broken/bomb.png": {"decompression_bomb"},
    "broken/animated.gif": {"animated"},
    "broken/text.jpg": {"not_an_image"},
    "broken/empty.jpg": {"empty"},
    "broken/header_zeroed.jpg": {"not_an_image"},
    "broken/thumbnail.jpg": {"too_small"},
    "broken/banner.jpg": {"extreme_aspect"},
}


def contents(pool: Path) -> dict[str, str]:
    files = (path for path in pool.rglob("*") if path.is_file())
    return {path.relative_to(pool).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sample_pool(tmp_path_factory.mktemp("demo") / "pool")


def ingested(pool: Path) -> dict[str, pa.Table]:
    config = IngestConfig()
    parts = [IngestPartition(config)(partition) for partition in list_sources(str(pool), config).partitions]
    assert len(parts) == 1
    return parts[0]


def test_bytes_are_reproducible(tmp_path: Path) -> None:
    first, second = (contents(build_sample_pool(tmp_path / name, size="micro")) for name in ("a", "b"))
    assert first == second and 12 <= len(first) <= 16
    assert contents(build_sample_pool(tmp_path / "c", size="micro", seed=1)) != first


def test_a_pool_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = build_sample_pool(tmp_path / "pool", size="micro")
    before = contents(pool)
    assert [path.name for path in tmp_path.iterdir() if path != pool] == [".pool.sample-pool.json"]
    with monkeypatch.context() as patch:
        patch.setattr(sample_pool, "_files", lambda *_: pytest.fail("built again"))
        build_sample_pool(tmp_path / "pool", size="micro")
    (pool / "broken" / "text.jpg").unlink()
    assert contents(build_sample_pool(tmp_path / "pool", size="micro")) == before
    (pool / "mine.jpg").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"mine\.jpg"):
        build_sample_pool(tmp_path / "pool", size="micro")
    assert (pool / "mine.jpg").read_bytes() == b"precious"


def test_demo_has_what_a_web_pool_has(demo: Path) -> None:
    assert 90 <= len(contents(demo)) <= 150
    tables = ingested(demo)
    rejects = dict(zip(tables["rejects"]["source"].to_pylist(), tables["rejects"]["reason"].to_pylist()))
    for name, reasons in MUST_FAIL.items():
        assert rejects.pop(name) in reasons, name
    assert set(rejects.values()) <= {"too_small"} and all(name.startswith("things/") for name in rejects)
    images = {row["source"]: row for row in tables["images"].drop_columns(["bytes"]).to_pylist()}
    assert {row["orientation"] for row in images.values()} == {1, 3, 6, 8}
    assert {row["format"] for row in images.values()} >= {"jpeg", "png", "webp"}
    assert images["formats/png_named.jpg"]["format"] == "png"
    assert sum(row["n_sources"] > 1 for row in images.values()) >= 5


def test_exif_pictures_are_upright_like_their_originals(demo: Path) -> None:
    """Each EXIF variant is a crop of a person picture: upright it has that picture's shape."""
    images = {row["source"]: row for row in ingested(demo)["images"].drop_columns(["bytes"]).to_pylist()}
    shapes = {(row["width"] - 60, row["height"] - 60) for name, row in images.items() if name.startswith("people/")}
    for value in (3, 6, 8):
        row = images[f"formats/exif_{value}.jpg"]
        assert row["orientation"] == value and (row["width"], row["height"]) in shapes


def test_people_are_not_copies_of_each_other(demo: Path) -> None:
    tables = ingested(demo)["images"].select(["source", "phash", "phash_mirror", "width", "height"]).to_pylist()
    people = [row for row in tables if row["source"].startswith("people/")]
    assert len(people) >= (60 if "bus" in find_pictures() else 25)
    assert min(min(row["width"], row["height"]) for row in people) >= 600
    for i, a in enumerate(people):
        for b in people[:i]:
            apart = min((a["phash"] ^ b["phash"]).bit_count(), (a["phash_mirror"] ^ b["phash"]).bit_count())
            assert apart > 4, (a["source"], b["source"], apart)
    assert Counter(row["source"].split("/")[1].split("_")[0] for row in people).keys() >= {"hopper", "astronaut"}


def test_it_works_with_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_pictures()
    only = {name: path for name, path in found.items() if name in ("hopper", "astronaut")}
    monkeypatch.setattr(sample_pool, "find_pictures", lambda: only)
    pool = build_sample_pool(tmp_path / "few")
    assert len(contents(pool)) >= 50
    assert build_sample_pool(tmp_path / "few-micro", size="micro").is_dir()
    monkeypatch.setattr(sample_pool, "find_pictures", dict)
    with pytest.raises(ValueError, match="install"):
        build_sample_pool(tmp_path / "none")
    with pytest.raises(ValueError, match="demo, micro"):
        build_sample_pool(tmp_path / "none", size="huge")


def test_framings_lie_inside_their_pictures() -> None:
    from PIL import Image

    for framing in FRAMINGS:
        if path := find_pictures().get(framing.picture):
            with Image.open(path) as picture:
                x0, y0, x1, y1 = framing.crop
                assert 0 <= x0 < x1 <= picture.width and 0 <= y0 < y1 <= picture.height, framing
