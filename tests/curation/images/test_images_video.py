"""Videos frame by frame: every number is there, and a frame that is damaged is named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.images.reasons import Reject
from curation.images.video import is_video, open_video, read_frames

FRAMES = 12


@pytest.fixture(params=[("clip.avi", "MJPG"), ("clip.mp4", "mp4v")], ids=["mjpeg", "mpeg4"])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Frame k is grey of level 16 k + 20."""
    name, codec = request.param
    path = tmp_path / name
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"needs an OpenCV that encodes {codec}")
    for k in range(FRAMES):
        writer.write(np.full((48, 64, 3), 16 * k + 20, np.uint8))
    writer.release()
    return path


def levels(path: Path, first: int, count: int) -> list[tuple[int, int | None]]:
    frames = read_frames(open_video(path), first, count)
    return [(n, None if isinstance(p, Reject) else round((float(p.mean()) - 20) / 16)) for n, p in frames]


def test_frames_are_numbered_and_found_from_anywhere(clip: Path) -> None:
    about = open_video(clip)
    assert (about.frames, about.fps, about.width, about.height) == (FRAMES, 10.0, 64, 48)
    assert is_video(clip.name) and not is_video("clip.jpg")
    assert levels(clip, 0, 99) == [(k, k) for k in range(FRAMES)]
    assert levels(clip, 5, 3) == [(5, 5), (6, 6), (7, 7)]


def test_a_corrupt_frame_is_named_and_the_next_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for k in range(FRAMES):
        writer.write(np.full((48, 64, 3), 16 * k + 20, np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    starts = [i for i in range(len(data) - 3) if data[i : i + 3] == b"\xff\xd8\xff"]
    assert len(starts) == FRAMES
    data[starts[4] : starts[5] - 8] = bytes(starts[5] - 8 - starts[4])
    path.write_bytes(data)
    assert levels(path, 0, 99) == [(k, None if k == 4 else k) for k in range(FRAMES)]
    assert levels(path, 6, 3) == [(6, 6), (7, 7), (8, 8)]
    path.write_bytes(data[: starts[9] + 200])
    assert [n for n, level in levels(path, 0, 99) if level is None] == [4, 10, 11]


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"not a video at all" * 50)
    with pytest.raises(ValueError, match=r"clip\.mp4 cannot be opened as a video"):
        open_video(tmp_path / "clip.mp4")
