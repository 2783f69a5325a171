"""ingest from pools to settled tables: nothing is lost, copies are one image, the same pool gives the same rows."""

from __future__ import annotations

import io
import json
import pickle
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as pillow

from curation.images.items import SourceItem
from curation.images.phash import CANONICAL_PATH
from curation.stages.ingest import (
    IngestConfig,
    IngestPartition,
    Partition,
    apply_settlement,
    fragment,
    list_sources,
    profile_config,
    settle,
)
from curation.tables import IMAGES, REJECTS, SOURCES, image_id, source_id

SMALL = IngestConfig(min_side_px=32, max_bytes=50_000)
Tables = dict[str, pa.Table]


def picture(seed: int, size: tuple[int, int] = (60, 44), kind: str = "JPEG", **options: Any) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    pillow.fromarray(coarse).resize(size, pillow.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


# What a pool is generated from: whole pictures, and every common way not to be one.
CONTENTS: list[tuple[bytes, str | None]] = [
    *((picture(seed), None) for seed in range(4)),
    (picture(4, kind="PNG"), None),
    (picture(5, kind="WEBP"), None),
    (picture(6)[:400], "truncated"),
    (picture(7, size=(20, 20)), "too_small"),
    (picture(8, size=(300, 40)), "extreme_aspect"),
    (b"not a picture", "not_an_image"),
    (b"", "empty"),
    (bytes(60_000), "too_large"),
]


def run(pool: Path | str, config: IngestConfig) -> tuple[list[str], dict[str, Tables]]:
    """pids in order, and the settled tables of each."""
    listing = list_sources(str(pool), config)
    stage = pickle.loads(pickle.dumps(IngestPartition(config)))
    local = {partition.pid: stage(partition) for partition in listing.partitions}
    settlements = settle([(pid, tables["images"].drop_columns(["bytes"])) for pid, tables in reversed(local.items())])
    for pid, tables in local.items():
        assert sum(tables["images"]["n_sources"].to_pylist()) + tables["rejects"].num_rows == tables["sources"].num_rows
        local[pid] = {**tables, "images": apply_settlement(tables["images"], settlements[pid])}
    return list(local), local


def joined(local: dict[str, Tables]) -> Tables:
    return {
        name: pa.concat_tables(tables[name] for tables in local.values()) for name in ("sources", "images", "rejects")
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, len(CONTENTS) - 1), min_size=1, max_size=24), st.integers(1, 9))
def test_every_source_ends_in_exactly_one_place(picks: list[int], rows_per_partition: int) -> None:
    """Against plain Python over the generated folder: which files, which bytes, which reason."""
    config = SMALL.model_copy(update={"rows_per_partition": rows_per_partition})
    with tempfile.TemporaryDirectory() as folder:
        for i, pick in enumerate(picks):
            Path(folder, f"{i:03d}.jpg").write_bytes(CONTENTS[pick][0])
        pids, local = run(folder, config)
    tables = joined(local)
    assert len(pids) == -(-len(picks) // rows_per_partition)
    expected = {f"{i:03d}.jpg": CONTENTS[pick] for i, pick in enumerate(picks)}

    sources = {row["source"]: row for row in tables["sources"].to_pylist()}
    assert sources.keys() == expected.keys() and tables["sources"].num_rows == len(picks)
    for name, (data, reason) in expected.items():
        assert sources[name]["reason"] == reason and sources[name]["source_id"] == source_id(name)
        assert sources[name]["image_id"] == (None if reason else image_id(data))
    good = Counter(image_id(data) for data, reason in expected.values() if reason is None)
    assert dict(zip(tables["images"]["image_id"].to_pylist(), tables["images"]["n_sources"].to_pylist())) == dict(good)
    assert tables["images"].num_rows == len(good)
    rejects = Counter(tables["rejects"]["reason"].to_pylist())
    assert rejects == Counter(reason for _, reason in expected.values() if reason)
    assert sum(good.values()) + sum(rejects.values()) == len(picks)


def test_rows_do_not_depend_on_partitioning(tmp_path: Path) -> None:
    rng = random.Random(3)
    for i in range(30):
        (tmp_path / f"{i:02d}").write_bytes(rng.choice(CONTENTS)[0])
    whole = joined(run(tmp_path, SMALL)[1])
    for rows in (1, 4, 7):
        parts = joined(run(tmp_path, SMALL.model_copy(update={"rows_per_partition": rows}))[1])
        for name in ("sources", "images", "rejects"):
            assert parts[name].to_pylist() == whole[name].to_pylist(), (rows, name)


def test_the_first_partition_owns_a_shared_image(tmp_path: Path) -> None:
    for name, seed in {"a": 0, "b": 1, "c": 0, "d": 0, "e": 1}.items():
        (tmp_path / name).write_bytes(picture(seed))
    pids, local = run(tmp_path, SMALL.model_copy(update={"rows_per_partition": 2}))
    counts = {
        pid: dict(zip(t["images"]["source"].to_pylist(), t["images"]["n_sources"].to_pylist()))
        for pid, t in local.items()
    }
    assert [counts[pid] for pid in pids] == [{"a": 3, "b": 2}, {}, {}]


def test_columns_hold_what_they_say(tmp_path: Path) -> None:
    exif = pillow.Exif()
    exif[274], exif[271] = 6, "Nikon"
    data = picture(1, (90, 50), exif=exif)
    (tmp_path / "turned.png").write_bytes(data)
    (row,) = joined(run(tmp_path, SMALL)[1])["images"].to_pylist()
    assert (row["width"], row["height"], row["orientation"], row["format"]) == (50, 90, 6, "jpeg")
    assert (row["bytes"], row["n_bytes"], row["source"]) == (data, len(data), "turned.png")
    assert json.loads(row["metadata"]) == {"make": "Nikon"} and row["phash"] != row["phash_mirror"]
    assert 0.5 < row["phash_quality"] <= 1


def test_schemas_hold_for_an_empty_and_for_an_all_rejected_partition(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing")
    for partition in (Partition("00000-0", []), list_sources(str(tmp_path), SMALL).partitions[0]):
        tables = IngestPartition(SMALL)(partition)
        assert (tables["sources"].schema, tables["images"].schema, tables["rejects"].schema) == (
            SOURCES,
            IMAGES,
            REJECTS,
        )
        assert tables["images"].num_rows == 0 and tables["rejects"].num_rows == len(partition.items)


def test_captions_and_licences_are_those_of_the_first_source(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(picture(0))
    location = str(tmp_path / "p.jpg")
    items = [
        SourceItem(name, "file", location, caption=caption, licence="MIT", extra=extra)
        for name, caption, extra in [("one", "first", '{"k": 1}'), ("two", "second", None)]
    ]
    tables = IngestPartition(SMALL)(Partition("00000-x", items))
    (image,) = tables["images"].to_pylist()
    assert (image["caption"], image["licence"], image["n_sources"]) == ("first", "MIT", 2)
    assert tables["sources"]["caption"].to_pylist() == ["first", "second"]
    assert tables["sources"]["extra"].to_pylist() == ['{"k": 1}', None]


def test_size_gates_use_upright_sizes_and_exact_bounds(tmp_path: Path) -> None:
    sizes = {"fits": (32, 128), "small": (31, 60), "long": (32, 129)}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(picture(0, size))
    rows = joined(run(tmp_path, SMALL)[1])
    assert rows["images"]["source"].to_pylist() == ["fits"]
    assert dict(zip(rows["rejects"]["source"].to_pylist(), rows["rejects"]["reason"].to_pylist())) == {
        "long": "extreme_aspect",
        "small": "too_small",
    }


def test_the_fragment_counts_every_source(tmp_path: Path) -> None:
    for i in range(24):
        (tmp_path / f"{i:02d}").write_bytes(CONTENTS[i % len(CONTENTS)][0])
    tables = joined(run(tmp_path, SMALL)[1])
    shown = fragment(tables["sources"], tables["images"].drop_columns(["bytes"]), tables["rejects"], SMALL)
    json.dumps(shown)
    sections = {section["title"]: section for section in shown["sections"]}
    outcome = dict(sections["Where every source ended"]["rows"])
    assert outcome == {"sources listed": 24, "distinct images": 6, "exact copies of them": 6, "rejected": 12}
    assert sum(sections["Short side of distinct images"]["counts"]) == 6
    bars = sections["Rejects by reason"]
    assert dict(zip(bars["labels"], bars["series"][0]["values"])) == Counter(tables["rejects"]["reason"].to_pylist())
    assert sum(row[1] for row in sections["Formats"]["rows"]) == 6
    nothing = fragment(tables["sources"][:0], tables["images"][:0], tables["rejects"][:0], SMALL)
    assert json.loads(json.dumps(nothing))["title"] == "Ingest"


def test_configuration_is_checked() -> None:
    assert profile_config("builtin") == profile_config("full") == IngestConfig()
    assert IngestConfig().hash_path == CANONICAL_PATH
    for wrong, said in [
        ({"min_side_px": 0}, "greater than or equal to 1"),
        ({"min_side_px": 500, "max_pixels": 1000}, "lower min_side_px"),
        ({"hash_path": "other"}, "leave it out"),
        ({"min_side": 3}, "Extra inputs"),
    ]:
        with pytest.raises(ValueError, match=said):
            IngestConfig(**wrong)  # type: ignore[arg-type]
    roles = {name: field.json_schema_extra["role"] for name, field in IngestConfig.model_fields.items()}  # type: ignore[index, call-overload]
    assert roles["rows_per_partition"] == roles["fetch_retries"] == "execution" and roles["fetch_epoch"] == "recipe"


def test_a_list_of_urls_that_cannot_be_reached(tmp_path: Path) -> None:
    """The default policy refuses the loopback, so nothing leaves this machine."""
    (tmp_path / "urls.csv").write_text("url,caption\nhttp://127.0.0.1:9/a.jpg,first\nfile:///etc/passwd,second\n")
    tables = joined(run(tmp_path / "urls.csv", SMALL)[1])
    assert tables["rejects"]["reason"].to_pylist() == ["blocked_address", "bad_url"]
    assert tables["rejects"]["image_id"].to_pylist() == [None, None]
    assert tables["sources"]["caption"].to_pylist() == ["first", "second"]
