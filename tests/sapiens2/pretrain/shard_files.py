"""Small Parquet shards of drawn pictures, as the export step writes them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def picture(seed: int, height: int = 160, width: int = 120) -> np.ndarray:
    """Smooth colour with a few shapes: something that can be completed; uint8 RGB."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (4, 3, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(4):
        centre = int(rng.integers(width)), int(rng.integers(height))
        colour = [int(c) for c in rng.integers(0, 256, 3)]
        cv2.circle(image, centre, int(rng.integers(8, width // 3)), colour, -1)
    return image


def encode(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def row(index: int, data: bytes | None, height: int = 160, width: int = 120) -> dict[str, object]:
    """A row with the columns that training reads, and one that it does not."""
    return {"image_id": f"{index:032x}", "bytes": data, "width": width, "height": height, "split": "train"}


def write(path: Path, rows: list[dict[str, object]], group: int = 4) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return str(path)


def shards(folder: Path, count: int, files: int = 2) -> list[str]:
    """`count` pictures spread over some files."""
    rows = [row(i, encode(picture(i))) for i in range(count)]
    return [write(folder / f"shard_{n}.parquet", rows[n::files]) for n in range(files)]
