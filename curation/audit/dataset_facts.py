"""What there is to say about a dataset, counted from the tables of its stages: plain numbers, nothing drawn.

`tables` are the tables of the stages by name (see curation.tables); one that is absent counts as empty, so that a card
can be made of an unfinished curation too.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Tables = Mapping[str, pa.Table]
Row = dict[str, Any]

DECIDING = (("filter", "filtered"), ("dedup", "deduped"), ("balance", "selection"))  # step, its table of decisions
STEPS = ("ingest", "detect", "score", "filter", "dedup", "cluster", "balance", "export")
MATCHED = 32  # dropped rows looked at to find the column that their reason was decided on

# Column of `measurements`: heading, unit.
MEASURES: dict[str, tuple[str, str]] = {
    "image_side_px": ("Short side of the image", "px"),
    "person_side_px": ("Short side of the largest person", "px"),
    "persons": ("Persons per image", "persons"),
    "sharpness": ("Sharpness", ""),
    "exposure": ("Exposure", "mean luminance, 0 to 1"),
    "contrast": ("Contrast", ""),
    "noise": ("Noise", ""),
    "flatness": ("Flatness", "share of the picture without texture"),
    "colour_count": ("Colours", ""),
    "realism": ("Realism", "0 drawn or rendered, 1 photograph"),
    "text_ratio": ("Text overlay", "share of the image area"),
    "text_person_overlap": ("Text over the person", "share of the person box"),
    "aesthetic": ("Aesthetic score", ""),
    "nsfw": ("NSFW score", ""),
    "yaw_deg": ("Head yaw", "degrees, positive to the image's right"),
    "pitch_deg": ("Head pitch", "degrees, positive up"),
}


def column(tables: Tables, name: str, key: str) -> list[Any]:
    """A column as a list; empty when the table is absent."""
    return tables[name][key].to_pylist() if name in tables else []


def rows_of(tables: Tables, name: str, keys: Sequence[str], ids: Iterable[str] | None = None) -> list[Row]:
    """Rows with the given columns, of all images or of `ids` only; empty when the table is absent."""
    if name not in tables:
        return []
    table = tables[name].select(list(keys))
    if ids is not None:
        table = table.filter(pc.is_in(table["image_id"], pa.array(list(ids), pa.string())))
    rows: list[Row] = table.to_pylist()
    return rows


def final_ids(tables: Tables) -> list[str]:
    """The images that the last decision kept; all images when nothing was decided yet."""
    for _, name in reversed(DECIDING):
        if name in tables:
            kept: list[str] = tables[name].filter(tables[name]["keep"])["image_id"].to_pylist()
            return kept
    return column(tables, "images", "image_id")


def funnel(metrics: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows in, kept and dropped by reason of each step that counted them."""
    return [
        {"name": step, "rows_in": m["rows_in"], "kept": m["kept"], "dropped": dict(m["dropped"])}
        for step in STEPS
        if (m := metrics.get(step)) and {"rows_in", "kept", "dropped"} <= set(m)
    ]


def drops(tables: Tables) -> dict[tuple[str, str], list[str]]:
    """Dropped images by (step, reason), most first."""
    found: dict[tuple[str, str], list[str]] = {}
    for step, name in DECIDING:
        for row in rows_of(tables, name, ("image_id", "keep", "reason")):
            if not row["keep"]:
                found.setdefault((step, row["reason"]), []).append(row["image_id"])
    order = [step for step, _ in DECIDING]
    return dict(sorted(found.items(), key=lambda kv: (order.index(kv[0][0]), -len(kv[1]), kv[0][1])))


def sample(ids: Iterable[str], count: int, seed: int) -> list[str]:
    """`count` of the ids, the same whatever their order: those with the smallest keyed hashes."""
    return heapq.nsmallest(count, set(ids), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())


def duplicate_groups(tables: Tables) -> list[list[Row]]:
    """Groups of two and more, largest first; in each, every representative before those it stands for."""
    groups: dict[str, list[Row]] = {}
    keys = ("image_id", "keep", "reason", "value", "threshold", "representative_id", "group_id")
    for row in rows_of(tables, "deduped", keys):
        groups.setdefault(row["group_id"] or row["image_id"], []).append(row)

    def place(row: Row) -> tuple[str, bool, str]:
        return row["image_id"] if row["keep"] else row["representative_id"] or "", not row["keep"], row["image_id"]

    many = [sorted(rows, key=place) for rows in groups.values() if len(rows) > 1]
    return sorted(many, key=lambda rows: (-len(rows), rows[0]["group_id"] or ""))


def measurements(tables: Tables) -> dict[str, dict[str, float]]:
    """Values by measure and image; an image that was not measured is absent."""
    found: dict[str, dict[str, float]] = {}
    if "images" in tables:
        images = tables["images"]
        short = np.minimum(images["width"].to_numpy(), images["height"].to_numpy())
        found["image_side_px"] = dict(zip(images["image_id"].to_pylist(), short.tolist(), strict=True))
    if "detections" in tables:
        ids, sides, counts = person_sides(tables["detections"])
        found["persons"] = dict(zip(ids, counts, strict=True))
        found["person_side_px"] = {i: s for i, s, n in zip(ids, sides, counts, strict=True) if n}
    if "scores" in tables:
        ids = tables["scores"]["image_id"].to_pylist()
        for name in MEASURES:
            if name in tables["scores"].column_names:
                values = zip(ids, tables["scores"][name].to_pylist(), strict=True)
                found[name] = {i: float(v) for i, v in values if v is not None}
    return {name: found[name] for name in MEASURES if found.get(name)}


def person_sides(detections: pa.Table) -> tuple[list[str], list[float], list[int]]:
    """Per image: its id, the short side of its largest person box in px (0 without one), its number of boxes."""
    lists = detections["boxes"].combine_chunks()
    boxes: NDArray[np.float32] = lists.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    owner = pc.list_parent_indices(lists).to_numpy()
    sides = np.zeros(len(detections), np.float32)
    np.maximum.at(sides, owner, np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]))
    counts = np.bincount(owner, minlength=len(detections))
    return detections["image_id"].to_pylist(), sides.tolist(), counts.tolist()


def thresholds(tables: Tables, measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The threshold that filter held each measure against, as far as it dropped anything by it.

    A decision records value and threshold but no column: the column is the one whose measurements are those values.
    """
    by_reason: dict[str, list[Row]] = {}
    for row in rows_of(tables, "filtered", ("image_id", "keep", "reason", "value", "threshold")):
        if not row["keep"] and row["value"] is not None and row["threshold"] is not None:
            by_reason.setdefault(row["reason"], []).append(row)
    found: dict[str, float] = {}
    for rows in by_reason.values():
        some = rows[:MATCHED]
        for name, values in measured.items():
            if all(np.isclose(values.get(r["image_id"], np.nan), r["value"], rtol=1e-4, atol=1e-6) for r in some):
                found.setdefault(name, float(some[0]["threshold"]))
                break
    return found


def histogram(values: Iterable[float], bins: int, threshold: float | None) -> tuple[list[float], list[int], int]:
    """Edges, counts and how many values lie above the last edge.

    The axis ends at the 99.5th percentile where a long tail would flatten the rest, but never short of the threshold.
    Few whole numbers get a bin each.
    """
    data = np.asarray([v for v in values if np.isfinite(v)], dtype=np.float64)
    low, high = float(data.min()), float(data.max())
    if high - low < bins and np.array_equal(data, np.rint(data)):
        edges = np.arange(low - 0.5, high + 1.0)
        return edges.tolist(), np.histogram(data, edges)[0].tolist(), 0
    tail = max(float(np.quantile(data, 0.995)), threshold if threshold is not None else low)
    if high - low > 2 * (tail - low) > 0:
        high = tail
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(data, bins=bins, range=(low, high))
    return [float(f"{e:.6g}") for e in edges], counts.tolist(), int((data > high).sum())


def licences(tables: Tables, ids: Iterable[str]) -> list[str]:
    """The licence of each of the images."""
    return [row["licence"] or "not stated" for row in rows_of(tables, "images", ("image_id", "licence"), ids)]


def origins(tables: Tables, ids: Iterable[str]) -> list[str]:
    """Where each of the images came from: the host of a URL, else the folder or archive."""
    return [origin(row["source"]) for row in rows_of(tables, "images", ("image_id", "source"), ids)]


def origin(source: str) -> str:
    """The host of a URL, the archive of an `archive::member`, the folder of a path."""
    if source.startswith(("http://", "https://")):
        return urlsplit(source).hostname or "unknown host"
    if "::" in source:
        return source.split("::", 1)[0].rsplit("/", 1)[-1]
    return source.rsplit("/", 2)[-2] if "/" in source else "top folder"


def short_name(source: str) -> str:
    """The last part of a source, for a caption."""
    path = urlsplit(source).path if source.startswith(("http://", "https://")) else source.split("::", 1)[-1]
    return path.rstrip("/").rsplit("/", 1)[-1] or source
