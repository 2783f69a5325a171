"""Label files that are damaged are named, never a traceback; the error keeps its texts on its way."""

from __future__ import annotations

import codecs
import io
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from sapiens2.data.labelled import DatasetWriter, LabelError, LabelledDataset
from sapiens2.data.labelled.check import check
from sapiens2.data.labelled.read import _array, read_image, stored_picture
from sapiens2.data.labelled.sheet import tile
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four people, one a row."""
    one = from_scene(render(0, 96, 72))
    with DatasetWriter(str(tmp_path / "data")) as writer:
        for name in "abcd":
            writer.add(one, name)
    return tmp_path / "data"


def test_every_malformed_row_is_named_and_the_others_are_read(folder: Path) -> None:
    index = folder / "index.jsonl"
    good = index.read_bytes().splitlines()
    row = json.loads(good[1])
    bad = [
        (b"{oops", "is not JSON (Expecting property name"),
        (b"[" * 100_000, "is not JSON (maximum recursion depth"),
        (b'{"image": ' + b"1" * 5000 + b"}", "is not JSON (Exceeds the limit"),
        (b'{"image": "J\xfcrgen.png"}', "is not UTF-8 (byte 0xfc); save the index as UTF-8"),
        (json.dumps(row | {"box": [1, 2, 3]}).encode(), "`box` has the shape [3]; give [x0, y0, x1, y1]"),
        (json.dumps(row | {"image": "/data/b.png"}).encode(), "`image` is the absolute path '/data/b.png'"),
    ]
    index.write_bytes(b"\n".join([good[0], *(line for line, _ in bad), *good[1:]]))
    for tasks in (None, ["pose"]):
        report = check(str(folder), tasks, show=1)
        texts = [str(problem) for problem in report.problems if problem.error]
        assert len(texts) == report.errors == len(bad) and report.rows == 4 + len(bad)
        for number, (text, (_, message)) in enumerate(zip(texts, bad, strict=True), 2):
            assert f"index.jsonl line {number}: " in text and message in text, text
        assert report.counts["pose"]["samples"] == 4 and report.counts["pose"]["unreadable"] == 0
    report = check(str(folder), limit=3, show=0)
    assert (report.rows, report.errors) == (3, 2)  # a row and two malformed ones
    with pytest.raises(LabelError, match=r"index\.jsonl line 2: is not JSON"):
        LabelledDataset(str(folder), "pose")
    index.write_bytes(bad[0][0])
    (problem,) = check(str(folder)).problems
    assert problem.problem.startswith("is not JSON")


def test_the_encoding_of_an_index(folder: Path) -> None:
    index, facts = folder / "index.jsonl", folder / "dataset.json"
    text = index.read_text()
    index.write_bytes(codecs.BOM_UTF8 + text.encode())
    facts.write_bytes(codecs.BOM_UTF8 + facts.read_bytes())
    assert check(str(folder), show=0).errors == 0 and len(LabelledDataset(str(folder), "pose")) == 4
    index.write_text(text.replace("}\n", ', "group": "a\u2028b"}\n'), encoding="utf-8")  # no end of a line
    assert LabelledDataset(str(folder), "pose").rows[0].group == "a\u2028b"
    message = r"index\.jsonl: is text in UTF-16 or UTF-32, or no text; save it as UTF-8"
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        index.write_text(text, encoding=encoding)
        with pytest.raises(LabelError, match=message):
            check(str(folder))
        with pytest.raises(LabelError, match=message):
            LabelledDataset(str(folder), "pose")


def test_a_damaged_parquet_index_is_named(folder: Path) -> None:
    (folder / "index.jsonl").unlink()
    (folder / "index.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(LabelError, match=r"index\.parquet: is damaged, or no Parquet file \(.*\); write it again"):
        check(str(folder))


def test_boxes_far_beyond_their_picture_are_named_and_others_drawn(folder: Path) -> None:
    index = folder / "index.jsonl"
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    # The longer side is 96: ten of them are the reach.
    boxes = ([10, 10, 50, 96 + 960], [10, 10, 50, 96 + 961], [-1e300, 0, 1e300, 9], [10, 10, 10.00001, 10.00001])
    index.write_text("".join(json.dumps(row | {"box": box}) + "\n" for row, box in zip(rows, boxes, strict=True)))
    report = check(str(folder), ["pose"])
    far = [str(problem) for problem in report.problems if problem.error]
    assert len(far) == 2 and all(
        "beyond the picture of 72 x 96 pixels by more than 10 times its longer side; give" in t for t in far
    )
    assert "line 2: " in far[0] and "line 3: " in far[1]
    assert [tile(task, sample, 96).shape[0] for task, _, sample in report.shown] == [96, 96]


def test_an_error_travels_between_processes() -> None:
    error = LabelError("a.png", "is not there", "mend it")
    error.add_note("while reading")
    back = pickle.loads(pickle.dumps(error))
    assert (back.where, back.problem, back.mend) == ("a.png", "is not there", "mend it")
    assert type(back) is LabelError and str(back) == str(error) and back.__notes__ == ["while reading"]
