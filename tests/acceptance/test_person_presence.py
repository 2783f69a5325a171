"""Persons on real photographs: presence and box size, thresholds fitted on one half of the pool, measured on the other.

Needs SAPIENS2_ACCEPTANCE: a folder with data/pool, data/labelled and models. Prints its tables (run with -s).
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation.audit.intervals import wilson
from curation.images import Image, decode
from curation.models.boxes import iou
from curation.models.weights import find
from curation.stages import detect, filter
from curation.tables import image_id

# Asked of each profile on photographs: precision, recall.
TARGETS = {"small": (0.98, 0.98), "builtin": (0.93, 0.75)}


@dataclass(frozen=True)
class Photo:
    """A labelled photograph: whether a person is on it, its half of the pool, whether it was made from another."""

    file: str
    person: bool
    split: str
    derived: bool
    row: dict[str, Any]


@dataclass(frozen=True)
class Counts:
    """Right and wrong answers at one threshold."""

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def precision(self) -> tuple[int, int]:
        return self.true_positive, self.true_positive + self.false_positive

    @property
    def recall(self) -> tuple[int, int]:
        return self.true_positive, self.true_positive + self.false_negative


def share(successes: int, n: int) -> str:
    low, high = wilson(successes, n)
    return f"{successes / max(1, n):.3f} [{low:.3f}, {high:.3f}] ({successes}/{n})"


@cache
def photos(pool: Path) -> list[Photo]:
    """Photographs of the pool that decode, each with its row of an images table."""
    found = []
    for line in (pool / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] not in ("photo_person", "photo_no_person"):
            continue
        data = (pool / entry["file"]).read_bytes()
        image = decode(data)
        if isinstance(image, Image):
            row = {"image_id": image_id(data), "width": image.width, "height": image.height, "bytes": data}
            person, derived = entry["kind"] == "photo_person", entry["synthetic"] is not None
            found.append(Photo(entry["file"], person, entry["split"], derived, row))
    return found


@cache
def best_scores(pool: Path, profile: str) -> dict[str, float]:
    """The score of each photograph's best box, 0 without one, by image_id."""
    rows = {photo.row["image_id"]: photo.row for photo in photos(pool)}
    data = stage(profile)(pa.Table.from_pylist(list(rows.values()))).tables["data"]
    return {row["image_id"]: max(row["box_scores"], default=0.0) for row in data.to_pylist()}


def stage(profile: str) -> detect.DetectPartition:
    config = detect.profile_config(profile)
    return detect.DetectPartition(config, {s.name: str(find(s)) for s in detect.required_weights(config)})


def counts(cases: list[tuple[float, bool]], threshold: float) -> Counts:
    positive = [person for score, person in cases if score >= threshold]
    persons = sum(person for _, person in cases)
    return Counts(sum(positive), len(positive) - sum(positive), persons - sum(positive))


def fitted(cases: list[tuple[float, bool]], precision: float) -> float:
    """Of the thresholds with at least this precision those with the highest recall, of these those with the highest
    precision; of what is left, which all answer alike, the middle."""
    scores = sorted({score for score, _ in cases} | {0.0, 1.0})
    middles = [(low + high) / 2 for low, high in itertools.pairwise(scores)]

    def worth(threshold: float) -> tuple[bool, int, float]:
        c = counts(cases, threshold)
        reached = c.true_positive / max(1, c.precision[1])
        return reached >= precision, c.true_positive, reached

    best = max(map(worth, middles))
    place = [index for index, threshold in enumerate(middles) if worth(threshold) == best]
    return (scores[place[0]] + scores[place[-1] + 1]) / 2


@pytest.fixture
def models(acceptance: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAPIENS2_MODELS", str(acceptance / "models"))
    return acceptance


@pytest.mark.parametrize("profile", ["small", "builtin"])
def test_person_presence_on_photographs(models: Path, profile: str):
    pool = models / "data" / "pool"
    scores = best_scores(pool, profile)
    wanted_precision, wanted_recall = TARGETS[profile]
    halves = {
        split: [(scores[p.row["image_id"]], p.person) for p in photos(pool) if p.split == split]
        for split in ("fit", "measure")
    }
    threshold = fitted(halves["fit"], wanted_precision)
    shipped = filter.profile_config(profile).min_person_score
    originals = [(scores[p.row["image_id"]], p.person) for p in photos(pool) if p.split == "measure" and not p.derived]
    rows = [
        ("fit", threshold, halves["fit"]),
        ("measure", threshold, halves["measure"]),
        ("measure, no derived copies", threshold, originals),
        ("measure, filter's default", shipped, halves["measure"]),
    ]
    print(f"\n{profile}: person presence on photographs, Wilson 95 %")
    for name, at, cases in rows:
        c = counts(cases, at)
        print(f"  {name:28s} at {at:.3f}  precision {share(*c.precision)}  recall {share(*c.recall)}")
    persons = sum(person for _, person in halves["measure"])
    best = wilson(persons, persons)[0]
    print(f"  {persons} pictures with persons support no lower bound over {best:.3f}, even without a miss;")
    print("  derived copies are not independent of their originals: the intervals are a little too narrow with them.")
    for photo in photos(pool):
        score = scores[photo.row["image_id"]]
        if photo.split == "measure" and (score >= threshold) != photo.person:
            print(f"  wrong: {photo.file} labelled {'person' if photo.person else 'no person'}, best score {score:.3f}")
    for at in (threshold, shipped):
        c = counts(halves["measure"], at)
        assert c.true_positive / c.precision[1] >= wanted_precision
        assert c.true_positive / c.recall[1] >= wanted_recall


def labelled_boxes(folder: Path, labels: str) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """Pictures of a COCO-style label file that are there, and their person boxes x0, y0, x1, y1 by image_id."""
    truth = json.loads((folder / labels).read_text())
    rows, boxes = [], {}
    for entry in truth["images"]:
        path = folder / Path(entry["file_name"]).name
        if not path.is_file():
            continue
        data = path.read_bytes()
        rows.append({"image_id": image_id(data), "width": entry["width"], "height": entry["height"], "bytes": data})
        mine = [a["bbox"] for a in truth["annotations"] if a["image_id"] == entry["id"] and not a.get("iscrowd")]
        boxes[image_id(data)] = np.array([[x, y, x + w, y + h] for x, y, w, h in mine], np.float32)
    return pa.Table.from_pylist(rows), boxes


def short_side_errors(profile: str, folder: Path, labels: str, threshold: float) -> tuple[list[float], int]:
    """Relative error of the short side of every labelled person that was found (IoU >= 0.5), and how many there are."""
    images, truth = labelled_boxes(folder, labels)
    errors, total = [], 0
    for row in stage(profile)(images).tables["data"].to_pylist():
        scores = np.array(row["box_scores"], np.float32)
        found = np.array(row["boxes"], np.float32).reshape(-1, 4)[scores >= threshold]
        wanted = truth[row["image_id"]]
        total += len(wanted)
        for box, overlap in zip(wanted, iou(wanted, found), strict=True):
            if len(overlap) and overlap.max() >= 0.5:
                measured = found[overlap.argmax()]
                sides = [min(b[2] - b[0], b[3] - b[1]) for b in (measured, box)]
                errors.append(abs(float(sides[0] / sides[1]) - 1))
    return errors, total


def test_short_side_against_coco_boxes(models: Path):
    base = models / "data" / "labelled" / "keypoints2d"
    sets = {
        "coco": "test_coco.json",
        "crowdpose": "test_crowdpose.json",
        "aic": "test_aic.json",
        "mhp": "test_mhp.json",
    }
    threshold = filter.profile_config("small").min_person_score
    print(f"\nsmall: short side of person boxes at score >= {threshold}")
    for name, labels in sets.items():
        errors, total = short_side_errors("small", base / name, labels, threshold)
        within = [sum(e <= bound for e in errors) for bound in (0.1, 0.2)]
        print(
            f"  {name:10s} found {len(errors)} of {total}, median relative error {np.median(errors):.3f}, "
            f"within 10 % {share(within[0], len(errors))}, within 20 % {share(within[1], len(errors))}"
        )
        if name == "coco":
            coco = errors, within
    print("  The sets are a few pictures each: these figures show that sizes are right, not how often they are.")
    errors, within = coco
    assert np.median(errors) <= 0.05
    assert within[0] / len(errors) >= 0.8 and within[1] == len(errors)
