"""Hamming pairs as a Ray Data shuffle by (table, key): the pairs of `curation.dedup.hamming`, found on many machines.

Every code goes, once for each table, to the part that holds its key; a part sorts and compares what it got. Codes that
a table would compare have equal keys, so they meet, and each pair is told by one table only: the shuffle changes where
the work is done, never what is found.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.ray_session import quiet_ray_data, ray_session
from curation.dedup.hamming import Codes, Pairs, Table, positions, search_tables

PART_ROWS = 4_000_000  # codes of one part, about: 32 MB, and as much again while they are sorted
BLOCK_ROWS = 1_000_000  # codes that one task sends on at a time


def distinct_pairs_on_ray(codes: Codes, radius: int, *, part_rows: int = PART_ROWS) -> Pairs:
    """As `curation.dedup.hamming.distinct_pairs`, on the Ray at RAY_ADDRESS or a local one.

    codes: uint64 [N], strictly increasing. part_rows: how many codes a part should hold; the result is the same for
    any.
    """
    tables = search_tables(codes, radius)
    if not tables:
        return positions(codes, [], [])
    bits = max(0, int(np.ceil(np.log2(max(len(codes) / part_rows, 1)))))
    with ray_session():
        import ray

        quiet_ray_data()
        blocks = [codes[start : start + BLOCK_ROWS] for start in range(0, len(codes), BLOCK_ROWS)]
        found = (
            ray.data.from_arrow([pa.table({"code": block}) for block in blocks])
            .map_batches(partial(_send, tables=tables, bits=bits), batch_size=BLOCK_ROWS, batch_format="numpy")
            .groupby("part", num_partitions=min(len(tables) << bits, 2 * int(ray.cluster_resources()["CPU"])))
            .map_groups(partial(_compare, tables=tables, bits=bits), batch_format="numpy")
        )
        batches: list[Any] = list(found.iter_batches(batch_size=None, batch_format="numpy"))
    return positions(codes, [b["low"] for b in batches], [b["high"] for b in batches])


def _send(batch: dict[str, NDArray[Any]], tables: list[Table], bits: int) -> dict[str, NDArray[Any]]:
    codes = batch["code"]
    parts = [(index << bits) + table.part(codes, bits) for index, table in enumerate(tables)]
    return {"part": np.concatenate(parts), "code": np.tile(codes, len(tables))}


def _compare(batch: dict[str, NDArray[Any]], tables: list[Table], bits: int) -> dict[str, NDArray[Any]]:
    if not len(batch["part"]):
        return {"low": batch["code"], "high": batch["code"]}
    low, high = tables[int(batch["part"][0]) >> bits].near(batch["code"])
    return {"low": low, "high": high}
