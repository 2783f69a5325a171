"""What a person is shown: progress lines, and the sections of the report."""

from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import numpy as np
import pytest

from sapiens2.engine import report
from sapiens2.engine.progress import Reporter, describe

ROW: dict[str, Any] = {
    "step": 40,
    "loss": 1.25,
    "mae": 0.75,
    "lr": 1e-3,
    "grad_norm": 2.0,
    "grad_norm_max": 9.0,
    "seconds_per_step": 0.25,
    "data_wait": 0.01,
    "skipped": 0,
}


def test_a_line_per_row_where_there_is_no_terminal() -> None:
    stream, heard = io.StringIO(), []
    with Reporter("pretrain", 100, 0, shows=True, listener=heard.append, stream=stream) as reporter:
        reporter.stepped(39)
        reporter.row(ROW)
    assert stream.getvalue() == "pretrain 40/100 loss 1.25  mae 0.75  grad_norm 2  lr 1.00e-03  250 ms/step\n"
    assert heard == [ROW]
    with Reporter("pretrain", 100, 0, shows=False, stream=stream) as silent:
        silent.row(ROW)
    assert stream.getvalue().count("\n") == 1
    assert describe(ROW | {"skipped": 3, "loss": None}).endswith("250 ms/step  skipped 3")


def test_a_terminal_gets_a_live_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Reporter("pretrain", 100, 60, shows=True, stream=stream) as reporter:
        reporter.row(ROW)
        reporter.stepped(61)
    assert "61/100" in stream.getvalue() and "loss 1.25" in stream.getvalue()


def test_curves_leave_out_what_was_not_measured() -> None:
    history = [ROW, ROW | {"step": 80, "mae": None, "loss": 1.0}]
    section = report.curves("Losses", history, ("loss", "mae", "koleo"), "loss")
    assert section["series"] == [
        {"name": "loss", "x": [40, 80], "y": [1.25, 1.0]},
        {"name": "mae", "x": [40], "y": [0.75]},
    ]


@pytest.mark.parametrize(("shape", "expected"), [((400, 800, 3), (160, 320, 3)), ((60, 90, 3), (60, 90, 3))])
def test_pictures_become_thumbnails(shape: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    picture = np.zeros(shape, np.uint8)
    picture[:, : shape[1] // 2] = (250, 30, 10)  # red on the left
    item = report.pictures("Seen", [(picture, "caption")])["items"][0]
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(item["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == expected and item["caption"] == "caption"
    blue, green, red = decoded[10, 10].astype(int)
    assert red > 220 and green < 60 and blue < 60
