"""Where persons are: found by the detector of a profile, or read from a file of boxes.

Box files name pictures as the listing does (`holiday/beach.jpg`, `frame 12`), or by image_id; boxes are x0, y0, x1, y1
in pixels of the upright picture:
    .json     {"beach.jpg": [[x0, y0, x1, y1], ...]}, a score as a fifth number if there is one; or a COCO file, of
              which the annotations of the category `person` are taken, or of the only one
    .csv      columns image (or image_id), x0, y0, x1, y1 and perhaps score; one row per person
    .parquet  the same columns, or the table of a `detections` artifact: image_id, boxes, box_scores
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
PROFILES = ("builtin", "small", "full")
_CORNERS = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class DetectorChoice:
    """The detector of a profile, as a value that travels to workers; weights are found where they are built."""

    profile: str
    min_score: float
    device: str | None = None  # of torch detectors; None: that of the model that answers

    def describe(self) -> dict[str, Any]:
        """What changes its boxes."""
        return {"profile": self.profile, "min_score": self.min_score, "model": _config(self.profile).model}

    def build(self, device: str = "cpu") -> Callable[[Array], Array]:
        """uint8 [H, W, 3] -> [N, 5] boxes with scores, best first. Raises FileNotFoundError for missing weights.

        device: of a torch detector whose choice names none.
        """
        from curation.models.person_detector import build_person_detector
        from curation.models.weights import find
        from curation.stages.detect_config import required_weights

        config = _config(self.profile)
        paths = [find(spec) for spec in required_weights(config)]
        detector = build_person_detector(
            config.detector,
            paths[0] if paths else None,
            score_floor=min(config.score_floor, self.min_score),
            nms_iou=config.nms_iou,
            side=config.input_px,
            threads=config.threads,
            device=self.device or device,
        )

        def persons(image: Array) -> Array:
            found = detector.detect([image])[0]
            rows = np.concatenate([found.boxes, found.scores[:, None]], 1)
            return rows[found.scores >= self.min_score]

        return persons


def choose_detector(profile: str, min_score: float | None, device: str | None = None) -> DetectorChoice:
    """The detector of a profile; min_score defaults to what curation accepts, device to that of the model that answers.

    Raises ValueError for another name.
    """
    from curation.stages.filter import profile_config as thresholds

    _config(profile)
    return DetectorChoice(profile, thresholds(profile).min_person_score if min_score is None else min_score, device)


def _config(profile: str) -> Any:
    from curation.stages.detect_config import profile_config

    return profile_config(profile)


@dataclass(frozen=True)
class GivenBoxes:
    """Boxes from a file, by picture; a picture that the file does not name has nobody on it."""

    path: str
    by_name: Mapping[str, Array] = field(default_factory=dict)  # name or image_id -> [N, 4 or 5]

    def of(self, name: str, content: str) -> Array:
        """[N, 4 or 5] of a picture by its name, else by the image_id that its content has."""
        found = self.by_name.get(name)
        return self.by_name.get(content[:32], np.zeros((0, 4))) if found is None else found

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Pictures that the file names and that are not there; image_ids are not looked at."""
        known = set(names)
        return sorted(name for name in self.by_name if name not in known and not _is_image_id(name))


def _is_image_id(name: str) -> bool:
    return len(name) == 32 and set(name) <= set("0123456789abcdef")


def read_boxes(path: str) -> GivenBoxes:
    """Raises FileNotFoundError, or ValueError that names the row when a file is not one of the layouts above."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of boxes {path}")
    readers = {".json": _json, ".csv": _csv, ".parquet": _parquet}
    if file.suffix.lower() not in readers:
        raise ValueError(f"{path}: boxes are read from {', '.join(readers)}; convert it to one of these")
    rows: dict[str, list[list[float]]] = {}
    for where, name, boxes in readers[file.suffix.lower()](file):
        for box in boxes:
            rows.setdefault(name, []).append(_checked(box, f"{path}, {where}"))
        rows.setdefault(name, [])
    return GivenBoxes(path, {name: _table(boxes, f"{path}, {name}") for name, boxes in rows.items()})


def _checked(box: Any, where: str) -> list[float]:
    try:
        numbers = [float(value) for value in ((box,) if isinstance(box, str) else box)]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {box!r} is not a box of numbers x0, y0, x1, y1") from error
    if len(numbers) not in (4, 5) or not np.isfinite(numbers).all():
        raise ValueError(f"{where}: {box!r} is not x0, y0, x1, y1, with a score or without")
    if numbers[2] <= numbers[0] or numbers[3] <= numbers[1]:
        raise ValueError(f"{where}: the box {numbers} has no area; give the corners x0 < x1 and y0 < y1, not a size")
    return numbers


def _table(boxes: list[list[float]], where: str) -> Array:
    if len({len(box) for box in boxes}) > 1:
        raise ValueError(f"{where}: some boxes have a score and some have none")
    return np.array(boxes, np.float64) if boxes else np.zeros((0, 4))


Rows = Iterable[tuple[str, str, Iterable[Any]]]  # where, picture, boxes


def _json(file: Path) -> Rows:
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if isinstance(data, dict) and "annotations" in data and "images" in data:
        return list(_coco(file, data))
    if not isinstance(data, dict) or not all(isinstance(boxes, list) for boxes in data.values()):
        raise ValueError(f'{file} must map pictures to boxes, like {{"beach.jpg": [[x0, y0, x1, y1]]}}')
    return [(repr(name), name, boxes) for name, boxes in data.items()]


def _coco(file: Path, data: dict[str, Any]) -> Rows:
    """COCO: boxes are x, y, width, height there; a crowd is no person, nor is what another category has."""
    at = "images"
    try:
        names = {image["id"]: str(image["file_name"]) for image in data["images"]}
        yield from ((f"image {i}", name, []) for i, name in names.items())
        at = "categories"
        persons = _persons(data.get("categories") or [])
        for number, row in enumerate(data["annotations"]):
            at = f"annotation {row.get('id', f'number {number}')}"
            if persons and row["category_id"] not in persons:
                raise ValueError(f"it has category {row['category_id']}, which `categories` does not list")
            if row.get("iscrowd") or (persons and not persons[row["category_id"]]):
                continue
            if row["image_id"] not in names:
                raise ValueError(f"it is of image {row['image_id']}, which `images` does not list")
            x, y, w, h = row["bbox"]
            yield at, names[row["image_id"]], [[x, y, x + w, y + h, *_score(row)]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{file} looks like COCO but for {at}: {what}") from error


def _persons(categories: list[Any]) -> dict[Any, bool]:
    """Whether a category is that of people, by id: the one named person, else the only one."""
    named = {one["id"]: str(one["name"]) for one in categories}
    persons = {i: len(named) == 1 or name.strip().lower() == "person" for i, name in named.items()}
    if named and not any(persons.values()):
        raise ValueError(f"none is named person, they are {', '.join(named.values())}: rename that of the people")
    return persons


def _score(row: Mapping[str, Any]) -> list[Any]:
    return [] if row.get("score") in (None, "") else [row["score"]]


def _csv(file: Path) -> Rows:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = [(f"line {reader.line_num}", row) for row in reader]
            columns = list(reader.fieldnames or ["image", *_CORNERS])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is not CSV in UTF-8: {error}; save it as that") from error
    return _flat(str(file), columns, rows)


def _flat(file: str, columns: list[str], rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Rows:
    key = next((name for name in ("image", "image_id") if name in columns), None)
    absent = [name for name in _CORNERS if name not in columns]
    if key is None or absent:
        raise ValueError(f"{file} has the columns {columns}; it needs image (or image_id) and x0, y0, x1, y1")
    for where, row in rows:
        yield where, _name(row[key], f"{file}, {where}"), [[*(row[corner] for corner in _CORNERS), *_score(row)]]


def _name(given: Any, where: str) -> str:
    if given in (None, ""):
        raise ValueError(f"{where} names no picture")
    return str(given)


def _parquet(file: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {error}") from error
    rows = [(f"row {number}", row) for number, row in enumerate(table.to_pylist())]
    if "boxes" not in table.column_names:
        return _flat(str(file), table.column_names, rows)
    key = "image_id" if "image_id" in table.column_names else "image"
    if key not in table.column_names:
        raise ValueError(f"{file} has the columns {table.column_names}; it needs image_id or image beside boxes")
    named = ((f"{file}, {where}", where, row) for where, row in rows)
    return [(where, _name(row[key], at), _scored(row["boxes"], row.get("box_scores"), at)) for at, where, row in named]


def _scored(boxes: Any, scores: Any, where: str) -> list[Any]:
    """The boxes of a picture, each with its score if there are any; null is none."""
    boxes = [] if boxes is None else boxes
    if not isinstance(boxes, list) or not isinstance(scores, list | None):
        raise ValueError(f"{where}: boxes must be a list of boxes, and box_scores one of numbers")
    if scores is None:
        return boxes
    if len(scores) != len(boxes):
        raise ValueError(
            f"{where}: {len(boxes)} boxes have {len(scores)} box_scores; give each box one, or leave all out"
        )
    return [[*box, score] if isinstance(box, list) else box for box, score in zip(boxes, scores, strict=True)]
