"""From clusters, caps and floors to a selection of exactly the target size, with a reason for every row left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from curation.balance.hierarchy import Tree
from curation.balance.order import filling_order, rank_within
from curation.balance.quotas import Limit, solve

Ints = NDArray[np.int64]
Bins = NDArray[np.str_]
Limits = Mapping[str, Mapping[str, int]]  # axis -> bin -> rows
Mixing = Mapping[str, Mapping[str, Mapping[str, float]]]  # axis -> measured bin -> true bin -> share
CLUSTER_SHARE = "cluster_share"
_ELSEWHERE = 0.5  # a cell of which less than so much counts toward a floor gives its places to it
UNKNOWN = "unknown"  # the bin of rows where an axis was not measured: neither capped nor floored by shares


@dataclass(frozen=True)
class Allocation:
    """`keep` bool [N]; `reason` the rule that bound each dropped row, None for kept ones: `cap_AXIS`, `floor_AXIS`
    (its place went to a floor) or `cluster_share` (its cluster's places went to better rows)."""

    keep: NDArray[np.bool_]
    reason: list[str | None]
    target: int
    value: NDArray[np.float64]  # dropped rows: rows kept of the bin that is full, or the row's rank in its cluster
    threshold: NDArray[np.float64]  # the cap, or how many its cluster kept
    notes: list[str] = field(default_factory=list)  # what could not be met, in words


def allocate(
    tree: Tree,
    target: int,
    *,
    attributes: Mapping[str, Bins],
    caps: Limits,
    floors: Limits,
    quality: NDArray[np.float64],
    seed: int,
    mixing: Mixing | None = None,
) -> Allocation:
    """Select `target` rows: even down the tree, best quality first, within caps, meeting floors where supply allows.

    attributes: axis -> bin of each row [N]. caps, floors: axis -> bin -> rows. A target above the supply takes all
    rows; caps that leave less than the target give less, never a broken cap; both are said in `notes`. mixing: of axes
    whose limits are for true bins, what share of each measured bin is truly which; a row then counts in part. Raises
    ValueError for a negative target, arrays of other lengths, unknown axes, or a floor above its cap.
    """
    _check(tree, target, attributes, caps, floors, quality)
    n = len(tree.leaf)
    order = filling_order(tree, quality, seed)
    places = min(target, n)
    above = f"the target of {target} is above the supply of {n}: all that the caps allow is taken"
    notes = [above] if target > n else []
    cell, keys = _cells(attributes, caps, floors, n)
    limits = _limits(keys, caps, "cap", mixing or {}) + _limits(keys, floors, "floor", mixing or {})
    supply = np.bincount(cell, minlength=len(keys))
    wanted = np.bincount(cell[order[:places]], minlength=len(keys))
    quota = wanted if _holds(wanted, limits) else solve(supply, wanted, limits, places)
    keep = np.zeros(n, bool)
    keep[rank_within(cell, order) < quota[cell]] = True
    notes += _shortfalls(quota, limits, places)
    binding = [_binding(c, quota, wanted, limits) for c in range(len(quota))]
    return _explain(tree, keep, order, cell, binding, target, notes)


def _check(
    tree: Tree,
    target: int,
    attributes: Mapping[str, Bins],
    caps: Limits,
    floors: Limits,
    quality: NDArray[np.float64],
) -> None:
    if target < 0:
        raise ValueError(f"the target must not be negative, got {target}; give the number of pictures to select")
    for name, length in [("quality", len(quality)), *((axis, len(bins)) for axis, bins in attributes.items())]:
        if length != len(tree.leaf):
            raise ValueError(f"{name} has {length} rows, the tree {len(tree.leaf)}")
    unknown = sorted((set(caps) | set(floors)) - set(attributes))
    if unknown:
        raise ValueError(f"caps or floors name the axes {unknown}; there are {sorted(attributes)}")
    for axis in set(caps) & set(floors):
        for name in set(caps[axis]) & set(floors[axis]):
            if floors[axis][name] > caps[axis][name]:
                low, high = floors[axis][name], caps[axis][name]
                raise ValueError(f"{axis}={name}: the floor {low} is above the cap {high}; lower the floor")


def _cells(attributes: Mapping[str, Bins], caps: Limits, floors: Limits, n: int) -> tuple[Ints, list[dict[str, str]]]:
    """(cell of each row, the bins of each cell) over the axes that have limits."""
    axes = sorted(axis for axis in set(caps) | set(floors))
    if not axes or n == 0:
        return np.zeros(n, np.int64), [{}]
    columns = np.stack([np.asarray(attributes[axis], dtype=str) for axis in axes], axis=1)
    distinct, cell = np.unique(columns, axis=0, return_inverse=True)
    return cell.ravel().astype(np.int64), [dict(zip(axes, row.tolist(), strict=True)) for row in distinct]


def _limits(keys: list[dict[str, str]], bounds: Limits, kind: str, mixing: Mixing) -> list[Limit]:
    def weight(axis: str, measured: str | None, name: str) -> float:
        if axis in mixing:
            return mixing[axis].get(measured or UNKNOWN, {}).get(name, 0.0)
        return float(measured == name)

    return [
        Limit(f"{axis}={name}", kind, np.array([weight(axis, key.get(axis), name) for key in keys]), int(rows))
        for axis in sorted(bounds)
        for name, rows in sorted(bounds[axis].items())
    ]


def _holds(quota: Ints, limits: list[Limit]) -> bool:
    return all(
        limit.rows(quota) <= limit.bound if limit.kind == "cap" else limit.rows(quota) >= limit.bound
        for limit in limits
    )


def _shortfalls(quota: Ints, limits: list[Limit], places: int) -> list[str]:
    notes = []
    if quota.sum() < places:
        full = [limit.name for limit in limits if limit.kind == "cap" and limit.full(limit.rows(quota))]
        notes.append(f"caps allow only {int(quota.sum())} of {places}; full: {', '.join(full)}")
    for limit in limits:
        got = limit.rows(quota)
        if limit.kind == "floor" and got < limit.bound:
            notes.append(f"the floor of {limit.bound} for {limit.name} cannot be met: {got:.0f} selected")
    return notes


def _explain(
    tree: Tree,
    keep: NDArray[np.bool_],
    order: Ints,
    cell: Ints,
    binding: list[tuple[Limit, float] | None],
    target: int,
    notes: list[str],
) -> Allocation:
    """The rule that bound each dropped row.

    A row that the even allocation passes over for good (it comes after the last kept row) is bound by its cluster's
    share. One that it reached was refused by a full cap of one of its bins; failing that, its place went to a floor.
    """
    n = len(keep)
    position = np.empty(n, np.int64)
    position[order] = np.arange(n)
    last = position[keep].max(initial=-1)
    kept_of_leaf = np.bincount(tree.leaf[keep], minlength=int(tree.leaf.max(initial=-1)) + 1)
    reason: list[str | None] = [None if kept else CLUSTER_SHARE for kept in keep]
    value = np.where(keep, np.nan, rank_within(tree.leaf, order).astype(np.float64) + 1)
    threshold = np.where(keep, np.nan, kept_of_leaf[tree.leaf].astype(np.float64)) if n else np.zeros(0)
    for row in np.flatnonzero(~keep & (position < last)).tolist():
        bound = binding[int(cell[row])]
        if bound is not None:
            limit, got = bound
            reason[row] = f"{limit.kind}_{limit.name.partition('=')[0]}"
            value[row], threshold[row] = got, float(limit.bound)
    return Allocation(keep, reason, target, value, threshold, notes)


def _binding(cell: int, quota: Ints, wanted: Ints, limits: list[Limit]) -> tuple[Limit, float] | None:
    """The full cap of a cell that cuts deepest into the even allocation, else a floor elsewhere that is just met.

    With the number of rows selected under it.
    """
    got = [limit.rows(quota) for limit in limits]
    full = [k for k, x in enumerate(limits) if x.kind == "cap" and x.weight[cell] > 0 and x.full(got[k])]
    if full:
        deepest = max(full, key=lambda k: limits[k].rows(wanted) / max(limits[k].bound, 0.5))
        return limits[deepest], got[deepest]
    for k, limit in enumerate(limits):
        if limit.kind == "floor" and limit.weight[cell] < _ELSEWHERE and limit.bound > got[k] - 1:
            return limit, got[k]
    return None
