"""What there is to say about a dataset, counted from the tables of its stages: plain numbers, nothing drawn.

`tables` are the tables of the stages by name (see curation.tables); one that is absent counts as empty, so that a card
can be made of an unfinished curation too.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.audit.funnel import level
from curation.stages.measures import floats, largest_person_px

Tables = Mapping[str, pa.Table]
Metrics = Mapping[str, Mapping[str, Any]]  # by step
Row = dict[str, Any]

DECIDING = (("filter", "filtered"), ("dedup", "deduped"), ("balance", "selection"))  # step, its table of decisions
STEPS = ("ingest", "detect", "score", "filter", "dedup", "cluster", "balance", "export")

# Column of `measurements`, named as the rules of filter name theirs: heading, unit.
MEASURES: dict[str, tuple[str, str]] = {
    "person_px": ("Short side of the largest person", "px"),
    "person_score": ("Best person score", ""),
    "persons": ("Persons per image", "persons"),
    "image_px": ("Short side of the image", "px"),
    "aspect": ("Aspect", "long side / short side"),
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


def funnel(metrics: Metrics) -> list[Row]:
    """Rows in, kept and dropped by reason of each step that counted them."""
    levels = [(step, level(metrics.get(step) or {})) for step in STEPS]
    return [{"name": step, **asdict(found)} for step, found in levels if found]


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


def measurements(tables: Tables, min_person_score: float) -> dict[str, list[float]]:
    """Values by measure, of the images in which it was measured. Persons are boxes of at least the given score."""
    found: dict[str, list[float]] = {}
    if "images" in tables:
        sides = np.stack([floats(tables["images"][name]) for name in ("width", "height")])
        found["image_px"] = sides.min(axis=0).tolist()
        found["aspect"] = (sides.max(axis=0) / np.maximum(sides.min(axis=0), 1)).tolist()
    if "detections" in tables:
        sizes = largest_person_px(tables["detections"], min_person_score)
        found["person_px"] = sizes[sizes > 0].tolist()
        scores = [row or [] for row in tables["detections"]["box_scores"].to_pylist()]
        found["persons"] = [float(sum(s >= min_person_score for s in row)) for row in scores]
        found["person_score"] = [max(row) for row in scores if row]
    if "scores" in tables:
        for name in set(MEASURES) & set(tables["scores"].column_names):
            found[name] = [float(v) for v in tables["scores"][name].to_pylist() if v is not None]
    return {name: found[name] for name in MEASURES if found.get(name)}


def thresholds(metrics: Metrics) -> dict[str, list[float]]:
    """The bounds that filter held each column against, as its metrics state them."""
    found: dict[str, list[float]] = {}
    for rule in metrics.get("filter", {}).get("rules", []):
        found.setdefault(rule["column"], []).append(float(rule["bound"]))
    return found


def min_person_score(metrics: Metrics) -> float:
    """The score from which filter counted a box as a person; 0 when it does not say."""
    return min(thresholds(metrics).get("person_score", [0.0]))


def histogram(values: Iterable[float], bins: int, bounds: Sequence[float]) -> tuple[list[float], list[int], int]:
    """Edges, counts and how many values lie above the last edge.

    The axis ends at the 99.5th percentile where a long tail would flatten the rest, but never short of a bound.
    Few whole numbers get a bin each.
    """
    data = np.asarray([v for v in values if np.isfinite(v)], dtype=np.float64)
    low, high = float(data.min()), float(data.max())
    if high - low < bins and np.array_equal(data, np.rint(data)):
        edges = np.arange(low - 0.5, high + 1.0)
        return edges.tolist(), np.histogram(data, edges)[0].tolist(), 0
    tail = max(float(np.quantile(data, 0.995)), *bounds, low)
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
