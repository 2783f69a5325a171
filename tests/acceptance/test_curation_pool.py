"""The labelled pool through the whole curation with the `small` profile: nothing crashes, nothing goes unexplained."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from components.artifacts import Store


@pytest.fixture(scope="module")
def curated(acceptance, tmp_path_factory):
    """The root of one curation run over the pool."""
    folder = tmp_path_factory.mktemp("pool-run")
    command = [sys.executable, "-m", "pipelines.cli", "run", "--only", "curation", "--profile", "small"]
    command += ["--pool", str(acceptance / "data/pool/images"), "--root", str(folder / "root")]
    command += ["--set", "filter.min_person_px=160", "--set", "score.gate_min_person_px=120"]
    environment = {**os.environ, "SAPIENS2_MODELS": str(acceptance / "models"), "COLUMNS": "160"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "root"


@pytest.mark.timeout(1000)
def test_every_file_ends_in_exactly_one_place_with_one_reason(curated, acceptance):
    store = Store(str(curated))
    images = store.latest("images")
    ends = {row["source"]: row["reason"] for row in images.read("rejects").to_pylist()}
    alive = {row["source"]: row["image_id"] for row in images.read("sources").to_pylist() if row["image_id"]}
    decisions = {
        kind: {row["image_id"]: row for row in store.latest(kind).read().to_pylist()}
        for kind in ("filtered", "deduped", "selection")
    }
    for source, image_id in alive.items():
        assert source not in ends
        for kind, table in decisions.items():
            row = table[image_id]  # every row that the stage before kept is decided upon
            if not row["keep"]:
                assert row["reason"]
                ends[source] = f"{kind}: {row['reason']}"
                break
        else:
            ends[source] = "kept"
    files = [path for path in (acceptance / "data/pool/images").rglob("*") if path.is_file()]
    assert len(ends) == len(files) == 562
    print("\n" + "\n".join(f"{count:5d}  {reason}" for reason, count in Counter(ends.values()).most_common()))
    shards = store.latest("shards")
    exported = {i for split in shards.manifest.tables for i in shards.read(split, ["image_id"])["image_id"].to_pylist()}
    assert exported == {alive[source] for source, end in ends.items() if end == "kept"}
    assert len(exported) >= 30


def test_corrupt_files_never_pass_and_kept_pictures_show_people(curated, acceptance):
    manifest = {
        row["file"].removeprefix("images/"): row
        for row in map(json.loads, (acceptance / "data/pool/manifest.jsonl").read_text().splitlines())
    }
    store = Store(str(curated))
    kept = {row["image_id"] for row in store.latest("selection").read().to_pylist() if row["keep"]}
    sources = [row for row in store.latest("images").read("sources").to_pylist() if row["image_id"] in kept]
    kinds = Counter(manifest[row["source"]]["kind"] for row in sources)
    print("\nkinds among the kept:", dict(kinds))
    assert kinds["corrupt"] == 0
    assert kinds["photo_person"] >= 0.85 * sum(kinds.values())


def test_why_explains_a_picture_given_by_its_path(curated, acceptance):
    for name in ("00001.jpg", "00009.jpg", "00694.jpg"):
        command = [sys.executable, "-m", "pipelines.cli", "artifacts", "why", "--json", "--root", str(curated)]
        path = acceptance / "data/pool/images" / name
        lines = json.loads(subprocess.run([*command, str(path)], capture_output=True, text=True, check=True).stdout)
        assert lines and lines[0]["kind"] == "images"
        assert name in lines[0]["text"] or lines[0]["verdict"] == "kept"
