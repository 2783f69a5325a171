"""Which pictures of a selection to have labelled: even over its clusters, at random within each."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Literal

import numpy as np
import pyarrow as pa

from curation.balance.order import filling_order
from curation.stages.balance import tree_of
from curation.tables import require_columns


def label_sample(
    selection: pa.Table, clusters: pa.Table, count: int, *, seed: int, skip: Collection[str] = ()
) -> list[str]:
    """Ids of `count` kept pictures, or of all that there are, in the order in which they were drawn.

    The clusters' places differ by at most one where supply allows, at every level of the tree; a picture's draw depends
    on the seed and its id alone. `skip`: ids that are not to be taken. Raises ValueError for missing columns or a count
    below 1.
    """
    if count < 1:
        raise ValueError(f"count={count} pictures cannot be labelled: ask for at least 1")
    require_columns(selection, ["image_id", "keep"], "the selection")
    require_columns(clusters, ["image_id", "path"], "the clusters")
    kept = set(selection.filter(selection["keep"])["image_id"].to_pylist()) - set(skip)
    wanted = pa.array([image_id in kept for image_id in clusters["image_id"].to_pylist()], pa.bool_())
    rows = clusters.filter(wanted).sort_by("image_id")
    image_ids = rows["image_id"].to_pylist()
    draws = np.array([_draw(seed, image_id) for image_id in image_ids])
    return [image_ids[row] for row in filling_order(tree_of(rows), draws, seed)[:count]]


def group_splits(group_ids: Collection[str], test_share: float) -> dict[str, Literal["train", "test"]]:
    """`train` or `test` of each group of duplicates, by its name alone.

    No seed: batches of one share agree on every group, and a larger share only adds to the groups for tests.
    """
    return {group: "test" if _draw(0, f"split/{group}") < test_share else "train" for group in set(group_ids)}


def _draw(seed: int, key: str) -> float:
    """A keyed pseudo-random number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/label/{key}".encode()).digest()[:7], "big") / 2**56
