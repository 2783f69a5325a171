"""The main job end to end at its smallest, and what a user does next."""

import json
import re
import shutil
from pathlib import Path

import pytest
from micro_runs import digests, sapiens2, sapiens2_here

from components.artifacts import Store
from components.steps import STEPS

PRESET = ("--preset", "micro")


def test_a_run_makes_every_artifact_and_ends_with_the_report(micro_run):
    root, printed = micro_run
    store = Store(str(root))
    assert {a.manifest.step for a in store.all()} == set(STEPS)
    report = re.search(r"report: (\S+)", printed)[1]
    page = Path(report).read_text()
    for word in ("Funnel", "ingest", "pretrain", "Lineage", "pose", "albedo"):
        assert word in page or word.lower() in page
    assert not re.search(r"""(?:src|href)=["']https?://""", page)
    assert len(page.encode()) <= 20_000_000


def test_rows_are_conserved_from_stage_to_stage(micro_run):
    store = Store(str(micro_run[0]))
    images = store.latest("images")
    assert images.rows("sources") == sum(images.read("images", ["n_sources"])["n_sources"].to_pylist()) + images.rows(
        "rejects"
    )
    kept = set(images.read("images", ["image_id"])["image_id"].to_pylist())
    for kind in ("filtered", "deduped", "selection"):
        table = store.latest(kind).read(columns=["image_id", "keep", "reason"])
        ids = table["image_id"].to_pylist()
        assert len(ids) == len(set(ids)) and set(ids) == kept
        assert all(k == (r is None) for k, r in zip(table["keep"].to_pylist(), table["reason"].to_pylist()))
        kept = {i for i, k in zip(ids, table["keep"].to_pylist()) if k}
    shards = store.latest("shards")
    exported = [i for split in shards.manifest.tables for i in shards.read(split, ["image_id"])["image_id"].to_pylist()]
    assert sorted(exported) == sorted(kept)


def test_a_second_run_reuses_everything(micro_run, micro_pool, tmp_path):
    root, _ = micro_run
    before = digests(root)
    again = sapiens2("run", "--pool", micro_pool, *PRESET, root=root, cwd=tmp_path)
    assert f"{len(STEPS)} steps" in again.stdout and f"{len(STEPS)} reused" in again.stdout
    assert not re.search(r"\bdone\b", again.stdout)
    assert digests(root) == before


def test_dry_run_says_what_reruns_and_why(micro_run, micro_pool, tmp_path):
    root, _ = micro_run
    plan = sapiens2_here(
        "run", "--pool", micro_pool, *PRESET, "--set", "filter.min_person_px=300", "--dry-run", root=root, cwd=tmp_path
    ).stdout
    assert len(re.findall(r"\breuse\b", plan)) == 3  # ingest, detect, score
    assert "min_person_px 384 -> 300" in re.sub(r"\s+", " ", plan)
    assert "new filtered" in plan


def test_another_threshold_calls_no_model_and_explains_itself(micro_run, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(micro_run[0], root)
    store, old = Store(str(root)), Store(str(root)).latest("filtered")
    sapiens2_here("step", "filter", *PRESET, "--set", "filter.min_person_px=500", root=root, cwd=tmp_path)
    new = store.latest("filtered")
    assert new.version != old.version and store.get("filtered", old.version).manifest == old.manifest
    assert 0 < new.manifest.metrics["kept"] < old.manifest.metrics["kept"]
    assert not new.manifest.metrics.get("model_calls")
    assert store.versions("detections") == [store.latest("detections").version]
    assert store.versions("scores") == [store.latest("scores").version]
    compare = ("artifacts", "diff", f"filtered={old.version}", "filtered")
    difference = sapiens2_here(*compare, root=root, cwd=tmp_path).stdout
    assert "min_person_px: 384 -> 500" in difference and "kept -> dropped (person_too_small)" in difference
    _assert_why_tells_both(store, old, new, root, tmp_path)


def _assert_why_tells_both(store, old, new, root, cwd):
    before, after = (a.read(columns=["image_id", "keep"]).to_pylist() for a in (old, new))
    (changed, *_) = [a["image_id"] for a, b in zip(before, after) if a["keep"] and not b["keep"]]
    images = store.latest("images").read("images", ["image_id", "source"]).to_pylist()
    (source,) = [row["source"] for row in images if row["image_id"] == changed]
    lines = json.loads(sapiens2_here("artifacts", "why", source, "--json", root=root, cwd=cwd).stdout)
    verdicts = {x["version"]: x["verdict"] for x in lines if x["kind"] == "filtered"}
    assert verdicts == {old.version: "kept", new.version: "dropped"}
    (why,) = [x["text"] for x in lines if x["version"] == new.version]
    assert "500" in why


def test_trained_on_names_the_backbone_and_the_tasks(micro_run, tmp_path):
    root, _ = micro_run
    shards = Store(str(root)).latest("shards")
    first = shards.read("train", ["image_id", "position"]).sort_by("position")["image_id"][0].as_py()
    found = sapiens2_here("artifacts", "trained-on", first, root=root, cwd=tmp_path).stdout
    for kind in ("backbone", "pose", "segmentation", "normal", "pointmap", "albedo"):
        assert f"{kind}=" in found
    held_out = shards.read("val", ["image_id"])["image_id"].to_pylist() if "val" in shards.manifest.tables else []
    for image_id in held_out[:1]:
        assert "no checkpoint" in sapiens2_here("artifacts", "trained-on", image_id, root=root, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("list",), "backbone"),
        (("show", "report"), '"kind": "report"'),
        (("lineage", "report"), "dataset_card"),
        (("verify",), "ok"),
        (("gc",), "0 versions"),
    ],
)
def test_artifact_commands_answer(micro_run, tmp_path, command, expected):
    root, _ = micro_run
    assert expected in sapiens2_here("artifacts", *command, root=root, cwd=tmp_path).stdout


def test_lineage_as_a_page(micro_run, tmp_path):
    root, _ = micro_run
    sapiens2_here("artifacts", "lineage", "--html", tmp_path / "graph.html", root=root, cwd=tmp_path)
    page = (tmp_path / "graph.html").read_text()
    assert page.count("<svg") >= 1
    for artifact in Store(str(root)).all():
        assert artifact.version in page


def test_openlineage_events_tell_start_and_end_of_every_step(micro_run):
    root, _ = micro_run
    events = [json.loads(path.read_text()) for path in sorted((root / "events").glob("*.json"))]
    seen = {(event["job"]["name"], event["eventType"]) for event in events}
    assert seen == {(name, state) for name in STEPS for state in ("START", "COMPLETE")}
    done = [e for e in events if e["job"]["name"] == "filter" and e["eventType"] == "COMPLETE"]
    assert {item["name"] for item in done[0]["inputs"]} == {"images", "detections", "scores"}
    assert done[0]["outputs"][0]["facets"]["version"]["datasetVersion"] == Store(str(root)).latest("filtered").version
