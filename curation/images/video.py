"""The frames of a video, numbered as the container counts them; a frame that cannot be decoded is a Reject, not a gap.

Decoding is OpenCV's (FFmpeg). Its decoder is told to refuse a frame with errors where it would else paint over them.
Numbers hold for a constant frame rate; in other videos those of frames after a jump may be off by a few.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.images.reasons import Reason, Reject

EXTENSIONS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
_GIVE_UP = 50  # frames in a row that cannot be decoded: those after them are not tried
_OPTIONS = {"OPENCV_FFMPEG_CAPTURE_OPTIONS": "err_detect;explode", "OPENCV_FFMPEG_LOGLEVEL": "-8"}


@dataclass(frozen=True)
class Video:
    """What a container says of itself; `frames` may be more than can be decoded."""

    path: str
    frames: int
    fps: float
    width: int
    height: int


def is_video(name: str) -> bool:
    """Whether a file's name says that it is a video."""
    return name.lower().endswith(EXTENSIONS)


def open_video(path: str | Path) -> Video:
    """Reads the container. Raises ValueError when it cannot be opened or counts no frames."""
    import cv2

    with _capture(str(path)) as capture:
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        if frames <= 0:
            raise ValueError(f"{path} cannot be opened as a video: it is damaged, or of a kind that OpenCV cannot read")
        width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        fps = float(capture.get(cv2.CAP_PROP_FPS))
    return Video(str(path), frames, fps if np.isfinite(fps) and fps > 0 else 25.0, width, height)


def read_frames(video: Video, first: int, count: int) -> Iterator[tuple[int, NDArray[np.uint8] | Reject]]:
    """Frames first .. first + count - 1 in order: their number from 0, and RGB pixels [H, W, 3] or why not."""
    failed, stop = 0, min(video.frames, first + count)
    with _capture(video.path) as capture:
        _go_to(capture, first)
        for number in range(first, stop):
            pixels = capture.read()[1] if failed < _GIVE_UP else None
            failed = failed + 1 if pixels is None else 0
            if pixels is not None:
                yield number, np.ascontiguousarray(pixels[..., ::-1])
            else:
                yield number, Reject(Reason.CORRUPT, "the frame cannot be decoded")


def _go_to(capture: Any, number: int) -> None:
    """Moves to a frame by its time stamp; where a damaged frame stops that, frame by frame from the start."""
    import cv2

    if number == 0:
        return
    capture.set(cv2.CAP_PROP_POS_FRAMES, number)
    if int(capture.get(cv2.CAP_PROP_POS_FRAMES)) != number:
        capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
        failed = 0
        for _ in range(number):
            failed = 0 if capture.grab() else failed + 1
            if failed >= _GIVE_UP:
                return


@contextmanager
def _capture(path: str) -> Iterator[Any]:
    """A capture with strict decoding; the options are read from the environment when it opens."""
    import cv2

    before = {name: os.environ.get(name) for name in _OPTIONS}
    os.environ.update(_OPTIONS)
    try:
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    try:
        yield capture
    finally:
        capture.release()
