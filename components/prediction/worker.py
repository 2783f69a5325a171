"""One worker: loads the models once, then turns chunks of pictures into files and a record of each picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from components.prediction.boxes import DetectorChoice, GivenBoxes
from components.prediction.inputs import Chunk, Opened, Picture, open_chunk
from components.storage import Storage
from curation.images.video import FrameReader

REVISION = 4
"""Raised whenever the same pictures and settings would give other files."""
RECORDS = "records"
DONE, NOBODY, UNREADABLE, FAILED = "done", "no_person", "unreadable", "failed"
BEGUN = "begun"  # in a record only: the files it lists may be of this run or of one before, or may not be there
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; small and picklable. Of `boxes` and `detector` at most one is set."""

    task: str
    checkpoint: str  # path or URI of the weights
    digest: str  # sha256 of the weights
    size: str | None  # of weights that do not say it
    out: str
    boxes: GivenBoxes | None = None
    detector: DetectorChoice | None = None
    people: str | None = None  # weights of a segmentation model
    people_digest: str | None = None
    image_size: tuple[int, int] | None = None
    least_keypoint_score: float = 0.3
    flip: bool = False  # mean of the output for each crop and for its mirror image
    overlays: bool = True
    batch: int = 8
    device: str | None = None
    keep_plain: bool = field(default=False)  # overlays also where nobody is, so that a video of them has no gaps

    def settings(self) -> dict[str, Any]:
        """What changes an answer; a rerun with other settings does every picture again."""
        whole = {name: value for name, value in asdict(self).items() if name not in _PLACES}
        detector = None if self.detector is None else self.detector.describe()
        where = "file" if self.boxes is not None else "none" if detector is None else "detector"
        return {"revision": REVISION, **whole, "boxes": where, "detector": detector}

    def key(self, picture: Picture, content: str) -> str:
        """Content, settings and given boxes of a picture as 16 hex digits."""
        given = None if self.boxes is None else self.boxes.of(picture.name, content).tolist()
        text = json.dumps([content, self.settings(), given], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_PLACES = {"checkpoint", "people", "out", "boxes", "detector", "batch", "device", "size"}


class PredictWorker:
    """`worker(chunk)` -> the records of its pictures. Raises ValueError for weights that do not fit the job."""

    def __init__(self, job: Job) -> None:
        from sapiens2.tasks.load import load_task

        self.job, self.storage, self.frames = job, Storage(job.out), FrameReader()
        kind: Any = job.task
        size: Any = job.size
        self.model = load_task(job.checkpoint, task=kind, size=size, device=job.device)
        self.people = None if job.people is None else load_task(job.people, task="segmentation", device=job.device)
        device = str(next(self.model.parameters()).device)
        self.detect = None if job.detector is None else job.detector.build(device)

    def __call__(self, chunk: Chunk) -> list[dict[str, Any]]:
        """Records in the order of the chunk; whatever was done before with the same settings is kept."""
        kept: dict[str, dict[str, Any]] = {}

        def due(picture: Picture, content: str) -> bool:
            record = self._before(picture, content)
            if record is not None:
                kept[picture.stem] = {**record, "kept": True}
            return record is None

        records: dict[str, dict[str, Any]] = {}
        answered = self._answered(self._located(open_chunk(chunk, due, self.frames), records, kept))
        for opened, found in answered:
            records[opened.picture.stem] = self._write(opened, found)
        return [(records | kept)[picture.stem] for picture in chunk.pictures]

    def _before(self, picture: Picture, content: str) -> dict[str, Any] | None:
        """The record of an earlier run, if content and settings are the same and its files are there."""
        record = self._read(picture)
        try:
            same = record["key"] == self.job.key(picture, content) and record["status"] in (DONE, NOBODY)
            whole = same and all(self.storage.exists(name) for name in record["files"])
        except (KeyError, TypeError):
            return None  # none, one that is only begun, or a damaged one: the picture is done again
        return record if whole else None

    def _read(self, picture: Picture) -> dict[str, Any]:
        """The record that is there, finished or begun; empty where there is none or a damaged one."""
        path = f"{RECORDS}/{picture.stem}.json"
        try:
            record = json.loads(self.storage.read(path)) if self.storage.exists(path) else {}
        except ValueError:
            return {}
        return record if isinstance(record, dict) else {}

    def _located(
        self, pictures: Iterator[Opened], records: dict[str, dict[str, Any]], kept: dict[str, dict[str, Any]]
    ) -> Iterator[tuple[Opened, Any]]:
        """Pictures that can be answered, each with its boxes or None for all of it; the others get their record."""
        from sapiens2.tasks.predict import check_image, checked_boxes

        for opened in pictures:
            stem = opened.picture.stem
            if stem in kept:
                continue
            if opened.reject is not None:
                reason, detail = opened.reject.reason, opened.reject.detail
                records[stem] = self._record(opened, UNREADABLE, reason=str(reason), detail=detail)
                continue
            try:
                check_image(opened.pixels, opened.picture.name)
                boxes = self._boxes(opened)
                boxes = None if boxes is None else checked_boxes(boxes, opened.pixels.shape[:2])
            except ValueError as problem:
                records[stem] = self._record(opened, FAILED, reason="refused", detail=str(problem))
                continue
            if boxes is not None and not len(boxes):
                records[stem] = self._nobody(opened)
            else:
                yield opened, boxes

    def _boxes(self, opened: Opened) -> Any:
        if self.job.boxes is not None:
            return self.job.boxes.of(opened.picture.name, opened.content)
        return None if self.detect is None else self.detect(opened.pixels)

    def _answered(self, located: Iterator[tuple[Opened, Any]]) -> Iterator[tuple[Opened, Any]]:
        """Each picture with its predictions, persons of neighbouring pictures in one batch."""
        from sapiens2.tasks.predict import predict_each

        waiting: list[Opened] = []

        def pictures() -> Iterator[tuple[Any, Any]]:
            for opened, boxes in located:
                waiting.append(opened)
                yield opened.pixels, boxes

        job = self.job
        options: dict[str, Any] = {"input_size": job.image_size, "batch": job.batch, "flip": job.flip}
        for found in predict_each(self.model, pictures(), people=self.people, **options):
            yield waiting.pop(0), found

    def _write(self, opened: Opened, found: Any) -> dict[str, Any]:
        from sapiens2.tasks.answer_files import answer_files, person_row
        from sapiens2.tasks.overlays import overlay

        stem, task = opened.picture.stem, self.job.task
        files = {f"data/{stem}.{end}": data for end, data in answer_files(task, opened.pixels, found).items()}
        if self.job.overlays:
            drawn = overlay(task, opened.pixels, found, least_score=self.job.least_keypoint_score)
            files[f"overlays/{stem}.jpg"] = _jpeg(drawn)
        people = [person_row(task, one) for one in found]
        return self._record(opened, DONE, people=people, files=files)

    def _nobody(self, opened: Opened) -> dict[str, Any]:
        from sapiens2.tasks.overlays import overlay

        files = {}
        if self.job.overlays and self.job.keep_plain:
            drawn = overlay(self.job.task, opened.pixels, [], least_score=0)
            files[f"overlays/{opened.picture.stem}.jpg"] = _jpeg(drawn)
        given = self.job.boxes is not None
        return self._record(opened, NOBODY, detail="no box is given" if given else "no person found", files=files)

    def _record(self, opened: Opened, status: str, **facts: Any) -> dict[str, Any]:
        """Writes the files, deletes those of an earlier run that are none of these, and writes, last, the record.

        The record tells a later run that the picture is done. So that none ever vouches for another run's files, the
        one before is replaced first.
        """
        files = facts.pop("files", {})
        picture, content = opened.picture, opened.content
        stale = self._begin(picture, files)
        for path, data in files.items():
            self.storage.write(path, data)
        for path in stale:
            if self.storage.exists(path):
                self.storage.delete(path)
        record: dict[str, Any] = {
            "image": picture.name,
            "status": status,
            "key": self.job.key(picture, content),
            "content": content,
        }
        if opened.pixels is not None:
            record |= {"width": int(opened.pixels.shape[1]), "height": int(opened.pixels.shape[0])}
        record |= {"people": [], **facts, "files": sorted(files)}
        self.storage.write(f"{RECORDS}/{picture.stem}.json", json.dumps(record).encode())
        return record

    def _begin(self, picture: Picture, files: Iterable[str]) -> list[str]:
        """Puts a record of a picture that is begun in the place of the one before. Returns the files to delete.

        It lists the files of before too, so that whoever comes after a kill knows them.
        """
        own = (f"data/{picture.stem}.", f"overlays/{picture.stem}.")
        listed = self._read(picture).get("files")
        before = [name for name in listed if str(name).startswith(own)] if isinstance(listed, list) else []
        if names := sorted({*files, *before}):
            begun = {"image": picture.name, "status": BEGUN, "files": names}
            self.storage.write(f"{RECORDS}/{picture.stem}.json", json.dumps(begun).encode())
        return [name for name in before if name not in set(files)]


def _jpeg(picture: Any) -> bytes:
    import cv2

    done, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    assert done
    return bytes(data.tobytes())
