"""`sapiens2 artifacts forget` on a whole run: who consumed the picture, and what the next run makes of its group."""

import json
import shutil

from micro_runs import sapiens2, sapiens2_here

from components import Store, curate


def test_the_next_run_promotes_another_copy_and_equals_a_run_that_never_saw_the_picture(
    micro_run, micro_pool, tmp_path
):
    root, fresh = tmp_path / "root", tmp_path / "fresh"
    shutil.copytree(micro_run[0], root)
    store = Store(str(root))
    rows = store.latest("deduped").read().to_pylist()
    gone, copies = next(
        (kept["image_id"], same)
        for kept in rows
        if kept["keep"] and (same := [r["image_id"] for r in rows if r["representative_id"] == kept["image_id"]][1:])
    )
    forget = ("artifacts", "forget", "--hash", gone)
    shown = sapiens2(*forget, root=root, cwd=tmp_path).stdout
    consumed = sapiens2_here("artifacts", "trained-on", gone, root=root, cwd=tmp_path).stdout
    for line in consumed.splitlines():
        if "=" in line.split()[0]:
            assert f"consumed   {line.split()[0]}" in shown
    assert "add --yes" in shown and not (root / "denylist").exists()
    sapiens2_here(*forget, "--yes", root=root, cwd=tmp_path)
    verified = sapiens2_here("artifacts", "verify", root=root, cwd=tmp_path).stdout
    assert verified.count("ok, redacted: 1 pictures") == 8 and "missing" not in verified

    plan = sapiens2_here(
        *("run", "--only", "curation", "--pool", micro_pool, "--preset", "micro", "--dry-run"), root=root, cwd=tmp_path
    ).stdout
    assert "pictures were removed from" in plan
    again = curate(str(micro_pool), str(root), preset="micro").artifacts
    assert again["score"].manifest.redacted == again["ingest"].manifest.redacted == [gone]  # as they are, not anew
    kept = [row["image_id"] for row in again["dedup"].read().to_pylist() if row["keep"]]
    assert gone not in kept and len(set(copies) & set(kept)) == 1

    shutil.copytree(root / "denylist", fresh / "denylist")
    shutil.copytree(micro_run[0] / "cache", fresh / "cache")
    never = curate(str(micro_pool), str(fresh), preset="micro").artifacts
    assert {n: a.manifest.digest for n, a in again.items()} == {n: a.manifest.digest for n, a in never.items()}
    assert never["ingest"].manifest.metrics["dropped"]["denylisted"] == 2  # it lay in the pool twice
    funnel = json.loads(again["card"].file("card.json"))["funnel"]
    assert funnel == json.loads(never["card"].file("card.json"))["funnel"]
