"""A small root with everything in it that may hold a picture, built in a second and without a model."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from PIL import Image as pillow

from components.attempt import Attempt
from components.manifest import CodeRef, InputRef, Manifest
from components.score_cache import ScoreCache
from curation.stages.ingest import IngestConfig, IngestPartition, apply_settlement, list_sources, settle
from curation.tables import CLUSTERS, DEDUPED, DETECTIONS, EDGES, SHARDS, from_rows

CONFIG = IngestConfig(min_side_px=32, rows_per_partition=4)


def picture(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    pillow.fromarray(coarse).resize((60, 44), pillow.Resampling.BICUBIC).save(buffer, "JPEG", comment=f"no {seed} ")
    return buffer.getvalue()


def build_pool(folder):
    """Eight pictures, the fourth of them twice, and one file that is none."""
    folder.mkdir()
    for seed in range(8):
        (folder / f"{seed}.jpg").write_bytes(picture(seed))
    (folder / "9.jpg").write_bytes(picture(4))
    (folder / "notes.jpg").write_text("none")
    return folder


def ingested(pool, denylist=None):
    """The settled tables of a pool by partition, as the ingest step publishes them."""
    partitions = list_sources(str(pool), CONFIG).partitions
    staged = {p.pid: IngestPartition(CONFIG, denylist=denylist)(p) for p in partitions}
    settled = settle([(pid, tables["images"]) for pid, tables in staged.items()])
    return {pid: {**t, "images": apply_settlement(t["images"], settled[pid])} for pid, t in staged.items()}


def commit(root, kind, tables, inputs=(), files=None, metrics=None, config=None, group_rows=256, version=None):
    """Commit tables by partition, and loose files, as one version. inputs: (kind, version) or (role, kind, version)."""
    attempt = Attempt(str(root), kind, version or f"{len(kind):x}" * 16, row_group_rows=group_rows)
    records = {pid: attempt.write_partition(pid, parts, {}) for pid, parts in tables.items()}
    loose = [attempt.write_file(name, data) for name, data in (files or {}).items()]
    manifest = Manifest(
        kind=kind,
        version=attempt.version,
        digest=None,
        step=kind,
        config=config or {},
        inputs=[InputRef(role=ref[0], kind=ref[-2], version=ref[-1]) for ref in inputs],
        metrics=metrics or {},
        code=CodeRef(package_version="0"),
        start="2026",
        end="2026",
    )
    artifact = attempt.publish(manifest, records, None, loose)
    attempt.sweep()
    return artifact


def build_root(root, pool):
    """Returns the image ids by seed of the picture."""
    parts = ingested(pool)
    images = pa.concat_tables(part["images"] for part in parts.values())
    ids = {
        seed: images.filter(pa.array([d == picture(seed) for d in images["bytes"].to_pylist()])) for seed in range(8)
    }
    ids = {seed: table["image_id"][0].as_py() for seed, table in ids.items()}
    sources = sum(part["sources"].num_rows for part in parts.values())
    counts = {"rows_in": sources, "kept": sources - 1, "images": 8, "dropped": {"not_an_image": 1}}
    read = [(a.kind, a.version) for a in [commit(root, "images", parts, metrics=counts)]]
    boxes = {"boxes": [[0, 0, 9, 9]], "box_scores": [0.5], "refined": [False]}
    found = {
        pid: {"data": from_rows([{"image_id": i, **boxes} for i in part["images"]["image_id"].to_pylist()], DETECTIONS)}
        for pid, part in parts.items()
    }
    commit(root, "detections", found, read, metrics={"rows_in": 8, "kept": 8, "dropped": {}})
    group = {"group_id": ids[1]}
    decisions = [
        {
            "image_id": i,
            "keep": s != 2,
            "reason": "duplicate_phash" if s == 2 else None,
            "representative_id": ids[1] if s == 2 else i,
            **(group if s in (1, 2) else {"group_id": i}),
        }
        for s, i in ids.items()
    ]
    edges = from_rows([{"a": ids[1], "b": ids[2], "kind": "phash", "distance": 0.0}], EDGES)
    deduped = commit(root, "deduped", {"all": {"data": from_rows(decisions, DEDUPED), "edges": edges}}, read)
    clusters = from_rows([{"image_id": i, "path": [0], "distance": 0.1} for i in ids.values()], CLUSTERS)
    commit(root, "clusters", {"all": {"data": clusters}}, read)
    kept = [s for s in range(8) if s != 2]
    rows = [
        {"image_id": ids[s], "split": "train", "position": p, "width": 60, "height": 44, "bytes": picture(s)}
        for p, s in enumerate(kept)
    ]
    shards = {f"train-{n:05d}": {"train": from_rows(rows[4 * n : 4 * n + 4], SHARDS)} for n in range(2)}
    cut = {"rows_per_shard": 4, "rows_per_group": 2}
    exported = commit(
        root,
        "shards",
        shards,
        [*read, ("deduped", deduped.version)],
        config=cut,
        group_rows=2,
        metrics={"splits": {"train": 7, "val": 0}},
    )
    run = {"engine": {"seed": 3, "steps": 2}, "batch": 2, "shuffle_window": 2}
    commit(root, "backbone", {}, [("shards", exported.version)], {"out/model.safetensors": b"weights"}, config=run)
    page = f"<img src=data:image/jpeg,{picture(1).hex()}>".encode()
    commit(root, "dataset_card", {}, read, {"card.html": page, "card.json": f'["{ids[1]}", "{ids[3]}"]'.encode()})
    cache = ScoreCache(str(root))
    cache.put("model/at1", {ids[s]: {"v": s} for s in range(4)})
    cache.put("model/at1", {ids[1]: {"v": 9}})
    stopped = Attempt(str(root), "scores", "a" * 16)
    for seed in (1, 3):
        stopped.write_partition(f"p{seed}", {"data": pa.table({"image_id": [ids[seed]]})}, {})
    return ids
