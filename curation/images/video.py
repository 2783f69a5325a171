"""The frames of a video, numbered from 0 as they are shown; a frame that cannot be decoded is a Reject, not a gap.

Decoding is OpenCV's (FFmpeg). Its decoder is told to refuse a frame with errors where it would else paint over them.
Frames are read from front to back and never sought: OpenCV seeks by time as if all frames were equally long, and where
they are not it lands on another frame than the one it names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.images.reasons import Reason, Reject
from curation.images.video_end import AVI, ISO, container, is_cut_off

EXTENSIONS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
_GIVE_UP = 50  # attempts in a row that bring no frame, beyond the packets of the file: nothing follows
_SAME_RATE = 0.01  # relative: the container's rate is kept where the time stamps say the same to this
_LEAST_BYTES = 8  # of a frame in any container: no file has more frames than it has room for, whatever it says
_OPTIONS = {"OPENCV_FFMPEG_CAPTURE_OPTIONS": "err_detect;explode", "OPENCV_FFMPEG_LOGLEVEL": "-8"}
_ATTEMPTS = "OPENCV_FFMPEG_READ_ATTEMPTS"
"""Packets, those of the sound too, among which a frame is looked for; read once in a process, at its first frame."""


@dataclass(frozen=True)
class Video:
    """A video that can be opened: `frames` with those that cannot be decoded, `fps` of them a second on average."""

    path: str
    frames: int
    fps: float
    width: int
    height: int


def is_video(name: str) -> bool:
    """Whether a file's name says that it is a video."""
    return name.lower().endswith(EXTENSIONS)


def open_video(path: str | Path) -> Video:
    """Counts the frames. Raises ValueError when the file cannot be opened or has none.

    Where the container counts as many frames as it holds packets these are the frames; else all of it is decoded once:
    Matroska has no count but a duration, and a packet may hold no frame that is shown.
    """
    import cv2

    capture = _capture(str(path))
    said = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    said = min(said, Path(path).stat().st_size // _LEAST_BYTES) if said > 0 else said
    width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    fps = fps if np.isfinite(fps) and fps > 0 else 25.0
    times = _packet_times(str(path))
    frames = len(times)
    if said != frames or len(set(times)) < frames or min(times, default=0) < 0:
        frames, last = _decoded(str(path), len(times))
        if said == len(times) or container(path) != ISO:  # in an edited MP4 those after the last are hidden
            frames += sum(time > last for time in times)
        if _ends_early(str(path), said, times, fps):
            frames = max(frames, said)
    if frames <= 0:
        raise ValueError(f"{path} cannot be opened as a video: it is damaged, or of a kind that OpenCV cannot read")
    return Video(str(path), frames, _rate(fps, times), width, height)


def _packet_times(path: str) -> list[float]:
    """Milliseconds at which each packet is shown, in the order of the file; nothing is decoded."""
    import cv2

    capture = _capture(path)
    times = []
    if capture.isOpened() and capture.set(cv2.CAP_PROP_FORMAT, -1):
        while capture.grab():
            times.append(float(capture.get(cv2.CAP_PROP_POS_MSEC)))
    capture.release()
    return times


def _decoded(path: str, packets: int) -> tuple[int, float]:
    """Frames up to the last that decodes, with those before it that fail, and when that is shown, milliseconds."""
    import cv2

    capture = _capture(path)
    tried = frames = 0
    last = -1.0
    while capture.isOpened() and tried < max(packets, frames + _GIVE_UP):
        tried += 1
        if capture.grab():
            # What comes out last may have no time: then OpenCV says 0.
            frames, last = tried, max(last, float(capture.get(cv2.CAP_PROP_POS_MSEC)))
    capture.release()
    return frames, last


def _ends_early(path: str, said: int, times: list[float], fps: float) -> bool:
    """Whether frames are missing at the end, so that the container's count is the better one.

    The duration tells it in AVI only, where every frame is equally long; elsewhere it may be that of the sound.
    """
    if container(path) == AVI:
        return bool(times) and round(max(times) / 1000 * fps) + 1 < said
    return is_cut_off(path)


def _rate(said: float, times: list[float]) -> float:
    """Frames per second: what the container says, unless its time stamps (milliseconds) say something else.

    Stamps that repeat or begin anew, as of clips joined, say nothing.
    """
    seconds = (max(times) - min(times)) / 1000 if len(set(times)) == len(times) > 1 else 0.0
    if seconds <= 0:
        return said
    measured = (len(times) - 1) / seconds
    return said if abs(measured / said - 1) <= _SAME_RATE else measured


class FrameReader:
    """Reads frames of one video at a time and goes on where it stands: chunks in order cost one pass through the file.

    A chunk further on is reached by decoding what lies between, an earlier one from the start.
    """

    def __init__(self) -> None:
        self._video: Video | None = None
        self._capture: Any = None
        self._next = 0

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file; reading opens it again."""
        if self._capture is not None:
            self._capture.release()
        self._video = self._capture = None

    def read(self, video: Video, first: int, count: int) -> Iterator[tuple[int, NDArray[np.uint8] | Reject]]:
        """Frames first .. first + count - 1 in order: their number from 0, and RGB pixels [H, W, 3] or why not."""
        if video != self._video or first < self._next:
            self.close()
            self._video, self._capture, self._next = video, _capture(video.path), 0
        while self._next < first:
            self._next += 1
            self._capture.grab()
        for number in range(first, min(video.frames, first + count)):
            self._next = number + 1
            pixels = self._capture.read()[1]
            if pixels is not None:
                yield number, np.ascontiguousarray(pixels[..., ::-1])
            else:
                yield number, Reject(Reason.CORRUPT, "the frame cannot be decoded")


def _capture(path: str) -> Any:
    """A capture with strict decoding; the options are read from the environment when it opens."""
    import cv2

    os.environ.setdefault(_ATTEMPTS, str(1 << 30))
    before = {name: os.environ.get(name) for name in _OPTIONS}
    os.environ.update(_OPTIONS)
    try:
        return cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
