"""A release holds no picture, and elsewhere gives the very pictures back; what is not the same is left out by name."""

import http.server
import io
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image as pillow
from removal_roots import commit

from components.artifacts import ArtifactError, Store
from components.lineage import ancestors
from components.rehydrate import read_release, rehydrate
from components.release import release
from components.report_step import ReportConfig
from components.run_step import run_step
from components.steps import STEPS
from curation.stages.ingest import IngestConfig, IngestPartition, list_sources
from curation.tables import DECISIONS, DEDUPED, DETECTIONS, from_rows, image_id, scores_schema
from pipelines.cli import cli

CONFIG = IngestConfig(min_side_px=32, allow_private_addresses=True, respect_robots=False, fetch_retries=0)


def picture(seed):
    buffer = io.BytesIO()
    tones = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pillow.fromarray(tones).resize((64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def web():
    """(address, what it serves by path, paths that were asked)."""
    served, asked = {f"/{n}.jpg": picture(n) for n in range(6)}, []
    served["/other.jpg"] = picture(5)

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            data = served.get(self.path)
            self.send_response(200 if data else 404)
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", served, asked
    server.shutdown()


@pytest.fixture
def root(web, tmp_path):
    """Six pictures of that web: one dropped by filter, one by dedup, four selected; the last has two addresses."""
    address, _, asked = web
    names = [*(f"{n}.jpg" for n in range(6)), "other.jpg"]
    rows = "".join(f"{address}/{name},caption of {name},CC-BY\n" for name in names)
    (tmp_path / "list.csv").write_text("url,caption,licence\n" + rows)
    (partition,) = list_sources(str(tmp_path / "list.csv"), CONFIG).partitions
    tables = IngestPartition(CONFIG)(partition)
    asked.clear()
    ids = [image_id(picture(n)) for n in range(6)]
    root = tmp_path / "root"
    read = [("images", commit(root, "images", {"p": tables}).version)]
    boxes = {"boxes": [[0, 0, 9, 9]], "box_scores": [0.5], "refined": [False]}
    stages = {
        "detections": from_rows([{"image_id": i, **boxes} for i in ids], DETECTIONS),
        "scores": from_rows([{"image_id": i, "scored": True, "realism": 0.5} for i in ids], scores_schema(4, 4)),
        "filtered": decided(ids, ids[0], "blurred", DECISIONS),
        "deduped": decided(ids[1:], ids[1], "duplicate_phash", DEDUPED),
    }
    for kind, table in stages.items():
        read.append((kind, commit(root, kind, {"p": {"data": table}}, read).version))
    attributes = pa.table({"image_id": ids[2:], "axis": ["head_pose"] * 4, "bin": ["frontal"] * 4})
    chosen = {"data": decided(ids[2:], None, "", DECISIONS), "attributes": attributes}
    store = Store(str(root))
    store.tag("latest/selection", commit(root, "selection", {"p": chosen}, read))
    return store, ids


def option(setting):
    return ("--set", f"ingest.{setting}")


def decided(ids, dropped, reason, schema):
    rows = [{"image_id": i, "keep": i != dropped, "reason": reason if i == dropped else None} for i in ids]
    return from_rows([row | {"value": 0.1, "threshold": 0.3} for row in rows], schema)


def test_a_release_tells_everything_but_the_pictures(root, web, tmp_path):
    store, ids = root
    record = release(store, store.find("selection"), str(tmp_path / "out"))
    table = pq.read_table(tmp_path / "out" / "release.parquet")
    rows = {row["image_id"]: row for row in table.to_pylist()}
    assert set(rows) == set(ids[2:]) and (record["pictures"], record["without_url"]) == (4, 0)
    last = rows[ids[5]]
    assert last["urls"] == [f"{web[0]}/5.jpg", f"{web[0]}/other.jpg"] and last["sha256"][:32] == ids[5]
    assert (last["licence"], last["caption"], last["realism"]) == ("CC-BY", "caption of 5.jpg", 0.5)
    assert last["attributes"] == '{"head_pose": "frontal"}' and record["licences"] == {"CC-BY": 4}
    raw = (tmp_path / "out" / "release.parquet").read_bytes()
    assert not {"bytes", "embedding", "copy_embedding"} & set(table.column_names)
    assert not any(picture(n)[200:260] in raw for n in range(6))
    everything = release(store, store.find("selection"), str(tmp_path / "all"), dropped=True)
    why = {
        r["image_id"]: (r["keep"], r["step"], r["reason"])
        for r in pq.read_table(tmp_path / "all/release.parquet").to_pylist()
    }
    assert everything["kept"] == 4 and everything["pictures"] == 6
    assert why[ids[0]] == (False, "filter", "blurred") and why[ids[1]] == (False, "dedup", "duplicate_phash")
    with pytest.raises(ArtifactError, match="is no selection"):
        release(store, store.find("filtered=" + "8" * 16), str(tmp_path / "no"))


def test_a_run_on_top_of_an_earlier_one_is_told_by_its_own_pictures(root, tmp_path):
    """The earlier run had half of the pictures and dropped one that stays now; what it left is an input as well."""
    store, ids = root
    alone = store.find("selection")
    now = {kind: next(store.all(kind)) for kind in ("images", "detections", "scores", "filtered", "deduped")}
    few = {name: now["images"].read_partition(name, "p").slice(0, 3) for name in ("sources", "images", "rejects")}
    old = [("images", commit(store.root, "images", {"p": few}, version="d" * 16).version)]
    for kind in ("detections", "scores", "filtered", "deduped"):
        table = decided(ids[:3], ids[2], "too_dark", DECISIONS) if kind == "filtered" else now[kind].read().slice(0, 3)
        old.append((kind, commit(store.root, kind, {"p": {"data": table}}, old, version="d" * 16).version))
    read = [(kind, artifact.version) for kind, artifact in now.items() if kind != "deduped"]
    grown = commit(
        store.root,
        "deduped",
        {"p": {"data": now["deduped"].read()}},
        [*read, ("previous", "deduped", "d" * 16)],
        version="e" * 16,
    )
    chosen = {"data": alone.read(), "attributes": alone.read("attributes")}
    made = commit(store.root, "selection", {"p": chosen}, [*read, ("deduped", grown.version)], version="e" * 16)
    assert ("deduped", "d" * 16) in ancestors(store, [made])
    own = ancestors(store, [made], earlier=False)
    assert sorted(own) == sorted([*read, ("deduped", "e" * 16), ("selection", "e" * 16)])
    for selection, name in ((alone, "alone"), (made, "grown")):
        release(store, selection, str(tmp_path / name), dropped=True)
    tables = [pq.read_table(tmp_path / name / "release.parquet") for name in ("alone", "grown")]
    assert tables[1].num_rows == 6 and tables[1].equals(tables[0])
    report = run_step(STEPS["report"], ReportConfig(), {"dataset_card": made}, store.root).artifact
    assert report.manifest.metrics["headline"].endswith(" 6 artifacts")


def test_elsewhere_the_very_pictures_come_back(root, web, tmp_path):
    store, ids = root
    _, served, asked = web
    release(store, store.find("selection"), str(tmp_path / "out"), dropped=True)
    served["/3.jpg"] = picture(30)  # another picture at the same address
    del served["/4.jpg"], served["/5.jpg"]  # the second has another address
    table = read_release(str(tmp_path / "out"))
    assert table.num_rows == 4  # what was dropped is not fetched
    done = rehydrate(table, str(tmp_path / "here"), CONFIG.policy(), batch_rows=2)
    assert (done.pictures, done.failures) == (2, {"hash_mismatch": 1, "http_404": 1})
    assert "/0.jpg" not in asked and "/1.jpg" not in asked
    pool = list_sources(str(tmp_path / "here" / "pictures"), CONFIG)
    images = pa.concat_tables(IngestPartition(CONFIG)(part)["images"] for part in pool.partitions)
    assert set(images["image_id"].to_pylist()) == {ids[2], ids[5]}
    assert set(images["licence"].to_pylist()) == {"CC-BY"}

    asked.clear()
    again = rehydrate(table, str(tmp_path / "here"), CONFIG.policy(), batch_rows=2)
    assert again == done and asked == []  # what is done is not asked for again
    served["/3.jpg"], served["/4.jpg"] = picture(3), picture(4)
    (tmp_path / "here" / "pictures" / "000001.parquet").unlink()  # as a kill in the second batch leaves it
    first = set(pq.read_table(tmp_path / "here" / "pictures" / "000000.parquet")["image_id"].to_pylist())
    rehydrate(table, str(tmp_path / "here"), CONFIG.policy(), batch_rows=2)
    paths = {f"/{n}.jpg" for n in range(2, 6) if ids[n] not in first}
    assert set(asked) & {"/2.jpg", "/3.jpg", "/4.jpg", "/5.jpg"} <= paths | {"/5.jpg"}
    whole = rehydrate(table, str(tmp_path / "here"), CONFIG.policy(), batch_rows=2, retry=True)
    assert (whole.pictures, whole.failures) == (4, {})


def test_what_is_no_release_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"release\.parquet is no release"):
        read_release(str(tmp_path))
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"lacks the columns \['sha256'\]"):
        read_release(str(tmp_path / "x.parquet"))


def test_the_commands(root, tmp_path):
    store, _ = root
    done = CliRunner().invoke(cli, ["release", "--out", str(tmp_path / "o"), "--root", store.root])
    assert done.exit_code == 0 and "4 pictures, 4 of them selected" in done.output, done.output
    line = ["rehydrate", str(tmp_path / "o"), "--out", str(tmp_path / "p")]
    settings = ["allow_private_addresses=true", "respect_robots=false", "fetch_retries=0"]
    done = CliRunner().invoke(cli, [*line, *(x for s in settings for x in ("--set", f"ingest.{s}"))])
    assert done.exit_code == 0 and "4 pictures fetched and verified" in done.output, done.output
    blocked = CliRunner().invoke(cli, [*line[:-1], str(tmp_path / "q"), "--set", "ingest.respect_robots=false"])
    assert "blocked_address" in blocked.output and "0 pictures" in blocked.output
    assert blocked.exit_code == 1 and "no picture could be fetched" in blocked.output
    assert "a pool for" not in blocked.output


def test_what_is_missing_is_counted_and_the_rest_is_a_pool(root, web, tmp_path):
    store, _ = root
    release(store, store.find("selection"), str(tmp_path / "o"))
    del web[1]["/4.jpg"]
    settings = ("allow_private_addresses=true", "respect_robots=false", "fetch_retries=0")
    line = ["rehydrate", str(tmp_path / "o"), "--out", f"{tmp_path}/p/", *(x for s in settings for x in option(s))]
    done = CliRunner().invoke(cli, line)
    assert done.exit_code == 0 and "3 pictures fetched" in done.output, done.output
    assert "1 are missing" in done.output and f"--pool {tmp_path}/p/pictures" in done.output


@pytest.mark.parametrize(
    ("addresses", "words"), [([None, ""], "none of the 2 pictures"), ([], "the release selects no picture")]
)
def test_a_release_of_pictures_without_addresses_is_refused_at_once(tmp_path, addresses, words):
    table = pa.table({"url": pa.array(addresses, pa.string()), "sha256": pa.array(["0" * 64] * len(addresses))})
    pq.write_table(table, tmp_path / "r.parquet")
    line = ["rehydrate", str(tmp_path / "r.parquet"), "--out", str(tmp_path / "p")]
    done = CliRunner().invoke(cli, line)
    with pytest.raises(ValueError, match=words):
        rehydrate(table, str(tmp_path / "p"), CONFIG.policy())
    assert done.exit_code and "a pool for" not in done.output and not (tmp_path / "p").exists()
