"""The dataset card: its counts are those of the tables, its samples do not depend on order, its pictures are right."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.audit.contact_sheet import blurred, thumbnail
from curation.audit.dataset_facts import histogram, origin, short_name
from curation.stages.card import CardConfig, run, to_blur, wanted_thumbnails
from curation.tables import (
    BALANCE,
    DECISIONS,
    DEDUPED,
    DETECTIONS,
    EDGES,
    IMAGES,
    REJECTS,
    SCORE_COLUMNS,
    SOURCES,
    from_rows,
    image_id,
    source_id,
)

SCRIPT = "<script>alert(1)</script>.jpg"
N = 60
IDS = [image_id(str(i).encode()) for i in range(N)]


def person_px(index: int) -> float:
    return 100.0 + 10 * index


def decide(index: int) -> dict[str, Any]:
    """20 persons too small, 6 unsafe, 34 kept."""
    if person_px(index) < 300:
        return {"keep": False, "reason": "person_too_small", "value": person_px(index), "threshold": 300.0}
    if index >= 54:
        return {"keep": False, "reason": "unsafe", "value": 0.9, "threshold": 0.5}
    return {"keep": True}


def tables() -> dict[str, pa.Table]:
    """60 images; filter keeps 34, of which 30 make ten groups of three; balance keeps 12 of the 14 left."""
    sources = [f"https://host{i % 3}.example/a/{SCRIPT if i == 20 else f'{i}.jpg'}" for i in range(N)]
    images = [
        {"image_id": i, "source": s, "n_sources": 1, "width": 900, "height": 1200, "licence": ("CC0", None)[n % 2]}
        for n, (i, s) in enumerate(zip(IDS, sources))
    ]
    bad = [{"source_id": source_id(f"x{i}"), "source": f"x{i}", "reason": "truncated"} for i in range(5)]
    listed = [{"source_id": source_id(s), "source": s, "image_id": i} for i, s in zip(IDS, sources)] + bad
    boxes = [{"image_id": i, "boxes": [[0, 0, person_px(n), 900]], "box_scores": [0.9]} for n, i in enumerate(IDS)]
    scores = [{"image_id": i, "scored": True, "nsfw": 0.9 if n >= 54 else 0.1} for n, i in enumerate(IDS)]
    filtered = [{"image_id": i, **decide(n)} for n, i in enumerate(IDS)]
    deduped = []
    for n in range(20, 54):
        first = IDS[20 + (n - 20) // 3 * 3] if n < 50 else IDS[n]
        copy = {"reason": "duplicate_phash", "value": 2.0, "threshold": 8.0} if first != IDS[n] else {}
        row = {"image_id": IDS[n], "keep": not copy, "representative_id": first, "group_id": min(first, IDS[n])}
        deduped.append({**row, **copy, "group_id": f"g{first}"})
    left = [row["image_id"] for row in deduped if row["keep"]]
    selection = [{"image_id": i, "keep": n >= 2, "reason": None if n >= 2 else "cap_view"} for n, i in enumerate(left)]
    edges = [{"a": r["representative_id"], "b": r["image_id"], "kind": "phash"} for r in deduped if not r["keep"]]
    balance = [{"axis": "view", "bin": b, "before": 7, "after": 6, "cap": 6, "floor": 1} for b in ("front", "back")]
    return {
        "sources": from_rows(listed, SOURCES),
        "images": from_rows(images, IMAGES).drop_columns(["bytes"]),
        "rejects": from_rows(bad, REJECTS),
        "detections": from_rows(boxes, DETECTIONS),
        "scores": from_rows(scores, pa.schema([("image_id", pa.string()), ("scored", pa.bool_()), *SCORE_COLUMNS])),
        "filtered": from_rows(filtered, DECISIONS),
        "deduped": from_rows(deduped, DEDUPED),
        "edges": from_rows(edges, EDGES),
        "selection": from_rows(selection, DECISIONS),
        "balance": from_rows(balance, BALANCE),
    }


METRICS: dict[str, dict[str, Any]] = {
    "ingest": {"rows_in": 65, "kept": 60, "dropped": {"truncated": 5}, "seconds": 2.0},
    "filter": {
        "rows_in": 60,
        "kept": 34,
        "dropped": {"person_too_small": 20, "unsafe": 6},
        "rules": [
            {"name": "no_person", "column": "person_score", "bound": 0.5},
            {"name": "person_too_small", "column": "person_px", "bound": 300.0},
            {"name": "too_dark", "column": "exposure", "bound": 0.04},
        ],
    },
}


def picture(seed: int, width: int = 120, height: int = 160) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=85)
    return out.getvalue()


@pytest.fixture(scope="module")
def thumbnails() -> dict[str, bytes]:
    return {i: picture(n) for n, i in enumerate(IDS)}


def sheets(fragment: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {s["title"]: s for s in fragment["sections"] if s["type"] == "images"}


def test_the_card_counts_what_the_tables_hold(thumbnails: dict[str, bytes]) -> None:
    result = run(tables(), METRICS, thumbnails, CardConfig())
    facts = json.loads(result.files["card.json"])
    assert (facts["sources"], facts["images"]) == (65, 12)
    assert result.metrics["rows_in"] == result.metrics["kept"] == 12 and not result.metrics["dropped"]
    assert facts["rejects"] == {"truncated": 5}
    assert facts["dropped"] == {
        "filter": {"person_too_small": 20, "unsafe": 6},
        "dedup": {"duplicate_phash": 20},
        "balance": {"cap_view": 2},
    }
    assert facts["duplicates"] == {"groups": 10, "largest": 3, "pairs": {"phash": 20}}
    kept = set(facts["samples"]["kept"])
    assert len(kept) == 12
    expected = Counter(("CC0", "not stated")[IDS.index(i) % 2] for i in kept)
    assert facts["licences"] == dict(expected)
    assert sum(facts["origins"].values()) == 12 and set(facts["origins"]) <= {f"host{i}.example" for i in range(3)}
    assert facts["seconds"] == {"ingest": 2.0}


def test_histograms_hold_every_measured_image_and_the_bound_of_the_rule(thumbnails: dict[str, bytes]) -> None:
    result = run(tables(), METRICS, thumbnails, CardConfig())
    found = {h["column"]: h for h in json.loads(result.files["card.json"])["histograms"]}
    assert found["person_px"]["thresholds"] == [300.0]
    assert found["image_px"]["thresholds"] == []
    assert "exposure" not in found, "it was measured on no image"
    for h in found.values():
        assert sum(h["counts"]) + h["beyond"] == h["measured"] == N
    assert b"threshold 300" in result.files["card.html"]


def test_samples_do_not_depend_on_the_order_of_rows_and_are_bounded() -> None:
    config = CardConfig(kept_samples=5, dropped_samples=3, duplicate_groups=2, group_pictures=2)
    straight = tables()
    turned = {name: t.take(np.random.default_rng(3).permutation(len(t))) for name, t in straight.items()}
    wanted = wanted_thumbnails(straight, config)
    assert wanted == wanted_thumbnails(turned, config)
    assert len(wanted) <= 5 + 4 * 3 + 2 * 2
    assert wanted != wanted_thumbnails(straight, config.model_copy(update={"seed": 1}))
    assert set(wanted) <= set(IDS)


def test_the_representative_stands_first_and_alone_is_marked(thumbnails: dict[str, bytes]) -> None:
    result = run(tables(), METRICS, thumbnails, CardConfig())
    assert result.fragment is not None
    items = sheets(result.fragment)["Duplicate groups"]["items"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        groups.setdefault(item["group"], []).append(item)
    assert len(groups) == 8 and all(len(g) == 3 for g in groups.values())
    for group in groups.values():
        assert [item.get("mark", False) for item in group] == [True, False, False]
        copy = f"copy of {group[0]['caption']}, 2 of 64 hash bits differ"
        assert [item["sub"] for item in group] == ["kept", copy, copy]
    names = {item["caption"] for group in groups.values() for item in group if item.get("mark")}
    dropped = sheets(result.fragment)["Dropped by dedup: duplicate phash"]["items"]
    assert dropped and all(re.fullmatch(r"copy of \S+, 2 of 64 hash bits differ", item["sub"]) for item in dropped)
    assert names & {item["sub"].split()[2].rstrip(",") for item in dropped}


def test_dropped_pictures_state_value_and_threshold(thumbnails: dict[str, bytes]) -> None:
    result = run(tables(), METRICS, thumbnails, CardConfig(dropped_samples=20))
    assert result.fragment is not None
    sheet = sheets(result.fragment)["Dropped by filter: person too small"]
    assert {item["sub"] for item in sheet["items"]} == {f"{person_px(n):.0f} < 300" for n in range(20)}
    assert sheet["note"] == "All 20."


def test_unsafe_pictures_are_blurred_wherever_they_stand(thumbnails: dict[str, bytes]) -> None:
    import base64

    result = run(tables(), METRICS, thumbnails, CardConfig())
    assert result.fragment is not None
    shown = sheets(result.fragment)["Dropped by filter: unsafe"]["items"]
    assert len(shown) == 6
    for item in shown:
        assert item["sub"].startswith("blurred")
        assert base64.b64decode(item["jpeg"]) not in thumbnails.values()
    plain = sheets(result.fragment)["Kept"]["items"]
    assert all(base64.b64decode(item["jpeg"]) in thumbnails.values() for item in plain)


def test_a_score_at_the_bound_is_blurred_and_one_below_is_not() -> None:
    nsfw = pa.array([0.5, np.nextafter(np.float32(0.5), np.float32(0)), None], pa.float32())
    scored = pa.table({"image_id": ["at", "below", "unknown"], "nsfw": nsfw})
    assert to_blur({"scores": scored}, CardConfig()) == {"at"}


def test_blurring_keeps_size_and_colour_and_loses_detail() -> None:
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[:, ::8] = 255  # bars of 8 px period
    pixels[..., 0] = 200
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    soft = np.asarray(Image.open(io.BytesIO(blurred(out.getvalue())))).astype(float)
    assert soft.shape == pixels.shape
    assert np.abs(soft.mean(axis=(0, 1)) - pixels.mean(axis=(0, 1))).max() < 8
    assert soft[..., 1].std() < 0.1 * pixels[..., 1].std()


def test_pictures_without_a_thumbnail_are_counted(thumbnails: dict[str, bytes]) -> None:
    config = CardConfig()
    some = dict(list(thumbnails.items())[:30])
    result = run(tables(), METRICS, some, config)
    assert result.fragment is not None
    kept = sheets(result.fragment)["Kept"]
    absent = 12 - len(kept["items"])
    assert 0 < absent < 12
    assert kept["note"] == f"All 12. {absent} without a thumbnail."
    assert set(wanted_thumbnails(tables(), config)) - set(some)


def test_names_from_the_web_stay_text(thumbnails: dict[str, bytes]) -> None:
    page = run(tables(), METRICS, thumbnails, CardConfig()).files["card.html"].decode()
    assert page.count("<script>") == 1  # the page's own
    assert "script&gt;.jpg" in page
    assert not re.search(r"""(src|href)=["']?https?:""", page)


def test_an_unfinished_curation_has_a_card_too(thumbnails: dict[str, bytes]) -> None:
    only = {name: tables()[name] for name in ("images", "rejects")}
    facts = json.loads(run(only, {}, thumbnails, CardConfig()).files["card.json"])
    assert (facts["images"], facts["dropped"], facts["funnel"]) == (60, {}, [])


def test_a_thumbnail_is_small_upright_and_without_metadata(tmp_path: Path) -> None:
    pixels = np.zeros((400, 1000, 3), np.uint8)
    pixels[:, :100] = (255, 0, 0)  # red at the left of the stored picture
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95, exif=exif)
    made = thumbnail(out.getvalue(), max_side=200)
    assert made is not None
    with Image.open(io.BytesIO(made)) as shown:
        assert shown.format == "JPEG" and shown.size == (80, 200) and not shown.getexif()
        assert np.asarray(shown)[:10, :, 0].mean() > 200 > 50 > np.asarray(shown)[50:, :, 0].mean()


def test_no_thumbnail_of_what_cannot_be_decoded() -> None:
    assert thumbnail(b"not a picture") is None


def test_a_histogram_ends_before_a_long_tail_but_not_before_a_bound() -> None:
    values = [*np.linspace(0, 1, 995).tolist(), *[100.0] * 5]
    edges, counts, beyond = histogram(values, 20, [])
    assert edges[-1] < 60 and sum(counts) + beyond == 1000 and beyond == 5
    edges, counts, beyond = histogram(values, 20, [80.0])
    assert edges[-1] >= 80
    assert histogram([0, 1, 1, 3], 20, []) == ([-0.5, 0.5, 1.5, 2.5, 3.5], [1, 2, 0, 1], 0)


@pytest.mark.parametrize(
    ("source", "where", "name"),
    [
        ("https://a.example/x/y.jpg?w=3", "a.example", "y.jpg"),
        ("pool/cats/y.png", "cats", "y.png"),
        ("s3://b/t.tar::0001.jpg", "t.tar", "0001.jpg"),
        ("y.png", "top folder", "y.png"),
    ],
)
def test_where_a_source_comes_from_and_what_it_is_called(source: str, where: str, name: str) -> None:
    assert (origin(source), short_name(source)) == (where, name)
