"""Partitions done in this process: once each, with one OpenCV thread as in an actor, which is given back."""

from __future__ import annotations

from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.attempt import Attempt
from components.partitions import Worker, map_partitions
from components.progress import Progress


class Threads:
    """Notes how many threads OpenCV has, and fails where it is told to."""

    def __call__(self, pid: str, payload: int) -> tuple[dict[str, pa.Table], dict[str, int]]:
        if payload < 0:
            raise ValueError(f"partition {pid} is negative")
        return {"data": pa.table({"threads": [cv2.getNumThreads()], "payload": [payload]})}, {"rows": 1}


def run(root: Path, payloads: dict[str, int]) -> Attempt:
    attempt = Attempt(str(root), "filtered", "v1")
    records = map_partitions(Worker(attempt, Threads), payloads, Progress("filter"), workers=0)
    assert list(records) == sorted(payloads) and all(r.metrics == {"rows": 1} for r in records.values())
    return attempt


def test_one_thread_inside_and_all_of_them_again_after(tmp_path: Path) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        attempt = run(tmp_path, {"b": 2, "a": 1})
        with pytest.raises(ValueError, match="partition c is negative"):
            run(tmp_path, {"a": 1, "b": 2, "c": -1})
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
    files = [file for record in attempt.done().values() for file in record.files]
    tables = [pq.read_table(tmp_path / file.path) for file in files]
    assert [t["threads"].to_pylist() for t in tables] == [[1], [1]]
    assert [t["payload"].to_pylist() for t in tables] == [[1], [2]]
