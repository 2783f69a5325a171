"""Synthetic people as shards, for experiments that pretrain on pictures whose every label is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq

from sapiens2.data.synthetic.store import SceneStore

ROWS_PER_GROUP = 64
QUALITY = 95


def write_shard(file: Path, count: int, height: int, width: int, split: str, first_seed: int = 0) -> Path:
    """The pictures of `count` scenes as one Parquet file with the columns that `data.shards` reads.

    A file that is there already is kept: its name is expected to tell what is in it.
    """
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    store = SceneStore(count, height, width, split, first_seed)
    rows = [_row(store, index, f"{split}-{first_seed + index}") for index in range(count)]
    partial = file.with_name(f".{file.name}.partial")
    pq.write_table(pa.Table.from_pylist(rows), partial, row_group_size=ROWS_PER_GROUP)
    partial.replace(file)
    return file


def _row(store: SceneStore, index: int, name: str) -> dict[str, object]:
    picture = cv2.cvtColor(store.scene(index).image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return {"image_id": name, "bytes": data.tobytes(), "width": picture.shape[1], "height": picture.shape[0]}
