"""The chosen checkpoint through the store: tags that point at a file, what fine-tuning starts from, gc."""

import pytest

from components.artifacts import Artifact, ArtifactError, Store
from components.manifest import CodeRef, FileEntry, InputRef, Manifest
from components.run_step import tag_outcome
from components.steps import STEPS
from components.training_steps import starting_point
from components.upkeep import garbage

BACKBONE, OTHER, PROBE = "a" * 16, "b" * 16, "c" * 16


def commit(store, kind, version, step, *, files=(), inputs=(), metrics=None, config=None):
    entries = []
    for name in files:
        path = f"{kind}/{version}/{name}"
        store.storage.write(path, name.encode())
        entries.append(FileEntry(path=path, bytes=len(name), sha256="0" * 64))
    manifest = Manifest(
        kind=kind,
        version=version,
        digest=None,
        step=step,
        config=config or {},
        inputs=list(inputs),
        files=entries,
        metrics=metrics or {},
        code=CodeRef(package_version="0"),
        start="2026-01-01",
        end="2026-01-01",
    )
    store.storage.write(f"{kind}/{version}/manifest.json", manifest.dump())
    return Artifact(store.storage, manifest)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


@pytest.fixture
def probed(store):
    files = ("out/model.safetensors", "out/checkpoints/step_3.safetensors")
    backbone = commit(store, "backbone", BACKBONE, "pretrain", files=files)
    tags = [
        {"name": "best-val", "kind": "backbone", "version": BACKBONE, "file": files[1]},
        {"name": "last", "kind": "backbone", "version": BACKBONE, "file": files[0]},
    ]
    metrics = {"chosen": {"file": "checkpoints/step_3.safetensors"}, "last": {"file": "model.safetensors"}}
    inputs = [InputRef(role="backbone", kind="backbone", version=BACKBONE)]
    more = {"inputs": inputs, "metrics": metrics | {"tags": tags}, "config": {"checkpoints": "each"}}
    return backbone, commit(store, "evaluation", PROBE, "probe", **more)


def test_tags_follow_the_probe_and_point_at_files(store, probed):
    backbone, probe = probed
    tag_outcome(store, STEPS["probe"], probe)
    assert store.tagged("best-val").version == store.find("last").version == BACKBONE
    assert store.tagged_file("best-val") == "out/checkpoints/step_3.safetensors"
    assert store.tagged_file("last") == "out/model.safetensors"
    assert store.tagged_file("latest/evaluation-probe") is None
    assert store.tags()["best-val"] == repr(backbone)
    with pytest.raises(ArtifactError, match="has no file"):
        store.tag("best-val", backbone, "out/checkpoints/step_9.safetensors")


def test_a_tagged_backbone_is_no_garbage(store, probed):
    commit(store, "backbone", OTHER, "pretrain")
    store.tag("best-val", probed[0], "model.safetensors")
    assert {(g.kind, g.version) for g in garbage(store, -1)} == {("backbone", OTHER), ("evaluation", PROBE)}


def test_fine_tuning_starts_from_the_choice(store, probed):
    backbone, probe = probed
    assert backbone.file_path(starting_point(backbone, probe, "best-val")).endswith("checkpoints/step_3.safetensors")
    assert starting_point(backbone, probe, "last") == "model.safetensors"
    other = commit(store, "backbone", OTHER, "pretrain")
    with pytest.raises(ArtifactError, match=f"run `sapiens2 probe --each --input backbone={OTHER}`"):
        starting_point(other, probe, "best-val")


def test_a_probe_of_the_last_alone_chose_nothing(store, probed):
    backbone, each = probed
    inputs, metrics = each.manifest.inputs, each.manifest.metrics
    alone = commit(
        store, "evaluation", "d" * 16, "probe", inputs=inputs, metrics=metrics, config={"checkpoints": "last"}
    )
    assert starting_point(backbone, alone, "last") == "model.safetensors"
    with pytest.raises(ArtifactError, match="chose none: run `sapiens2 probe --each` first"):
        starting_point(backbone, alone, "best-val")
