"""Duplicates in a labelled pool of real pictures: what is found, of each kind, and whether what is merged is right.

Thresholds of DedupConfig were fitted on the half of the pool that the manifest calls `fit`; the figures that count are
those of `measure`, with Wilson intervals. A pair is found when both pictures are in one duplicate group, and merged
when an edge joins them.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation.audit.intervals import wilson
from curation.images import Image, decode
from curation.models.copy_descriptor import build_copy_descriptor
from curation.stages import dedup
from curation.stages.dedup import DedupConfig
from curation.stages.ingest import IngestConfig, IngestPartition, list_sources
from curation.stages.result import StageResult
from curation.tables import DECISIONS, from_rows, scores_schema

ROOT = os.environ.get("SAPIENS2_ACCEPTANCE", "")
POOL = Path(ROOT) / "data" / "pool"
pytestmark = pytest.mark.skipif(
    not (POOL / "manifest.jsonl").is_file(),
    reason="needs SAPIENS2_ACCEPTANCE: a directory with data/pool/manifest.jsonl and its pictures",
)

EXACT = ("exact_copy",)
LIGHT = ("reencode", "resize", "contrast", "brightness", "blur", "grayscale", "webp_q", "png_half")
GEOMETRIC = ("border", "crop", "hflip")
ODD = ("exif", "png16", "palette", "progressive", "cmyk", "jpg_named", "png_named", "webp_named", "animated", "tiny")
OVERLAID = ("watermark", "text_overlay")


@dataclass(frozen=True)
class Found:
    """What dedup made of the pool; files are named as in the manifest."""

    labels: dict[str, dict[str, Any]]
    id_of: dict[str, str]  # file -> image_id; rejected files are absent
    result: StageResult


@cache
def found() -> Found:
    labels = {row["file"]: row for row in map(json.loads, (POOL / "manifest.jsonl").read_text().splitlines())}
    config = IngestConfig(min_side_px=16, max_aspect=100.0)
    tables = [IngestPartition(config)(p) for p in list_sources(str(POOL / "images"), config).partitions]
    images = pa.concat_tables([t["images"] for t in tables])
    first = {image_id: row for row, image_id in reversed(list(enumerate(images["image_id"].to_pylist())))}
    images = images.take(pa.array(sorted(first.values())))
    sources = [row for t in tables for row in t["sources"].to_pylist()]
    id_of = {f"images/{Path(row['source']).name}": row["image_id"] for row in sources if row["image_id"]}
    pixels = {row["image_id"]: _decoded(row["bytes"]) for row in images.select(["image_id", "bytes"]).to_pylist()}
    rows = [{"image_id": i, "keep": True} for i in pixels]
    result = dedup.run(
        images.drop_columns(["bytes"]),
        _described(pixels),
        from_rows(rows, DECISIONS),
        DedupConfig(),
        thumbnails=lambda wanted: {i: pixels[i] for i in wanted},
    )
    return Found(labels, id_of, result)


def _decoded(data: bytes) -> np.ndarray:
    image = decode(data, min_side=320)
    assert isinstance(image, Image)
    return image.pixels


def _described(pixels: dict[str, np.ndarray]) -> pa.Table:
    descriptor = build_copy_descriptor("builtin", {})
    vectors = descriptor.embed(list(pixels.values())).astype(np.float16).astype(np.float32)
    schema = scores_schema(1, descriptor.dim)
    rows = [{"image_id": i, "scored": True, "copy_embedding": v.tolist()} for i, v in zip(pixels, vectors, strict=True)]
    return from_rows(rows, schema)


def kind_of(label: dict[str, Any]) -> str:
    """The row of the table that a labelled copy counts in."""
    name = label["synthetic"] or ""
    named = {"exact copies": EXACT, "light copies": LIGHT, "borders, crops, flips": GEOMETRIC, "odd encodings": ODD}
    for kind, prefixes in {**named, "captions, watermarks": OVERLAID}.items():
        if name.startswith(prefixes):
            return kind
    return f"other: {name}"


def recall(split: str) -> dict[str, list[tuple[str, bool]]]:
    """kind -> [(copy and its transformation, found)] over the labelled pairs of a split that survived ingest."""
    f = found()
    group = {row["image_id"]: row["group_id"] for row in f.result.tables["data"].to_pylist()}
    out: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    real: dict[str, list[str]] = defaultdict(list)
    for file, label in f.labels.items():
        origin = label["synthetic_duplicate_of"]
        if label["split"] != split or file not in f.id_of:
            continue
        if origin and label["dup_group"] and origin in f.id_of:
            same = group[f.id_of[file]] == group[f.id_of[origin]]
            out[kind_of(label)].append((f"{file} {label['synthetic']}", same))
        elif label["dup_group"] and not label["synthetic"]:
            real[label["dup_group"]].append(file)
    for files in real.values():
        for a, file in enumerate(files):
            for other in files[a + 1 :]:
                out["real near-duplicates"].append((f"{file} {other}", group[f.id_of[file]] == group[f.id_of[other]]))
    return out


def merged(split: str) -> list[tuple[str, str, str, float, bool]]:
    """(file, file, kind, distance, right) of every edge whose pictures are of a split."""
    f = found()
    file_of = {image_id: file for file, image_id in reversed(f.id_of.items())}
    out = []
    for edge in f.result.tables["edges"].to_pylist():
        a, b = f.labels[file_of[edge["a"]]], f.labels[file_of[edge["b"]]]
        if split in (a["split"], b["split"]):
            right = a["dup_group"] is not None and a["dup_group"] == b["dup_group"]
            out.append((a["file"], b["file"], edge["kind"], edge["distance"], right))
    return out


def line(name: str, successes: int, n: int) -> str:
    low, high = wilson(successes, n)
    return f"{name:<28} {successes:>4} / {n:<4} {successes / max(n, 1):.3f}  [{low:.3f}, {high:.3f}]"


def test_duplicates_of_the_labelled_pool(capsys: pytest.CaptureFixture[str]) -> None:
    text, share = [], {}
    for split in ("fit", "measure"):
        text.append(f"\nduplicates, split {split}: found / labelled, Wilson 95 %")
        for kind, pairs in sorted(recall(split).items()):
            hits = sum(hit for _, hit in pairs)
            share[split, kind] = hits / len(pairs)
            text.append(line(kind, hits, len(pairs)))
            text += [f"    missed: {name}" for name, hit in pairs if not hit]
        edges = merged(split)
        right = sum(edge[-1] for edge in edges)
        share[split, "precision"] = right / max(len(edges), 1)
        text.append(line("merged pairs that are right", right, len(edges)))
        text += [f"    not labelled: {edge[:4]}" for edge in edges if not edge[-1]]
    text.append(f"metrics: {found().result.metrics}")
    with capsys.disabled():
        print("\n".join(text))
    for kind in ("exact copies", "light copies"):
        assert share["measure", kind] == 1.0, kind
    assert share["measure", "borders, crops, flips"] >= 0.7
    assert share["measure", "precision"] >= 0.98


def test_every_drop_has_a_kept_neighbour() -> None:
    result = found().result
    kept = {row["image_id"] for row in result.tables["data"].to_pylist() if row["keep"]}
    joined = {frozenset((edge["a"], edge["b"])) for edge in result.tables["edges"].to_pylist()}
    for row in result.tables["data"].to_pylist():
        assert row["representative_id"] in kept
        assert row["keep"] or frozenset((row["image_id"], row["representative_id"])) in joined
    assert not [pair for pair in joined if pair <= kept]
