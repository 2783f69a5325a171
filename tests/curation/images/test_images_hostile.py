"""Hostile files through ingest: every one ends in a table, for a right reason, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hostile_files import png_of

from curation.images import Reject, decode, png_rows
from curation.images.reasons import Reason

ROOT = Path(__file__).parents[3]
MOST_MB = 500  # one picture of the largest size that is taken, in four bytes a pixel, and little beside it


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """The benchmark's measurements, from a process of its own, so that its memory is its own too."""
    command = [sys.executable, str(ROOT / "benchmarks/hostile_images.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def test_every_file_ends_in_a_table_for_a_right_reason(result: dict[str, Any]) -> None:
    assert result["files"] >= 200 and result["listed"] == result["files"]
    assert result["wrong"] == []


def test_a_bad_file_costs_its_own_row_only(result: dict[str, Any]) -> None:
    assert result["good_unchanged"] is True


def test_memory_is_bounded_and_every_orientation_upright(result: dict[str, Any]) -> None:
    assert 0 < result["peak_mb"] <= MOST_MB
    assert result["upright"] == [32, 32]


def test_rows_that_are_missing_from_a_whole_stream() -> None:
    """Pillow shows such a file in full, the missing rows black."""
    whole, half = (png_of(64, 64, zlib.compress(b"".join([b"\0" + b"\x7f" * 64] * rows))) for rows in (64, 32))
    assert png_rows.missing(whole) is None and not isinstance(decode(whole), Reject)
    for answer in (png_rows.missing(half), decode(half)):
        assert isinstance(answer, Reject) and answer.reason == Reason.TRUNCATED and str(32 * 65) in answer.detail


def test_interlaced_rows_are_counted_by_pass() -> None:
    """8 x 8 grey in Adam7: (1+1) + (1+1) + (1+2) + 2(1+2) + 2(1+4) + 4(1+4) + 4(1+8) = 79 bytes."""
    for size, short in ((79, False), (78, True), (72, True)):
        data = bytearray(png_of(8, 8, zlib.compress(bytes(size))))
        data[28] = 1  # interlaced
        assert (png_rows.missing(bytes(data)) is not None) is short
