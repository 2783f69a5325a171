"""Whether a video file ends before its container says: then frames are missing that nothing in the file counts."""

from __future__ import annotations

from pathlib import Path
from typing import IO

AVI, ISO, MATROSKA = "avi", "iso", "matroska"
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # the first of MP4 and QuickTime


def container(path: str | Path) -> str:
    """AVI, ISO (MP4 and QuickTime), MATROSKA (and WebM), or "" for another, by a file's first bytes."""
    with Path(path).open("rb") as stream:
        head = stream.read(12)
    if head[4:8] in _BOXES:
        return ISO
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return AVI
    return MATROSKA if head[:4] == b"\x1a\x45\xdf\xa3" else ""


def is_cut_off(path: str | Path) -> bool:
    """Whether an MP4, QuickTime or Matroska file is shorter than it says; False where it does not say."""
    kind, size = container(path), Path(path).stat().st_size
    with Path(path).open("rb") as stream:
        if kind == ISO:
            return _boxes_end(stream, size) > size
        return kind == MATROSKA and _segment_end(stream) > size


def _boxes_end(stream: IO[bytes], size: int) -> int:
    """Where the last box ends (ISO 14496-12, 4.2): its size and name, 0 for the rest of the file, 1 for 64 bits."""
    end = 0
    while end + 8 <= size:
        stream.seek(end)
        head = stream.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # the rest of the file, or no box at all
            return size
        end += length
    return end


def _segment_end(stream: IO[bytes]) -> int:
    """Where the segment ends (RFC 8794): after the header, each an ID of four bytes and a size; 0 for unknown."""
    for _ in range(2):
        stream.seek(4, 1)
        first = stream.read(1)
        if not first or not first[0]:
            return 0
        more = 8 - first[0].bit_length()
        bits = 7 * (more + 1)
        length = int.from_bytes(first + stream.read(more), "big") & ((1 << bits) - 1)
        if length == (1 << bits) - 1:
            return 0
        end = stream.tell() + length
        stream.seek(end)
    return end
