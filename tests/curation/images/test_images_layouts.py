"""Folders as img2dataset and DataComp leave them: every picture with its caption, nothing else counted as a source."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as pillow

from curation.images.reading import read_all
from curation.stages.ingest import IngestConfig, list_sources


def picture(seed):
    buffer = io.BytesIO()
    tones = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pillow.fromarray(tones).resize((64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


def told(seed):
    return {"url": f"https://a.example/{seed}.jpg", "caption": f"caption {seed}", "license": "CC0", "sha256": "ab" * 32}


def read(pool):
    """name -> (caption, licence, extra, bytes or reject) of a pool."""
    items = [item for part in list_sources(str(pool), IngestConfig()).partitions for item in part.items]
    found = {}
    for item, data in read_all(items, IngestConfig().policy()):
        found[item.source] = (item.caption, item.licence, json.loads(item.extra or "{}"), data)
    return found


def metadata(folder, shard, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard}.parquet")
    (folder / f"{shard}_stats.json").write_text(json.dumps({"count": len(rows), "successes": len(rows)}))


def test_webdataset_shards_with_their_metadata(tmp_path):
    for shard in ("00000", "00001"):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for n in range(2):
                key, seed = f"{shard}000{n}", int(shard) * 2 + n
                for ending, data in (
                    ("jpg", picture(seed)),
                    ("json", json.dumps(told(seed)).encode()),
                    ("txt", b"mine"),
                ):
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        metadata(tmp_path, shard, [told(0), told(1)])
    found = read(tmp_path)
    assert sorted(found) == [f"0000{s}.tar::0000{s}000{n}.jpg" for s in range(2) for n in range(2)]
    caption, licence, extra, data = found["00001.tar::000010001.jpg"]
    assert (caption, licence, data) == ("mine", "CC0", picture(3))
    assert extra["url"] == "https://a.example/3.jpg"


def test_files_in_folders(tmp_path):
    (tmp_path / "00000").mkdir()
    for n in range(3):
        (tmp_path / "00000" / f"{n:09d}.jpg").write_bytes(picture(n))
        (tmp_path / "00000" / f"{n:09d}.json").write_text(json.dumps(told(n)))
        (tmp_path / "00000" / f"{n:09d}.txt").write_text(f"text {n}\n")
    (tmp_path / "00000" / "000000002.json").write_text("[not an object")
    metadata(tmp_path, "00000", [told(n) for n in range(3)])
    found = read(tmp_path)
    assert sorted(found) == [f"00000/{n:09d}.jpg" for n in range(3)]
    assert found["00000/000000001.jpg"][:2] == ("text 1", "CC0")
    assert found["00000/000000002.jpg"][:3] == ("text 2", None, {})


def test_parquet_with_bytes(tmp_path):
    metadata(tmp_path, "00000", [{**told(n), "jpg": picture(n)} for n in range(2)])
    found = read(tmp_path)
    assert [(row[0], row[3]) for row in found.values()] == [(f"caption {n}", picture(n)) for n in range(2)]


def test_datacomp_metadata_is_a_list_of_addresses(tmp_path):
    rows = [
        {"uid": f"{n:032x}", "url": f"http://127.0.0.1/{n}.jpg", "text": f"t {n}", "sha256": "cd" * 32}
        for n in range(3)
    ]
    for name, part in (("a", rows[:2]), ("b", rows[2:])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / f"{name}.parquet")
        np.savez(tmp_path / f"{name}.npz", l14_img=np.zeros((2, 4)))
    (partition,) = list_sources(str(tmp_path), IngestConfig()).partitions
    assert [(i.kind, i.source, i.caption) for i in partition.items] == [("url", r["url"], r["text"]) for r in rows]
    assert [json.loads(i.extra)["uid"] for i in partition.items] == [r["uid"] for r in rows]


def test_what_stands_alone_stays_a_source(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(0))
    (tmp_path / "notes.txt").write_text("not about a picture")
    (tmp_path / "x_stats.json").write_text("{}")
    assert sorted(read(tmp_path)) == ["a.jpg", "notes.txt", "x_stats.json"]


def test_a_changed_caption_is_another_pool(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(0))
    (tmp_path / "a.txt").write_text("one")
    before = list_sources(str(tmp_path), IngestConfig()).digest
    (tmp_path / "a.txt").write_text("two")
    assert list_sources(str(tmp_path), IngestConfig()).digest != before
