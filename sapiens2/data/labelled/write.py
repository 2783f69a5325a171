"""Samples to the layout: what converters, exports and people with arrays at hand write with."""

from __future__ import annotations

import io
from types import TracebackType
from typing import Any

import numpy as np

from sapiens2.data.labelled.layout import DatasetFacts, Row, write_index
from sapiens2.engine import storage
from sapiens2.tasks.sample import Sample

Array = np.ndarray


class DatasetWriter:
    """Writes pictures and labels as they come, and the index when it is closed without an error.

    with DatasetWriter(folder, DatasetFacts(name="mine")) as writer:
        writer.add(sample, "000001")
    """

    def __init__(self, folder: str, facts: DatasetFacts | None = None) -> None:
        self.folder, self.facts = str(folder), facts or DatasetFacts()
        self.rows: list[Row] = []

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            write_index(self.folder, self.rows, self.facts)

    def file(self, name: str, data: bytes) -> str:
        """Write a file below the folder; returns its name, as the index has it."""
        storage.write_bytes(storage.join(self.folder, name), data)
        return name

    def add(self, sample: Sample, name: str, *, split: str = "train", group: str | None = None) -> Row:
        """Write a sample with every label that it has, under the stem `name`; returns its row."""
        files: dict[str, Any] = {"image": self.file(f"images/{name}.png", png_bytes(sample.image))}
        if sample.mask is not None:
            files["mask"] = self.file(f"masks/{name}.png", png_bytes(sample.mask))
        if sample.valid is not None:
            files["valid"] = self.file(f"valid/{name}.png", png_bytes(sample.valid.astype(np.uint8) * 255))
        if sample.normals is not None:
            files["normals"] = self.file(f"normals/{name}.npz", npz_bytes(normals=sample.normals.astype(np.float16)))
        if sample.points is not None:
            files["points"] = self.file(f"points/{name}.npz", npz_bytes(points=sample.points.astype(np.float32)))
        if sample.albedo is not None:
            stored = (sample.albedo.clip(0, 1) * 255 + 0.5).astype(np.uint8)
            files["albedo"] = self.file(f"albedo/{name}.png", png_bytes(stored))
        if sample.keypoints is not None and sample.labelled is not None:
            seen = sample.labelled.astype(np.float64) * 2
            files["keypoints"] = np.concatenate([sample.keypoints, seen[:, None]], 1) * (seen > 0)[:, None]
        if sample.intrinsics is not None:
            files["intrinsics"] = sample.intrinsics.astype(np.float64)
        if sample.box is not None:
            files["box"] = tuple(float(v) for v in sample.box)
        row = Row(**files, area=sample.area, split=split, group=group)
        self.rows.append(row)
        return row


def png_bytes(array: Array) -> bytes:
    """uint8 [H, W] or RGB [H, W, 3] as PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def npz_bytes(**arrays: Array) -> bytes:
    """Named arrays as a compressed npz file."""
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()
