"""Videos frame by frame: every number is there, and a frame that is damaged is named."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.images.reasons import Reject
from curation.images.video import FrameReader, _decoded, is_video, open_video

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
    with FrameReader() as reader:
        frames = list(reader.read(open_video(path), first, count))
    return [(n, None if isinstance(p, Reject) else round((float(p.mean()) - 20) / 16)) for n, p in frames]


def test_frames_are_numbered_and_found_from_anywhere(clip: Path) -> None:
    about = open_video(clip)
    assert (about.frames, about.fps, about.width, about.height) == (FRAMES, 10.0, 64, 48)
    assert _decoded(str(clip), 0)[0] == FRAMES, "counting packets must give what decoding does"
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


LONG = 100
"""Frames of a video of several chunks; frame k shows the number k in bars of black and white."""


def numbered(path: Path, codec: str = "mp4v", fps: float = 10) -> bytearray:
    """Writes the video; returns its bytes."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (128, 64))
    if not writer.isOpened():
        pytest.skip(f"needs an OpenCV that encodes {codec} into {path.suffix}")
    for k in range(LONG):
        bars = np.repeat([255 * (k >> bit & 1) for bit in range(8)], 16)
        writer.write(np.broadcast_to(bars[None, :, None], (64, 128, 3)).astype(np.uint8))
    writer.release()
    return bytearray(path.read_bytes())


def box(data: bytearray, *names: bytes) -> int:
    """Where the box of an MP4 begins that lies in the first of the boxes `names[:-1]`."""
    at = 0
    for name in names:
        at = data.index(name, at + 4)
    return at - 4


def variable(path: Path) -> None:
    """An MP4 of 100 frames: 50 of 33 ms, then 50 of 100 ms, as telephones write when the light fails."""
    data = numbered(path)
    stbl = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
    assert data.index(b"mdat") < box(data, b"moov"), "the table of frames must lie after what it points to"
    (ticks,) = struct.unpack_from(">I", data, box(data, b"moov", b"mdhd") + 20)
    times = [50, round(0.033 * ticks), 50, round(0.1 * ticks)]
    stts = box(data, *stbl, b"stts")
    (size,) = struct.unpack_from(">I", data, stts)
    grown = 32 - size
    for depth in range(len(stbl)):
        at = box(data, *stbl[: depth + 1])
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + grown)
    edts = box(data, b"moov", b"edts") + 4
    data[edts : edts + 4] = b"free"
    data[stts : stts + size] = struct.pack(">I4s6I", 32, b"stts", 0, 2, *times)
    path.write_bytes(data)


def shown(frames: list[tuple[int, np.ndarray | Reject]]) -> list[int | None]:
    """The numbers that the frames show."""
    found: list[int | None] = []
    for _, pixels in frames:
        if isinstance(pixels, Reject):
            found.append(None)
        else:
            found.append(sum(int(pixels[32, 16 * bit + 8].mean() > 128) << bit for bit in range(8)))
    return found


def in_chunks(path: Path, size: int = 32) -> list[int | None]:
    video = open_video(path)
    with FrameReader() as reader:
        return shown([one for k in range(0, video.frames, size) for one in reader.read(video, k, size)])


def test_every_frame_of_a_variable_rate_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    variable(path)
    video = open_video(path)
    assert video.frames == LONG and video.fps == pytest.approx(99 / (50 * 0.033 + 49 * 0.1), rel=0.01)
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 32)
    pixels = capture.read()[1]
    assert shown([(32, pixels)]) != [32], "OpenCV seeks rightly here: the video does not test what it should"
    assert in_chunks(path) == list(range(LONG))
    with FrameReader() as reader:  # on, back, on past a gap, as chunks come where workers share them
        for first in (64, 32, 32, 90, 0):
            assert shown(list(reader.read(video, first, 5))) == list(range(first, first + 5))


@pytest.mark.parametrize("codec", ["MPG1", "MPG2"])
def test_an_mpeg_stream_has_its_own_frames(tmp_path: Path, codec: str) -> None:
    """The last frame comes without a time, and nothing says how many there are."""
    numbered(tmp_path / "clip.mpg", codec, fps=25)  # MPEG-1 knows no 10
    video = open_video(tmp_path / "clip.mpg")
    assert video.frames == LONG and in_chunks(tmp_path / "clip.mpg") == list(range(LONG))


def test_a_count_that_the_file_has_no_room_for_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    data = numbered(path, "MJPG")
    for name in (b"strh", b"avih"):
        at = data.index(name) + 8
        struct.pack_into("<I", data, at + (32 if name == b"strh" else 16), 0x7FFFFFFF)
    path.write_bytes(data)
    assert LONG <= open_video(path).frames <= len(data) // 8


def test_a_container_that_has_no_count_is_counted(tmp_path: Path) -> None:
    """Matroska has a duration, and it may be that of the sound: there are no frames after the last."""
    path = tmp_path / "clip.mkv"
    data = numbered(path)
    at = data.index(b"\x44\x89\x88") + 3
    assert struct.unpack_from(">d", data, at) == (10_000.0,)
    struct.pack_into(">d", data, at, 26_100.0)
    path.write_bytes(data)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 261
    assert in_chunks(path) == list(range(LONG))
    path.write_bytes(data[: len(data) // 2])  # now they may be
    broken = in_chunks(path)
    whole = broken.index(None)
    assert 20 < whole < 80 and broken == [*range(whole), *[None] * (261 - whole)]


def test_frames_that_an_edit_hides_are_none(tmp_path: Path) -> None:
    """A clip trimmed without coding it anew still counts all that it was."""
    path = tmp_path / "clip.mp4"
    data = numbered(path)
    elst = box(data, b"moov", b"elst")
    (ticks,) = struct.unpack_from(">I", data, box(data, b"moov", b"mdhd") + 20)
    struct.pack_into(">Ii", data, elst + 16, 3000, ticks // 2)  # 3 s from 0.5 s on, from within a group of pictures
    path.write_bytes(data)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == LONG
    assert in_chunks(path) == list(range(5, 35))


@pytest.mark.parametrize("lost", [1, 60])
def test_frames_damaged_at_the_end_are_named(lost: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    data = numbered(path, "MJPG")
    starts = [i for i in range(len(data) - 3) if data[i : i + 3] == b"\xff\xd8\xff"]
    kept = LONG - lost
    end = data.index(b"idx1")
    data[starts[kept] - 8 : end] = bytes(end - starts[kept] + 8)
    path.write_bytes(data)
    assert in_chunks(path) == [*range(kept), *[None] * lost]
    path.write_bytes(data[: starts[kept] - 8])
    assert in_chunks(path) == [*range(kept), *[None] * lost]


def test_a_cut_off_mp4_names_what_is_missing(tmp_path: Path) -> None:
    """Where the table of frames comes first, a download that breaks off can be opened."""
    path = tmp_path / "clip.mp4"
    data = numbered(path)
    moov = box(data, b"moov")
    table = data[moov:]
    stco = box(table, b"moov", b"stco")
    (chunks,) = struct.unpack_from(">I", table, stco + 12)
    for k in range(chunks):
        at = stco + 16 + 4 * k
        struct.pack_into(">I", table, at, struct.unpack_from(">I", table, at)[0] + len(table))
    start = box(data, b"ftyp") + struct.unpack_from(">I", data)[0]
    fast = data[:start] + table + data[start:moov]
    path.write_bytes(fast)
    assert in_chunks(path) == list(range(LONG))
    path.write_bytes(fast[: len(fast) - (moov - start) // 2])
    broken = in_chunks(path)
    whole = broken.index(None)
    assert len(broken) == LONG and 20 < whole < 80 and set(broken[whole:]) == {None}
    assert broken[: whole - 1] == list(range(whole - 1))  # the decoder takes half of a frame for one that repeats


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"not a video at all" * 50)
    with pytest.raises(ValueError, match=r"clip\.mp4 cannot be opened as a video"):
        open_video(tmp_path / "clip.mp4")
