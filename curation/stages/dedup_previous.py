"""What a run of dedup leaves for a run on more pictures, as tables, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.dedup.carried import Carried
from curation.dedup.cells import Cells
from curation.dedup.evidence import Compared, HashPairs
from curation.dedup.near_lists import Lists
from curation.tables import CELLS, COMPARED, NEAR, NEAR_HASHES, POINTS

TABLES = ("points", "near", "near_hashes", "compared", "cells")
THRESHOLD = "descriptor_threshold"  # the metric that has Carried.threshold


def carried_tables(carried: Carried) -> dict[str, pa.Table]:
    """Tables by name. Ids stand in place of rows, so that the removal of a picture finds them."""
    ids = pa.array(carried.image_ids, pa.string())
    places = carried.cells.places
    offsets = pa.array(np.arange(len(places) + 1) * places.shape[1], pa.int32())
    points = {
        "image_id": ids,
        "fingerprint": carried.fingerprint,
        "full": carried.full,
        "cells": pa.ListArray.from_arrays(offsets, pa.array(places.ravel(), pa.int32())),
    }
    vectors = [(cell, row.tolist()) for cell, row in enumerate(carried.cells.centroids)]
    vectors += [] if carried.mean is None else [(-1, carried.mean.tolist())]
    hashes, compared = carried.hashes, carried.compared
    both = np.concatenate([hashes.near, hashes.mirrored])
    return {
        "points": pa.table(points, schema=POINTS),
        "near": _pairs(
            ids, np.stack([carried.lists.row, carried.lists.near], axis=1), NEAR, cosine=carried.lists.cosine
        ),
        "near_hashes": _pairs(
            ids,
            both,
            NEAR_HASHES,
            bits=np.concatenate([hashes.near_distance, hashes.mirrored_distance]).astype(np.int8),
            mirrored=np.arange(len(both)) >= len(hashes.near),
        ),
        "compared": _pairs(ids, compared.pairs, COMPARED, agreed=compared.agreed, distance=compared.distance),
        "cells": pa.table(
            {"cell": [cell for cell, _ in vectors], "vector": [vector for _, vector in vectors]}, schema=CELLS
        ),
    }


def _pairs(ids: pa.Array, pairs: NDArray[np.int64], schema: pa.Schema, **columns: Any) -> pa.Table:
    ends = {"a": ids.take(pa.array(pairs[:, 0])), "b": ids.take(pa.array(pairs[:, 1]))}
    return pa.table({**ends, **columns}, schema=schema)


def carried_from(tables: Mapping[str, pa.Table], threshold: float) -> Carried:
    """The inverse of carried_tables; rows may come in any order, and pictures may have been removed since."""
    points = tables["points"].sort_by("image_id")
    ids = points["image_id"].combine_chunks()
    n, places = points.num_rows, points["cells"].combine_chunks()
    cells = tables["cells"].sort_by("cell")
    vectors = np.array(cells["vector"].to_pylist(), dtype=np.float64).reshape(cells.num_rows, -1)
    is_mean = np.asarray(cells["cell"].to_numpy()) < 0
    near, rows = tables["near"], _rows(tables["near"], ids)
    order = np.lexsort((rows[:, 1], -near["cosine"].to_numpy(), rows[:, 0]))
    hashes, hashed = tables["near_hashes"], _rows(tables["near_hashes"], ids)
    bits, mirrored = hashes["bits"].to_numpy().astype(np.int64), _flags(hashes["mirrored"])
    compared = tables["compared"]
    return Carried(
        ids.to_pylist(),
        points["fingerprint"].to_numpy(),
        _flags(points["full"]),
        Cells(
            vectors[~is_mean].astype(np.float32),
            places.flatten().to_numpy().astype(np.int64).reshape(n, -1) if n else np.zeros((0, 1), np.int64),
        ),
        Lists(rows[order, 0], rows[order, 1], near["cosine"].to_numpy()[order]),
        HashPairs(np.zeros(0, np.int64), hashed[~mirrored], bits[~mirrored], hashed[mirrored], bits[mirrored]),
        Compared(_rows(compared, ids), _flags(compared["agreed"]), compared["distance"].to_numpy()),
        vectors[is_mean][0] if is_mean.any() else None,
        threshold,
    )


def _rows(table: pa.Table, ids: pa.Array) -> NDArray[np.int64]:
    """The ends of pairs as rows of the sorted ids, int64 [E, 2]."""
    ends = [pc.index_in(table[name], value_set=ids).to_numpy().astype(np.int64) for name in ("a", "b")]
    return np.stack(ends, axis=1).reshape(-1, 2)


def _flags(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(column.to_numpy(), dtype=bool)
