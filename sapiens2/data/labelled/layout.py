"""The one layout of labelled data: a folder with an index, pictures and label files (docs/labelled_data.md).

    DIR/dataset.json       what holds for all rows: name, licence, axes of vectors, unit of stored depth
    DIR/index.jsonl        one row a sample (a person, for pose), or index.parquet with the same columns
    DIR/images/...         pictures, and whichever label files the rows name

Coordinates: pixel (0, 0) is the centre of the first pixel; vectors are in the camera frame, metres.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np

from sapiens2.config import Config, recipe
from sapiens2.engine import storage

Array = np.ndarray
DATASET, JSONL, PARQUET = "dataset.json", "index.jsonl", "index.parquet"
SPLITS = ("train", "val", "test")
LABEL_OF: dict[str, tuple[str, ...]] = {
    "pose": ("keypoints",),
    "segmentation": ("mask",),
    "normal": ("normals",),
    "pointmap": ("points", "depth"),
    "albedo": ("albedo",),
}
"""The columns that make a row a sample of a task: any one of them does."""
FILES = ("image", "mask", "valid", "normals", "points", "depth", "albedo")
"""Columns that hold the path of a file, relative to the folder."""


class LabelError(ValueError):
    """A sample is wrong; the text says where, what, and the mend."""

    def __init__(self, where: str, problem: str, mend: str) -> None:
        super().__init__(f"{where}: {problem}; {mend}")
        self.where, self.problem, self.mend = where, problem, mend

    def __reduce__(self) -> tuple[type[LabelError], tuple[str, str, str], dict[str, Any]]:
        """Pickled by its three texts and its notes: errors travel between processes."""
        return type(self), (self.where, self.problem, self.mend), self.__dict__


class DatasetFacts(Config):
    """What dataset.json says; an absent file means the defaults."""

    revision: int = recipe(1, "Of this layout.", ge=1, le=1)
    name: str = recipe("", "What people call the data.")
    licence: str = recipe("", "Under which terms it may be used.")
    axes: Literal["opencv", "opengl"] = recipe(
        "opencv", "Axes of stored normals and points: opencv x right, y down, z forward; opengl x right, y up, z back."
    )
    depth_unit: float = recipe(0.001, "Metres that the number 1 stands for in a depth PNG.", gt=0)


@dataclass(frozen=True)
class Row:
    """One sample of the index: paths of files, and the labels that are numbers."""

    image: str
    split: str = "train"
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1 pixels, the person
    area: float | None = None  # square pixels that the person covers, for keypoint similarity
    keypoints: Array | None = None  # float64 [308, 3] x, y pixels and 0 unlabelled, 1 hidden, 2 seen
    mask: str | None = None  # PNG of class ids, 255 unknown
    valid: str | None = None  # PNG, not 0 where normals, points and albedo are known
    normals: str | None = None  # npy or npz [H, W, 3]
    points: str | None = None  # npy or npz [H, W, 3] metres
    depth: str | None = None  # npy or npz [H, W] metres, or 16-bit PNG
    albedo: str | None = None  # PNG sRGB, or npy [H, W, 3] in [0, 1]
    intrinsics: Array | None = None  # float64 [3, 3] pixels
    group: str | None = None  # pictures of one group never lie in different splits
    image_id: str | None = None  # of the curated pool, where the picture comes from it
    where: str = field(default="", compare=False)  # file and line, for messages

    def has(self, task: str) -> bool:
        """Whether the row is labelled for a task."""
        return any(getattr(self, name) is not None for name in LABEL_OF[task])


_NAMES = tuple(f.name for f in fields(Row) if f.name != "where")


def read_facts(folder: str) -> DatasetFacts:
    """What dataset.json says, or the defaults without one. Raises LabelError for one that cannot be read."""
    path = storage.join(folder, DATASET)
    if not storage.exists(path):
        return DatasetFacts()
    try:
        return DatasetFacts.model_validate_json(storage.read_bytes(path).removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise LabelError(path, f"is not a description of labelled data ({_first_line(error)})", _SEE) from error


_SEE = "see docs/labelled_data.md"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def read_index(folder: str) -> list[Row]:
    """The rows of a folder, in order. Raises LabelError when there is no index, or naming the line that is wrong."""
    rows = []
    for found in scan_index(folder):
        if isinstance(found, LabelError):
            raise found
        rows.append(found)
    return rows


def scan_index(folder: str) -> Iterator[Row | LabelError]:
    """Every row of a folder, in order, or what is wrong with it. Raises LabelError when there is no index to read."""
    for where, values in _index(folder):
        try:
            yield parse_row(where, _loaded(where, values) if isinstance(values, bytes) else values)
        except LabelError as error:
            yield error


def _index(folder: str) -> list[tuple[str, Any]]:
    """Where each row stands, and the bytes of its line or its values."""
    jsonl, parquet = storage.join(folder, JSONL), storage.join(folder, PARQUET)
    if storage.exists(jsonl):
        return [(f"{jsonl} line {n}", line) for n, line in enumerate(_lines(jsonl), 1) if line.strip()]
    if storage.exists(parquet):
        return [(f"{parquet} row {number}", row) for number, row in enumerate(_parquet_rows(parquet), 1)]
    raise LabelError(folder, f"has neither {JSONL} nor {PARQUET}", f"give the folder of labelled data; {_SEE}")


def _lines(path: str) -> list[bytes]:
    """The lines of a text in UTF-8, with a mark of its encoding before it or without."""
    data = storage.read_bytes(path)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise LabelError(path, "is text in UTF-16 or UTF-32, or no text", "save it as UTF-8")
    return data.removeprefix(codecs.BOM_UTF8).splitlines()


def _loaded(where: str, line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LabelError(where, f"is not UTF-8 (byte 0x{line[error.start]:02x})", "save the index as UTF-8") from error
    except (ValueError, RecursionError) as error:  # numbers of too many digits and brackets too deep beside bad syntax
        said = getattr(error, "msg", None) or _first_line(error)
        raise LabelError(where, f"is not JSON ({said})", "write one JSON object a line") from error


def _parquet_rows(path: str) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = storage.read_bytes(path)
    try:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    except (pa.ArrowException, ValueError, OSError) as error:  # of damaged bytes: those are all that is read here
        raise LabelError(path, f"is damaged, or no Parquet file ({_first_line(error)})", "write it again") from error
    return rows


def parse_row(where: str, values: Any) -> Row:
    """A row from its JSON object. Raises LabelError naming the column that is wrong."""
    if not isinstance(values, dict) or not isinstance(values.get("image"), str):
        raise LabelError(where, "has no `image`", "give the path of the picture, relative to the folder")
    unknown = set(values) - set(_NAMES)
    if unknown:
        raise LabelError(where, f"has unknown columns {sorted(unknown)}", f"use {', '.join(_NAMES)}")
    given = {name: value for name, value in values.items() if value is not None}
    for name in (*FILES, "split", "group", "image_id"):
        if name in given and not isinstance(given[name], str):
            raise LabelError(where, f"`{name}` is {given[name]!r}", "give a text")
    for name in FILES:
        if name in given and (given[name].startswith("/") or "://" in given[name]):
            mend = "name a file in the folder of the index, by its path relative to that folder"
            raise LabelError(where, f"`{name}` is the absolute path {given[name]!r}", mend)
        if name in given and ".." in PurePosixPath(given[name]).parts:
            mend = "put the file below the folder of the index, and name it without `..`"
            raise LabelError(where, f"`{name}` is {given[name]!r}, which may lead out of the folder", mend)
    if given.get("split", "train") not in SPLITS:
        raise LabelError(where, f"`split` is {given['split']!r}", f"use one of {', '.join(SPLITS)}")
    for name, shape, say in (
        ("box", (4,), "[x0, y0, x1, y1] in pixels"),
        ("keypoints", (308, 3), "308 rows [x, y, visibility]; visibility is 0 where a point is not labelled"),
        ("intrinsics", (3, 3), "[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels"),
    ):
        if name in given:
            given[name] = _numbers(where, name, given[name], shape, say)
    if "box" in given:
        given["box"] = tuple(given["box"].tolist())
    if "area" in given:
        given["area"] = float(_numbers(where, "area", given["area"], (), "square pixels"))
        if not 0 < given["area"] < float("inf"):
            raise LabelError(where, f"`area` is {given['area']:g}", "give square pixels, or leave it out")
    return Row(**given, where=where)


def _numbers(where: str, name: str, value: Any, shape: tuple[int, ...], say: str) -> Array:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.shape != shape:
        found = f"has the shape {list(array.shape)}" if array.size else "is not an array of numbers"
        raise LabelError(where, f"`{name}` {found}", f"give {say}")
    return array


def row_values(row: Row) -> dict[str, Any]:
    """A row as its JSON object; absent labels are left out, coordinates rounded to thousandths of a pixel."""
    values: dict[str, Any] = {}
    for name in _NAMES:
        value = getattr(row, name)
        if value is not None:
            values[name] = np.asarray(value).round(3).tolist() if name in ("box", "area", "keypoints") else value
    if row.intrinsics is not None:
        values["intrinsics"] = row.intrinsics.tolist()
    return values


def write_index(folder: str, rows: Sequence[Row], facts: DatasetFacts) -> None:
    """Write index.jsonl, and dataset.json before it."""
    storage.write_bytes(storage.join(folder, DATASET), (facts.model_dump_json(indent=2) + "\n").encode())
    lines = "".join(json.dumps(row_values(row)) + "\n" for row in rows)
    storage.write_bytes(storage.join(folder, JSONL), lines.encode())
