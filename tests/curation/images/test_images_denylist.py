"""Denylists: what an entry refuses, that nothing is fetched or read before it is asked, and the user's own screen."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading

import numpy as np
import pytest
from PIL import Image as pillow

from curation.images.denylist import Denylist
from curation.images.screening import denylist_of
from curation.stages.ingest import IngestConfig, IngestPartition, list_sources

GOOD = IngestConfig(min_side_px=32, allow_private_addresses=True, respect_robots=False)


def picture(seed: int, mirrored: bool = False, quality: int = 90) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = pillow.fromarray(coarse).resize((240, 180), pillow.Resampling.BICUBIC)
    image = image.transpose(pillow.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def ingest(pool, denylist=None, config=GOOD):
    (partition,) = list_sources(str(pool), config).partitions
    tables = IngestPartition(config, denylist=denylist)(partition)
    return {row["source"]: row for row in tables["sources"].to_pylist()}, tables


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5", "bare sha256", "image_id"])
def test_a_hash_of_the_bytes_refuses_them_and_no_others(tmp_path, kind):
    for seed in range(3):
        (tmp_path / f"{seed}.jpg").write_bytes(picture(seed))
    digest = hashlib.new(kind if kind in ("sha256", "sha1", "md5") else "sha256", picture(1)).hexdigest()
    entry = {"bare sha256": digest, "image_id": digest[:32]}.get(kind, f"{kind}:{digest}")
    found, tables = ingest(tmp_path, Denylist.parse(["# a comment", "", f"{entry.upper()}  # case 7"], "list"))
    assert {name: row["reason"] for name, row in found.items()} == {"0.jpg": None, "1.jpg": "denylisted", "2.jpg": None}
    assert tables["images"].num_rows == 2 and tables["rejects"].to_pylist()[0]["image_id"] is None


def test_a_perceptual_hash_refuses_near_copies_and_mirror_images(tmp_path):
    (tmp_path / "original.jpg").write_bytes(picture(1))
    code = ingest(tmp_path)[1]["images"]["phash"][0].as_py()
    (tmp_path / "recoded.jpg").write_bytes(picture(1, quality=60))
    (tmp_path / "mirrored.jpg").write_bytes(picture(1, mirrored=True))
    (tmp_path / "other.jpg").write_bytes(picture(2))
    found, _ = ingest(tmp_path, Denylist.parse([f"phash:{code:016x}"], "list"))
    assert [name for name, row in found.items() if row["reason"] is None] == ["other.jpg"]


def test_a_denied_address_is_never_asked(tmp_path):
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(picture(len(self.path)))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "list.csv").write_text(
        f"url,caption\n{base}/fine.jpg,kept\n{base}/no.jpg,a name\nhttp://sub.bad.example/x.jpg,another\n"
    )
    denylist = Denylist.parse([f"{base}/no.jpg", "host:bad.example"], "list")
    found, _ = ingest(tmp_path / "list.csv", denylist)
    server.shutdown()
    assert asked == ["/fine.jpg"]
    assert [row["reason"] for row in found.values()] == [None, "denylisted", "denylisted"]
    assert [row["caption"] for row in found.values()] == ["kept", None, None]


def test_files_enter_the_digest_by_their_content(tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "0.jpg").write_bytes(picture(0))
    lists = [tmp_path / name for name in ("a.txt", "b.txt", "c.txt")]
    for file, text in zip(lists, ("md5:" + "0" * 32, "md5:" + "0" * 32, "host:x.example")):
        file.write_text(text)
    digests = [list_sources(str(pool), IngestConfig(denylist_files=(str(file),))).digest for file in lists]
    assert digests[0] == digests[1] != digests[2]
    assert list_sources(str(pool), IngestConfig()).digest not in digests
    assert denylist_of([str(lists[0]), str(lists[2])]).hosts == {"x.example"}


@pytest.mark.parametrize("line", ["deadbeef", "sha1:12", "host:", "crc:0123", "md5:" + "g" * 32])
def test_what_is_no_entry_is_named_with_its_line(line):
    with pytest.raises(ValueError, match=r"my list, line 2: .* is no entry of a denylist; write a URL"):
        Denylist.parse(["# fine", line], "my list")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"the denylist .*nowhere\.txt cannot be read"):
        denylist_of([str(tmp_path / "nowhere.txt")])


def test_a_screen_of_ones_own_refuses_before_anything_is_stored(tmp_path, monkeypatch):
    (tmp_path / "my_screen.py").write_text("def check(data):\n    return 'explicit' if len(data) % 2 else None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = tmp_path / "pool"
    pool.mkdir()
    for seed in range(6):
        (pool / f"{seed}.jpg").write_bytes(picture(seed))
    odd = {f"{seed}.jpg" for seed in range(6) if len(picture(seed)) % 2}
    assert 0 < len(odd) < 6
    found, tables = ingest(pool, config=GOOD.model_copy(update={"screen": "my_screen:check"}))
    assert {name for name, row in found.items() if row["reason"] == "denylisted"} == odd
    assert tables["images"].num_rows == 6 - len(odd)
    assert {row["detail"] for row in tables["rejects"].to_pylist()} == {"on a denylist by the screen: explicit"}
    with pytest.raises(ValueError, match=r"ingest.screen='my_screen:nothing' is no function"):
        IngestConfig(screen="my_screen:nothing")
