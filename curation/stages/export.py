"""export: the selection as training-ready Parquet, in a keyed order, train and val disjoint by duplicate group."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.config import Config, execution, recipe
from curation.stages.measures import rows_for
from curation.tables import DECISIONS, SHARDS, from_rows, require_columns

__all__ = ["ExportConfig", "ShardPlan", "build_shard", "fragment", "held_out", "locate", "plan", "profile_config"]

SPLITS = ("train", "val")
_KEYS_AT_A_TIME = 1 << 14  # keys that are Python strings at once: they stay in the cache of the processor
LABELLED_TEST = "labelled_test"  # the reason of a picture that is kept for tests


class ExportConfig(Config):
    """How the selection is split and cut into files."""

    val_share: float = recipe(0.05, "duplicate groups held out for validation, as a share", ge=0, lt=1)
    rows_per_shard: int = recipe(512, "pictures in one file, as a count", ge=1)
    rows_per_group: int = recipe(64, "pictures in one Parquet row group, as a count", ge=1)
    hold_out: Literal["all", "none"] | tuple[str, ...] = recipe(
        "all", "labels whose test pictures, and duplicates of them, are kept out: all, none, or a list of versions"
    )
    seed: int = recipe(0, "of the split and of the order, no unit", ge=0)
    workers: int = execution(2, "processes that write files side by side; 0 works in the calling process", ge=0)


def profile_config(profile: str) -> ExportConfig:
    """The same files in every profile."""
    return ExportConfig()


@dataclass(frozen=True)
class ShardPlan:
    """One file: these pictures in this order. `first_position` is that of its first row in its split."""

    pid: str
    split: str
    image_ids: tuple[str, ...]
    first_position: int


def held_out(selection: pa.Table, deduped: pa.Table, labelled: pa.Table) -> pa.Table:
    """The selected pictures that are labelled for tests, or duplicates of such a picture: dropped rows of DECISIONS.

    labelled: image_id, group_id and split of labelled pictures. Their groups count as this dedup has them, and as the
    dedup had them from which they were labelled. `representative_id` is the labelled picture.
    """
    require_columns(labelled, ["image_id", "group_id", "split"], "export: labels")
    groups = dict(zip(deduped["image_id"].to_pylist(), deduped["group_id"].to_pylist(), strict=True))
    test: dict[str, str] = {}
    for row in sorted(labelled.to_pylist(), key=lambda row: str(row["image_id"])):
        if row["split"] == "test":
            for group in {row["group_id"], groups.get(row["image_id"], row["group_id"])}:
                test.setdefault(group, row["image_id"])
    kept = sorted(selection.filter(selection["keep"])["image_id"].to_pylist())
    rows = [
        {"image_id": i, "keep": False, "reason": LABELLED_TEST, "representative_id": test[groups[i]]}
        for i in kept
        if groups[i] in test
    ]
    return from_rows(rows, DECISIONS)


def plan(
    selection: pa.Table, deduped: pa.Table, config: ExportConfig, *, without: Collection[str] = ()
) -> list[ShardPlan]:
    """The files of both splits, train first. A pure function of ids, groups and seed: input order does not matter.

    without: ids of pictures that are held out. Raises ValueError for missing columns, or selected pictures that dedup
    does not know.
    """
    require_columns(selection, ["image_id", "keep"], "export: selection")
    require_columns(deduped, ["image_id", "group_id"], "export: deduped")
    kept = pc.unique(selection.filter(selection["keep"])["image_id"].cast(pa.string()))
    if without:
        kept = kept.filter(pc.invert(pc.is_in(kept, pa.array(sorted(without), pa.string()))))
    groups = rows_for(deduped, kept, "export: deduped", ["group_id"])["group_id"].combine_chunks().dictionary_encode()
    held = _validation(groups.dictionary, config.val_share, config.seed)[groups.indices.to_numpy()]
    plans = []
    for split, chosen in zip(SPLITS, (~held, held), strict=True):
        own = kept.filter(pa.array(chosen))
        ordered = own.take(pa.array(_lots(config.seed, "order", own)[0]))
        for index, start in enumerate(range(0, len(ordered), config.rows_per_shard)):
            rows = tuple(ordered[start : start + config.rows_per_shard].to_pylist())
            plans.append(ShardPlan(f"{split}-{index:05d}", split, rows, start))
    return plans


def _lots(seed: int, purpose: str, keys: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(the order of distinct keys by their lots, the lots in 0..1): the sha256 of seed, purpose and key, as a number.

    The same lot wherever and whenever it is drawn, so the order does not depend on that of the keys.
    """
    start, words = f"{seed}/{purpose}/".encode(), np.empty((len(keys), 4), np.uint64)  # 64 bits of the number at a time
    for at in range(0, len(keys), _KEYS_AT_A_TIME):
        some = keys[at : at + _KEYS_AT_A_TIME].to_pylist()
        digests = b"".join([hashlib.sha256(start + key.encode()).digest() for key in some])
        words[at : at + len(some)] = np.frombuffer(digests, ">u8").reshape(-1, 4)
    first = words[:, 0].copy()
    order = np.argsort(first)
    ranked = first[order]
    if (ranked[1:] == ranked[:-1]).any():
        order = np.lexsort(words.T[::-1])
    return order, first / 2.0**64


def validation_groups(group_ids: Iterable[str], share: float, seed: int) -> set[str]:
    """The groups whose draw falls below `share`, so that a group never changes sides when others come or go.

    Where there are two groups or more and a share to hold out, each side has at least one: the lowest draw is held
    out, the highest is not.
    """
    groups = pa.array(dict.fromkeys(group_ids), pa.string())
    return set(groups.filter(pa.array(_validation(groups, share, seed))).to_pylist())


def _validation(groups: pa.Array, share: float, seed: int) -> NDArray[np.bool_]:
    """Whether each of the distinct groups is held out, bool [G]; see `validation_groups`."""
    held = np.zeros(len(groups), bool)
    if share and len(groups) > 1:
        order, lots = _lots(seed, "split", groups)
        held[order[: min(max(int((lots < share).sum()), 1), len(groups) - 1)]] = True
    return held


def locate(plans: Sequence[ShardPlan], split: str, position: int) -> tuple[ShardPlan, int]:
    """The file that holds a position of a split, and its row there. Raises IndexError outside the split."""
    own = sorted((p for p in plans if p.split == split), key=lambda p: p.first_position)
    index = bisect_right([p.first_position for p in own], position) - 1
    if position < 0 or index < 0 or position - own[index].first_position >= len(own[index].image_ids):
        rows = sum(len(p.image_ids) for p in own)
        raise IndexError(f"{split} has the positions 0..{rows - 1}, not {position}")
    return own[index], position - own[index].first_position


def build_shard(
    plan: ShardPlan, images: pa.Table, detections: pa.Table, attributes: pa.Table, deduped: pa.Table
) -> pa.Table:
    """The rows of one file, in plan order. `images` holds bytes; tables may have more rows than the plan.

    Raises ValueError for missing columns or rows.
    """
    ids = list(plan.image_ids)
    require_columns(images, ["image_id", "width", "height", "caption", "licence", "source", "bytes"], "export: images")
    pictures = rows_for(images, ids, "export: images")
    bins: dict[str, dict[str, str]] = {image_id: {} for image_id in ids}
    for image_id, axis, name in zip(*(attributes[c].to_pylist() for c in ("image_id", "axis", "bin")), strict=True):
        if image_id in bins:
            bins[image_id][axis] = name
    columns: dict[str, Any] = {
        "image_id": ids,
        "split": [plan.split] * len(ids),
        "position": list(range(plan.first_position, plan.first_position + len(ids))),
        "group_id": rows_for(deduped, ids, "export: deduped")["group_id"],
        "boxes": rows_for(detections, ids, "export: detections")["boxes"],
        "attributes": [json.dumps(bins[image_id], sort_keys=True) for image_id in ids],
        **{name: pictures[name] for name in ("width", "height", "caption", "licence", "source", "bytes")},
    }
    return pa.table({name: columns[name] for name in SHARDS.names}, schema=SHARDS)


def fragment(plans: Iterable[ShardPlan], config: ExportConfig, excluded: int = 0) -> dict[str, Any]:
    """What the report shows: pictures and files per split, and how many pictures are kept for tests."""
    plans = list(plans)
    rows = []
    for split in SPLITS:
        own = [p for p in plans if p.split == split]
        rows.append([split, sum(len(p.image_ids) for p in own), len(own), config.rows_per_shard])
    return {
        "title": "Shards",
        "sections": [
            {
                "type": "table",
                "title": "Splits, disjoint by duplicate group",
                "columns": ["split", "pictures", "files", "pictures per file at most"],
                "rows": rows,
                "note": f"Order and split are keyed by the seed {config.seed}."
                + f" {excluded} selected pictures are labelled for tests, or duplicates of such, and not here."
                * bool(excluded),
            },
            {
                "type": "bars",
                "title": "Pictures per file",
                "labels": [p.pid for p in plans[:64]],
                "series": [{"name": "pictures", "values": [len(p.image_ids) for p in plans[:64]]}],
            },
        ],
    }
