"""Pose picture by picture, from given boxes and from the labelled ones: what a detector's misses cost.

Every person of a picture is to be found by its detections: score of the box times mean score of its keypoints, doubles
removed by keypoint similarity at 0.9. Areas are the labelled ones, else the extents of the labelled keypoints.
[specification 6; paper, table 3 and appendix A.2]
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from sapiens2.data.labelled import LabelledDataset
from sapiens2.engine import storage
from sapiens2.evaluation.bootstrap import Estimate, bootstrap
from sapiens2.evaluation.measure import Answer, people_of
from sapiens2.evaluation.oks import (
    Detections,
    Matches,
    average_precision,
    instance_scores,
    match_image,
    without_doubles,
)
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.config import DataSource
from sapiens2.tasks.predict import checked_boxes, predict
from sapiens2.tasks.sample import Sample
from sapiens2.tasks.vocabulary import keypoints

Array = np.ndarray


def read_boxes(path: str, pictures: Sequence[str]) -> list[Array]:
    """float64 [N, 5] x0, y0, x1, y1, score of each picture, by its path in the index or, if no other has it, file name.

    The file is {picture: [[x0, y0, x1, y1], ...]}, a score as a fifth number; a picture that it does not name has no
    boxes. Raises ValueError for another format, for a file name that several pictures have, and when it names none of
    the pictures; FileNotFoundError.
    """
    try:
        content = json.loads(storage.read_bytes(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: give {{picture: [[x0, y0, x1, y1, score], ...]}}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no JSON object: give {{picture: [[x0, y0, x1, y1, score], ...]}}")
    keys = _keys(path, pictures, content)
    if not any(keys):
        raise ValueError(f"{path} names none of the {len(pictures)} pictures: name them as the index does")
    return [_boxes(path, key, content) if key else np.zeros((0, 5)) for key in keys]


def _keys(path: str, pictures: Sequence[str], content: Mapping[str, object]) -> list[str | None]:
    """What the file calls each picture; None where it does not name it."""
    shared = Counter(PurePosixPath(name).name for name in dict.fromkeys(pictures))
    keys: list[str | None] = []
    for name in pictures:
        base = PurePosixPath(name).name
        if name not in content and base in content and shared[base] > 1:
            same = [each for each in dict.fromkeys(pictures) if PurePosixPath(each).name == base]
            raise ValueError(
                f"{path}: {base!r} may be {' or '.join(same[:3])}: name each picture by its path in the index, "
                "one without boxes with an empty list"
            )
        keys.append(next((key for key in (name, base) if key in content), None))
    return keys


def _boxes(path: str, key: str, content: Mapping[str, object]) -> Array:
    try:
        rows = np.array(content[key], np.float64).reshape(-1, len(content[key][0]) if content[key] else 5)  # type: ignore
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: the boxes of {key!r} are no rows of numbers") from error
    if rows.shape[1] not in (4, 5) or not np.isfinite(rows).all() or (rows[:, 2:4] <= rows[:, :2]).any():
        raise ValueError(f"{path}: the boxes of {key!r} must be x0, y0, x1, y1 with an area, and perhaps a score")
    return rows if rows.shape[1] == 5 else np.concatenate([rows, np.ones((len(rows), 1))], 1)


def _check_on(path: str, name: str, boxes: Array, image: Array) -> None:
    """Raises ValueError, naming the picture, for a box that `predict` would refuse on it."""
    try:
        checked_boxes(boxes, image.shape[:2])
    except ValueError as error:
        raise ValueError(f"{path}: of the picture {name}, {error}") from error


def picture_matches(samples: Sequence[Sample], points: Array, scores: Array) -> Matches:
    """The people of one picture against its detections: points [D, 308, 2], scores [D] of box and keypoints."""
    sigmas = keypoints().sigmas
    kept = without_doubles(points, scores, sigmas)
    return match_image(people_of(samples), Detections(points[kept], scores[kept]), sigmas)


def measure_boxes(
    model: TaskModel,
    source: DataSource,
    poses: Sequence[tuple[Sample, Answer]],
    path: str,
    size: tuple[int, int],
    batch: int,
    *,
    rounds: int,
    seed: int,
    flip: bool = False,
) -> dict[str, dict[str, Estimate]]:
    """AP and AR over pictures under `given` and `labelled` boxes.

    poses: the labels of every row, pictures left out, and the answers from the labelled boxes, in the rows' order.
    flip: the answers from given boxes are the mean over crop and mirror image; those of `poses` must be alike.
    """
    dataset = LabelledDataset(source.path, "pose", source.split)
    rows = dataset.rows
    pictures = list(dict.fromkeys(row.image for row in rows))
    of = {name: [k for k, row in enumerate(rows) if row.image == name] for name in pictures}
    boxes = read_boxes(path, pictures)
    found = []
    for start in range(0, len(pictures), batch):
        part = slice(start, start + batch)
        images = [dataset.sample(of[name][0]).image for name in pictures[part]]
        for name, image, rows_on in zip(pictures[part], images, boxes[part], strict=True):
            _check_on(path, name, rows_on, image)
        found += predict(model, images, boxes=boxes[part], input_size=size, batch=batch, flip=flip)
    given, labelled = [], []
    for name, own, box in zip(pictures, found, boxes, strict=True):
        people = [poses[k][0] for k in of[name]]
        points = np.stack([np.asarray(p.keypoints) for p in own]) if own else np.zeros((0, len(keypoints()), 2))
        scores = np.stack([np.asarray(p.scores) for p in own]) if own else np.zeros((0, len(keypoints())))
        given.append(picture_matches(people, points, instance_scores(scores) * box[:, 4]))
        known = [poses[k][1] for k in of[name]]
        scored = instance_scores(np.stack([a["scores"] for a in known]))
        labelled.append(picture_matches(people, np.stack([a["keypoints"] for a in known]), scored))
    return {
        name: bootstrap(
            lambda index, matches=matches: average_precision([matches[i] for i in index]),  # type: ignore[misc]
            len(pictures),
            rounds=rounds,
            seed=seed,
        )
        for name, matches in (("given", given), ("labelled", labelled))
    }


def boxes_section(found: Mapping[str, Mapping[str, Estimate]], *, flip: bool = False) -> dict[str, Any]:
    """Both measurements as a section of a report; flip: they were made with the flip test, and it says so."""
    note = "Over pictures: all their people are to be found. 308 keypoints."
    return {
        "type": "table",
        "title": "Given boxes and labelled boxes",
        "columns": ["metric", *(f"{name} boxes" for name in found)],
        "rows": [[key, *(each[key].text() for each in found.values())] for key in ("AP", "AP50", "AP75", "AR")],
        "note": note + (" With flip test." if flip else ""),
    }
