"""Pools of every kind, listed and read back: names, digests, partitions, captions, and what is wrong with a pool."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from picture_makers import encode, smooth

from curation.images.fetch_policy import FetchPolicy
from curation.images.items import SourceItem
from curation.images.reading import read_all
from curation.images.reasons import Reason, Reject
from curation.images.sources import Listing, list_pool

PICTURES = [encode(smooth(i, 64, 48), "JPEG") for i in range(6)]


def listed(pool: Path | str, rows: int = 4, size: int = 1 << 30, epoch: int = 0) -> Listing:
    return list_pool(str(pool), rows_per_partition=rows, bytes_per_partition=size, fetch_epoch=epoch)


def items(listing: Listing) -> list[SourceItem]:
    return [item for partition in listing.partitions for item in partition.items]


def contents(listing: Listing, **policy: int) -> list[tuple[SourceItem, bytes | Reject]]:
    return list(read_all(items(listing), FetchPolicy(**policy)))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pool = tmp_path / "pool"
    for name, data in zip(["b.jpg", "a/z.jpg", "a/é.JPG", ".hidden", "a/c/note.txt", "z.png"], PICTURES):
        (pool / name).parent.mkdir(parents=True, exist_ok=True)
        (pool / name).write_bytes(data)
    return pool


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_every_file_of_a_folder_is_a_source_in_order(folder: Path) -> None:
    listing = listed(folder)
    names = [item.source for item in items(listing)]
    assert names == sorted([".hidden", "a/c/note.txt", "a/z.jpg", "a/é.JPG", "b.jpg", "z.png"])
    assert listing.n_sources == 6 and listing.n_bytes == sum(map(len, PICTURES))
    assert [len(p.items) for p in listing.partitions] == [4, 2]
    assert [p.pid[:6] for p in listing.partitions] == ["00000-", "00001-"]
    by_name = {item.source: data for item, data in contents(listing)}
    assert by_name["b.jpg"] == PICTURES[0] and by_name["z.png"] == PICTURES[5]


def test_two_copies_of_a_folder_are_one_pool(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "deep" / "elsewhere")
    here, there = listed(folder), listed(tmp_path / "deep" / "elsewhere")
    monkeypatch.chdir(folder.parent)
    relative = listed("pool/")
    for other in (there, relative):
        assert (other.digest, [p.pid for p in other.partitions]) == (here.digest, [p.pid for p in here.partitions])
        assert [item.source for item in items(other)] == [item.source for item in items(here)]


def test_the_digest_sees_names_and_bytes_but_not_partitioning(folder: Path) -> None:
    before = listed(folder)
    assert listed(folder, rows=1).digest == before.digest
    (folder / "b.jpg").write_bytes(PICTURES[0][:-1] + b"\xd8")  # same size
    changed = listed(folder)
    assert changed.digest != before.digest and changed.partitions[1].pid != before.partitions[1].pid
    assert changed.partitions[0].pid == before.partitions[0].pid
    (folder / "b.jpg").write_bytes(PICTURES[0])
    assert listed(folder).digest == before.digest
    (folder / "b.jpg").rename(folder / "c.jpg")
    assert listed(folder).digest != before.digest


def test_partitions_are_bounded_by_bytes_too(folder: Path) -> None:
    listing = listed(folder, rows=100, size=len(PICTURES[0]) * 2 + 200)
    assert len(listing.partitions) >= 3 and sum(len(p.items) for p in listing.partitions) == 6
    assert all(len(p.items) == 1 for p in listed(folder, size=1).partitions)
    assert pickle.loads(pickle.dumps(listing.partitions)) == listing.partitions


def test_what_cannot_be_read_is_a_reject(folder: Path) -> None:
    (folder / "broken").symlink_to("nowhere")
    (folder / "linked").symlink_to(folder / "a")
    os.mkfifo(folder / "pipe")
    listing = listed(folder)
    (folder / "b.jpg").write_bytes(b"changed since")
    (folder / "z.png").unlink()
    outcome = {item.source: data for item, data in contents(listing)}
    for name in ("broken", "linked", "pipe", "b.jpg", "z.png"):
        reject = outcome[name]
        assert isinstance(reject, Reject) and reject.reason == Reason.UNREADABLE, name
        assert str(folder) not in reject.detail
    assert outcome["a/z.jpg"] == PICTURES[1]


def test_large_files_are_not_read(folder: Path) -> None:
    outcome = {item.source: data for item, data in contents(listed(folder), max_bytes=len(PICTURES[0]) - 1)}
    reject = outcome["b.jpg"]
    assert isinstance(reject, Reject) and reject.reason == Reason.TOO_LARGE


def test_webdataset_with_captions(tmp_path: Path) -> None:
    members = {
        "000.jpg": PICTURES[0],
        "000.txt": b"a red square\n",
        "000.json": json.dumps({"license": "CC0", "url": "http://x/1", "caption": "less"}).encode(),
        "sub/001.png": PICTURES[1],
        "sub/001.seg.png": PICTURES[2],
        "002.json": b"{}",
    }
    listing = listed(write_tar(tmp_path / "shard.tar", members))
    got = contents(listing)
    assert [item.source for item, _ in got] == [
        "shard.tar::000.jpg",
        "shard.tar::sub/001.png",
        "shard.tar::sub/001.seg.png",
    ]
    assert [data for _, data in got] == PICTURES[:3]
    first = got[0][0]
    assert first.licence == "CC0" and first.caption == "a red square"
    assert json.loads(first.extra or "") == {"url": "http://x/1"}
    assert got[1][0].caption is None


def test_a_folder_of_tars_and_one_that_breaks_off(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    write_tar(pool / "a.tar", {"1.jpg": PICTURES[0], "2.jpg": PICTURES[1]})
    whole = write_tar(pool / "b.tar", {"1.jpg": PICTURES[2], "2.jpg": PICTURES[3]}).read_bytes()
    (pool / "b.tar").write_bytes(whole[: 1536 + len(PICTURES[2])])
    (pool / "c.tar").write_bytes(b"not a tar at all")
    names = [item.source for item in items(listed(pool))]
    assert names == ["a.tar::1.jpg", "a.tar::2.jpg", "b.tar::1.jpg", "b.tar", "c.tar"]


@pytest.mark.parametrize("layout", ["binary", "struct"])
def test_parquet_with_bytes(tmp_path: Path, layout: str) -> None:
    column = [*PICTURES[:4], None]
    values = column if layout == "binary" else [{"bytes": data, "path": "x"} for data in column]
    table = pa.table({"image": values, "caption": list("abcde"), "license": ["MIT"] * 5, "score": range(5)})
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=2)
    got = contents(listed(tmp_path / "part.parquet", rows=3))
    assert [item.source for item, _ in got] == [f"part.parquet::{i}" for i in range(5)]
    assert [data for _, data in got[:4]] == PICTURES[:4]
    assert isinstance(got[4][1], Reject) and got[4][1].reason == Reason.EMPTY
    assert (got[2][0].caption, got[2][0].licence, json.loads(got[2][0].extra or "")) == ("c", "MIT", {"score": 2})


def test_url_lists_of_every_kind(tmp_path: Path) -> None:
    urls = ["http://a.example/1.jpg", "https://b.example/2.jpg", "http://a.example/1.jpg"]
    table = pa.table({"URL": urls, "TEXT": ["one", "two", None], "licence": ["CC-BY"] * 3, "width": [10, 20, 30]})
    (tmp_path / "list.txt").write_text("# comment\n" + "\n".join(urls) + "\n\n")
    pa_csv.write_csv(table, tmp_path / "list.csv")
    pq.write_table(table, tmp_path / "list.parquet")
    for name in ("list.txt", "list.csv", "list.parquet"):
        got = items(listed(tmp_path / name))
        assert [item.location for item in got] == urls, name
        assert [item.source for item in got] == [*urls[:2], urls[0] + "#2"]  # a source listed twice is two sources
        if name != "list.txt":
            assert (got[0].caption, got[0].licence, json.loads(got[0].extra or "")) == ("one", "CC-BY", {"width": 10})
            assert got[2].caption is None or got[2].caption == ""
    first = listed(tmp_path / "list.txt")
    assert listed(tmp_path / "list.txt", epoch=1).digest != first.digest == listed(tmp_path / "list.txt").digest


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nothing-here", None, "does not exist"),
        ("empty", "folder", "is empty"),
        ("notes.docx", b"hello", "rename it"),
        ("list.csv", b"address,caption\nhttp://a/1,one\n", "no url column"),
        ("list.csv", b"", r"cannot be read \(.*mpty.*\); give a table whose first line names a url column"),
        ("list.csv", b"url,caption\n", "give a folder with pictures, or a list with at least one row"),
        ("list.txt", b"just\nwords\n", "holds no URL"),
        ("list.txt", b"\n\n", "is empty"),
        ("list.parquet", b"PAR1 no", "cannot be read"),
    ],
)
def test_bad_pools_say_what_to_do(tmp_path: Path, name: str, content: bytes | str | None, said: str) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        listed(path)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_unknown_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown scheme"):
        listed("ftp://host/pool")


@pytest.fixture(scope="module")
def s3_pool() -> Iterator[str]:
    """A bucket on a local S3 server, holding a prefix of pictures."""
    boto3 = pytest.importorskip("boto3")
    server_module = pytest.importorskip("moto.server", reason="needs moto[server]")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in values.items():
            patch.setenv(key, value)
        client = boto3.client("s3", endpoint_url=values["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="pool")
        for name, data in {"web/a.jpg": PICTURES[0], "web/b/c.jpg": PICTURES[1]}.items():
            client.put_object(Bucket="pool", Key=name, Body=data)
        yield "s3://pool/web"
    server.stop()


def test_an_s3_prefix_is_the_same_pool_as_the_folder(s3_pool: str, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.jpg").write_bytes(PICTURES[0])
    (tmp_path / "b" / "c.jpg").write_bytes(PICTURES[1])
    remote, local = listed(s3_pool), listed(tmp_path)
    assert remote.digest == local.digest
    assert [p.pid for p in remote.partitions] == [p.pid for p in local.partitions]
    assert [data for _, data in contents(remote)] == PICTURES[:2]
    with pytest.raises(ValueError, match="does not exist"):
        listed(s3_pool + "/missing")


def test_a_hostile_tar_names_files_and_touches_none(tmp_path: Path) -> None:
    """Members are read where they lie, never unpacked; links and devices are no pictures."""
    pool, outside = tmp_path / "deep" / "pool", tmp_path / "escaped.jpg"
    pool.mkdir(parents=True)
    with tarfile.open(pool / "x.tar", "w") as archive:
        for name in ("../../escaped.jpg", str(outside), "ok.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(PICTURES[0])
            archive.addfile(info, io.BytesIO(PICTURES[0]))
        for kind, name in ((tarfile.SYMTYPE, "link.jpg"), (tarfile.LNKTYPE, "hard.jpg"), (tarfile.CHRTYPE, "dev.jpg")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    got = contents(listed(pool))
    assert [item.source.rpartition("::")[2].lstrip("/") for item, _ in got] == [
        "../../escaped.jpg",
        str(outside).lstrip("/"),
        "ok.jpg",
    ]
    assert all(data == PICTURES[0] for _, data in got)
    assert not outside.exists() and [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x.tar"]
