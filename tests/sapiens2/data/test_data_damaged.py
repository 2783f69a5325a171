"""Label files that are damaged are named, never a traceback; the error keeps its texts on its way."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from sapiens2.data.labelled import DatasetWriter, LabelError
from sapiens2.data.labelled.check import check
from sapiens2.data.labelled.read import _array, read_image, stored_picture
from sapiens2.data.labelled.write import npz_bytes
from sapiens2.data.synthetic import render
from sapiens2.tasks.sample import from_scene


def spoiled(data: bytes) -> list[bytes]:
    """A file cut at several lengths, and with bits of head, middle and end flipped."""
    cut = [data[: len(data) * share // 100] for share in (0, 1, 30, 60, 95)]
    places = (*range(0, 160, 3), *range(200, len(data), len(data) // 40), *range(len(data) - 90, len(data), 3))
    return cut + [data[:at] + bytes([data[at] ^ 0x21]) + data[at + 1 :] for at in places]


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    one = from_scene(render(0, 96, 72))
    assert one.points is not None
    path = tmp_path / "points.npz"
    damaged = 0
    npy = io.BytesIO()
    np.save(npy, one.points)
    for data in (npz_bytes(points=one.points), npy.getvalue()):
        for each in spoiled(data):
            path.write_bytes(each)
            try:
                _array(str(path), "points")
            except LabelError as error:
                damaged += "points.npz: is damaged, or no npy or npz file of numbers" in str(error)
    assert damaged > 100
    folder = tmp_path / "data"
    with DatasetWriter(str(folder)) as writer:
        writer.add(one, "000")
    for share in (30, 60, 95):
        stored = npz_bytes(points=one.points)
        (folder / "points/000.npz").write_bytes(stored[: len(stored) * share // 100])
        report = check(str(folder), ["pointmap"], show=0)
        assert report.errors == 1 and report.counts["pointmap"]["unreadable"] == 1


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    def png(side: int) -> bytes:
        head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        body = b"IDAT" + zlib.compress(bytes(100))
        parts_ = [
            struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in (head, body)
        ]
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts_)

    path = tmp_path / "mask.png"
    path.write_bytes(png(20000))
    with pytest.raises(LabelError, match=r"mask\.png: has more pixels than can be decoded; cut it"):
        stored_picture(str(path))
    path.write_bytes(png(40000))
    with pytest.raises(LabelError, match=r"mask\.png: is not a picture that can be decoded"):
        read_image(str(path))


def test_an_error_travels_between_processes() -> None:
    error = LabelError("a.png", "is not there", "mend it")
    error.add_note("while reading")
    back = pickle.loads(pickle.dumps(error))
    assert (back.where, back.problem, back.mend) == ("a.png", "is not there", "mend it")
    assert type(back) is LabelError and str(back) == str(error) and back.__notes__ == ["while reading"]
