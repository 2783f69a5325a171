"""What came out of a whole run: one JSON summary, one Parquet table of persons, and for a video the drawn frames."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.artifacts import parquet_bytes
from components.prediction.worker import DONE, FAILED, NOBODY, UNREADABLE, Job
from components.storage import Storage
from curation.images.video import Video

SUMMARY, TABLE, FILM = "predictions.json", "predictions.parquet", "overlay.mp4"
_SHOWN = 5
FLOATS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("image_id", pa.string()),  # first 128 bits of the sha256 of the bytes; null for frames of a video
        ("status", pa.string()),  # done, no_person, unreadable, failed
        ("detail", pa.string()),
        ("width", pa.int32()),  # of the picture, pixels
        ("height", pa.int32()),
        ("person", pa.int32()),  # from 0; null in the one row of a picture without an answer
        ("box", FLOATS),  # x0, y0, x1, y1
        ("score", pa.float32()),  # the detector's
        ("region", FLOATS),  # what the network saw
        ("keypoints", FLOATS),  # pose: 308 times x, y, score
        ("part_pixels", pa.list_(pa.int32())),  # segmentation: pixels of each of the 29 classes in the window
        ("mean_normal", FLOATS),  # normal: x, y, z, unit
        ("mean_albedo", FLOATS),  # albedo: r, g, b in [0, 1]
        ("depth_m", pa.float32()),  # pointmap: median depth
        ("focal_px", pa.float32()),  # pointmap
        ("scale", pa.float32()),  # pointmap: canonical points per metre
    ]
)


def write_summary(job: Job, records: Sequence[dict[str, Any]], notes: Sequence[str]) -> dict[str, Any]:
    """Writes the summary and the table below `job.out`; returns the summary."""
    storage = Storage(job.out)
    summary = {
        "task": job.task,
        "checkpoint": job.checkpoint,
        "settings": job.settings(),
        "counts": counts(records),
        "notes": list(notes),
        "pictures": [_picture(record) for record in records],
    }
    storage.write(TABLE, parquet_bytes(people_table(records)))
    storage.write(SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def counts(records: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Pictures, persons, and pictures by outcome; `kept` are among the others: done by an earlier run."""
    by_status = Counter(record["status"] for record in records)
    found = {status: by_status[status] for status in (DONE, NOBODY, UNREADABLE, FAILED)}
    people = sum(len(record["people"]) for record in records)
    kept = sum(bool(record.get("kept")) for record in records)
    return {"pictures": len(records), "people": people, **found, "kept": kept}


def _picture(record: dict[str, Any]) -> dict[str, Any]:
    """The record without what the table and the files hold."""
    left = {name: value for name, value in record.items() if name not in ("key", "content", "people", "kept")}
    return left | {"people": len(record["people"])}


def people_table(records: Sequence[dict[str, Any]]) -> pa.Table:
    """One row per person; a picture without any has one row that says why."""
    rows = []
    for record in records:
        about = {name: record.get(name) for name in ("image", "status", "detail", "width", "height")}
        frame = ":" in record["content"]
        about["image_id"] = None if frame or not record["content"] else record["content"][:32]
        people = [{"person": index, **person} for index, person in enumerate(record["people"])]
        rows += [about | person for person in people or [{}]]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def closing_lines(summary: dict[str, Any]) -> list[str]:
    """What happened, in one line, and a line for each kind of picture without an answer that names the first few."""
    n = summary["counts"]
    kept = f", {n['kept']} of them kept from an earlier run" if n["kept"] else ""
    lines = [f"{n[DONE]} of {n['pictures']} pictures answered{kept}, {n['people']} people"]
    for status, text in ((NOBODY, "without a person"), (UNREADABLE, "unreadable"), (FAILED, "refused")):
        names = [_named(p) for p in summary["pictures"] if p["status"] == status]
        if names:
            more = f" and {len(names) - _SHOWN} more, see {SUMMARY}" if len(names) > _SHOWN else ""
            lines.append(f"{len(names)} {text}: {', '.join(names[:_SHOWN])}{more}")
    return [*lines, *summary["notes"]]


def _named(picture: dict[str, Any]) -> str:
    if picture["status"] == NOBODY:
        return str(picture["image"])
    reason = picture["detail"] if picture["status"] == FAILED else picture.get("reason", "")
    return f"{picture['image']} ({reason})"


def film_rate(fps: float) -> float:
    """Frames per second that MPEG-4 takes: it counts a second in 65535 parts at most, and OpenCV by powers of ten."""
    digits = next((digits for digits in (3, 2, 1) if fps * 10**digits <= 65535), 0)
    return max(round(fps, digits), 0.1)


def write_film(job: Job, records: Sequence[dict[str, Any]], video: Video) -> str | None:
    """The drawn frames as a video beside them; a frame that could not be read repeats the one before.

    Returns None, or why there is none.
    """
    import cv2
    import numpy as np

    storage = Storage(job.out)
    frames = [next((f for f in record["files"] if f.startswith("overlays/")), None) for record in records]
    first = next((frame for frame in frames if frame), None)
    if first is None:
        return "no frame was drawn, so there is no video of them"

    def read(path: str) -> Any:
        return cv2.imdecode(np.frombuffer(storage.read(path), np.uint8), cv2.IMREAD_COLOR)

    shown = read(first)
    size = (shown.shape[1] // 2 * 2, shown.shape[0] // 2 * 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILM
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), film_rate(video.fps), size)
        if not writer.isOpened():
            return "this OpenCV cannot encode mp4v, so there is no video of the drawn frames; they lie in overlays/"
        for frame in frames:
            shown = read(frame) if frame else shown
            writer.write(np.ascontiguousarray(shown[: size[1], : size[0]]))
        writer.release()
        storage.write(FILM, path.read_bytes())
    return None
