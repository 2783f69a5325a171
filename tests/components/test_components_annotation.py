"""From a selection to an annotation tool and back: labels with lineage, trained on, and kept out of the shards."""

import json

import numpy as np
import pyarrow as pa
import pytest
from annotation_root import AREA, COUNT, NSFW, brought_back, commit, curate, label
from click.testing import CliRunner

from components.annotation_batch import BatchRequest, export_batch
from components.artifacts import ArtifactError
from components.explain import why
from components.forget import carry_out, find
from components.given_labels import held_out, measured, resolved, sources
from components.run_step import run_step
from components.steps import STEPS
from components.upkeep import verify
from curation.stages.export import ExportConfig
from curation.tables import image_id
from pipelines.annotate_cli import HINTS, TOOLS, export_command
from sapiens2.data.annotation import read_batch
from sapiens2.data.labelled import LabelError, LabelledDataset
from sapiens2.evaluation.config import EvaluateConfig
from sapiens2.tasks.config import FinetuneConfig


@pytest.fixture
def nsfw():
    """The score of each picture."""
    return NSFW


@pytest.fixture
def curated(tmp_path, nsfw):
    return curate(tmp_path, nsfw)


@pytest.mark.parametrize("name", ["coco", "cvat", "label-studio"])
def test_labels_come_back_with_lineage(curated, tmp_path, name):
    store, selection, _ = curated
    request = BatchRequest(tool=name, task="pose", count=6, test_share=0.5, seed=1)
    batch = export_batch(store, selection, request, tmp_path / "batch")
    assert len(batch.pictures) == 6 and batch.pictures[0].boxes == ((2.0, 3.0, 50.0, 45.0),)
    for picture in batch.pictures:
        assert image_id((tmp_path / "batch" / picture.name).read_bytes()) == picture.image_id
    file, points = label(tmp_path / "batch", picked=5)
    outcome = brought_back(store, tmp_path / "batch", file)
    labels = outcome.artifact
    assert {ref.role: ref.version for ref in labels.manifest.inputs} == batch.made_from
    assert batch.made_from["selection"] == selection.version
    facts = labels.manifest.metrics
    assert (facts["tool"], facts["pictures"], facts["left_out"]) == (name, 5, {"pictures without labels": 1})
    dataset = LabelledDataset(store.storage.full(f"{labels.folder}/out"), "pose", None)
    assert len(dataset) == 5
    for row, picture in zip(dataset.rows, batch.pictures, strict=False):
        assert (row.image_id, row.group, row.split) == (picture.image_id, picture.group, picture.split)
        np.testing.assert_allclose(row.keypoints, points, atol=0.011)
        assert row.area == (AREA if name == "coco" else None)
    assert brought_back(store, tmp_path / "batch", file).reused
    file.write_bytes(file.read_bytes() + b"\n")
    assert brought_back(store, tmp_path / "batch", file).artifact.version != labels.version


def test_test_pictures_and_their_duplicates_stay_out_of_the_shards(curated, tmp_path):
    store, selection, _ = curated
    inputs = {read.role: store.latest(read.role) for read in STEPS["export"].inputs}
    config = ExportConfig(workers=0, val_share=0.2)
    before = run_step(STEPS["export"], config, inputs, store.root).artifact
    assert before.manifest.metrics["kept"] == COUNT and before.manifest.metrics["dropped"] == {}
    export_batch(store, selection, BatchRequest(tool="coco", task="pose", count=8, test_share=1), tmp_path / "b")
    file, _ = label(tmp_path / "b", picked=1)
    (picture,) = json.loads(file.read_text())["annotations"]
    labels = brought_back(store, tmp_path / "b", file).artifact
    after = run_step(STEPS["export"], config, inputs, store.root).artifact
    assert after.version != before.version
    assert [(r.role, r.version) for r in after.manifest.inputs if r.kind == "labels"] == [("labels_1", labels.version)]
    first = read_batch(tmp_path / "b").pictures[picture["image_id"] - 1]
    gone = {row["image_id"] for row in after.read("held_out").to_pylist()}
    deduped = store.latest("deduped").read(columns=["image_id", "group_id"]).to_pylist()
    assert gone == {row["image_id"] for row in deduped if row["group_id"] == first.group}
    assert after.manifest.metrics["dropped"] == {"labelled_test": len(gone)}
    tables = [after.read(split, ["image_id"]) for split in ("train", "val") if split in after.manifest.tables]
    assert not set(pa.concat_tables(tables)["image_id"].to_pylist()) & gone
    told = [line for line in why(store, first.image_id) if line.artifact.version == after.version]
    assert [line.verdict for line in told] == ["dropped"] and "labelled_test" in told[0].text
    open_again = run_step(STEPS["export"], ExportConfig(workers=0, val_share=0.2, hold_out="none"), inputs, store.root)
    assert open_again.artifact.manifest.metrics["kept"] == COUNT
    assert held_out(config.model_copy(update={"hold_out": (labels.version,)}), store)[0].artifact.version == (
        labels.version
    )


def test_a_batch_takes_nothing_twice_and_says_when_all_is_done(curated, tmp_path):
    store, selection, pool = curated
    request = BatchRequest(tool="coco", task="pose", count=5)
    first = export_batch(store, selection, request, tmp_path / "a")
    with pytest.raises(ValueError, match="holds a batch already"):
        export_batch(store, selection, request, tmp_path / "a")
    brought_back(store, tmp_path / "a", label(tmp_path / "a")[0])
    second = export_batch(store, selection, request, tmp_path / "b")
    groups = [{picture.group for picture in batch.pictures} for batch in (first, second)]
    assert not groups[0] & groups[1]
    brought_back(store, tmp_path / "b", label(tmp_path / "b")[0])
    with pytest.raises(ValueError, match=r"every picture of selection=\w+ is labelled already"):
        export_batch(store, selection, request, tmp_path / "c")
    again = request.model_copy(update={"again": True, "pictures": "reference"})
    with pytest.raises(ValueError, match="name the pool's folder with --pool, or use --pictures copy"):
        export_batch(store, selection, again, tmp_path / "c")
    referenced = export_batch(store, selection, again.model_copy(update={"pool": str(pool)}), tmp_path / "c")
    assert all(picture.name.startswith(str(pool)) for picture in referenced.pictures)
    assert not (tmp_path / "c" / "images").exists()
    brought_back(store, tmp_path / "c", label(tmp_path / "c")[0])  # the pool still has the bytes


@pytest.mark.parametrize("nsfw", [[0.5, 0.1, 0.9, 0.4, None, 0.0, 0.3, 0.4]])
def test_nobody_is_handed_what_every_page_blurs_without_asking_for_it(curated, tmp_path, nsfw):
    store, _, _ = curated
    scored = store.latest("scores").read().to_pylist()
    flagged = {row["image_id"] for row in scored if (row["nsfw"] or 0) >= 0.5}
    options = ["--to", "coco", "--task", "pose", "--root", store.root]
    told = CliRunner().invoke(export_command, [*options, "--out", str(tmp_path / "a")], catch_exceptions=False)
    given = {picture.image_id for picture in read_batch(tmp_path / "a").pictures}
    assert given == {row["image_id"] for row in scored} - flagged and len(flagged) == 2
    assert "left out: 2 that look unsafe" in told.output
    told = CliRunner().invoke(export_command, [*options, "--unsafe", "--out", str(tmp_path / "b")])
    assert len(read_batch(tmp_path / "b").pictures) == COUNT and "unsafe" not in told.output


@pytest.mark.parametrize(("task", "count"), [("pose", COUNT), ("segmentation", 0)])
def test_export_says_what_its_file_has(curated, tmp_path, task, count):
    """A detector's people to put keypoints on, but no parts."""
    options = ["--to", "coco", "--task", task, "--root", curated[0].root, "--out", str(tmp_path / "a")]
    told = CliRunner().invoke(export_command, options, catch_exceptions=False).output
    assert ("annotations.json has the people" if count else "as categories, without annotations yet") in told
    assert len(json.loads((tmp_path / "a" / "annotations.json").read_text())["annotations"]) == count
    assert set(HINTS) == {(tool, task) for tool in TOOLS for task in ("pose", "segmentation")}


def test_labels_are_a_source_by_name(curated, tmp_path):
    store, selection, _ = curated
    export_batch(store, selection, BatchRequest(tool="coco", task="pose", count=4), tmp_path / "b")
    labels = brought_back(store, tmp_path / "b", label(tmp_path / "b")[0]).artifact
    chosen = [{"path": "synthetic"}, {"path": f"labels={labels.version[:6]}"}, {"path": "labels", "split": "test"}]
    config = FinetuneConfig(task="pose", sources=chosen)
    named = {each.role: each.artifact for each in sources(config, store)}
    assert list(named) == ["labels_2", "labels_3"]
    placed = resolved(config, named, store)
    folder = store.storage.full(f"{labels.folder}/out")
    assert [source.path for source in placed.sources] == ["synthetic", folder, folder]
    assert [source.split for source in placed.sources] == ["train", "train", "test"]
    with pytest.raises(ValueError, match="is labelled for pose, not for normal: name other labels"):
        measured(EvaluateConfig(task="normal", labelled={"path": "labels"}), store)
    with pytest.raises(ArtifactError, match=r"no artifact.*; `sapiens2 annotate import` makes"):
        sources(FinetuneConfig(task="pose", sources=[{"path": "labels=ffff"}]), store)


def test_a_removed_picture_leaves_its_labels_too(curated, tmp_path):
    """Its copy, its rows and the pictures of the page go; the others stay, and can be trained on."""
    store, selection, _ = curated
    export_batch(store, selection, BatchRequest(tool="coco", task="pose", count=4), tmp_path / "b")
    labels = brought_back(store, tmp_path / "b", label(tmp_path / "b")[0]).artifact
    gone, *stay = [picture.image_id for picture in read_batch(tmp_path / "b").pictures]
    numbers = {"data": pa.table({"x": [1]})}
    drawn = commit(store, "evaluation", numbers, labels_1=labels)  # draws the pictures that it measures on
    plain = commit(store, "pose", numbers, clusters=store.latest("clusters"))
    found = find(store, [gone])
    assert found.rows[repr(labels)] == 1 and repr(labels) in found.pages
    assert repr(drawn) in found.pages and repr(plain) not in found.pages
    carry_out(store, found)
    after = store.get("labels", labels.version)
    assert after.manifest.redacted == [gone] and after.read()["image_id"].to_pylist() == stay
    for path, is_file, _, _ in store.storage.list(labels.folder, recursive=True):
        if is_file and not path.endswith("manifest.json"):
            assert gone not in path and gone.encode() not in store.storage.read(path), path
    dataset = LabelledDataset(store.storage.full(f"{labels.folder}/out"), "pose", None)
    assert [row.image_id for row in dataset.rows] == stay and len([dataset.sample(k) for k in range(3)]) == 3
    assert not any(section["type"] == "images" for section in after.fragment()["sections"])
    assert all(verify(store, artifact) == [] for artifact in store.all())


def test_labels_of_nothing_or_of_another_batch_are_refused(curated, tmp_path):
    store, selection, _ = curated
    export_batch(store, selection, BatchRequest(tool="coco", task="pose", count=2), tmp_path / "b")
    file, _ = label(tmp_path / "b", picked=0)
    with pytest.raises(LabelError, match="labels none of the 2 pictures for pose"):
        brought_back(store, tmp_path / "b", file)
    with pytest.raises(LabelError, match="is not XML"):
        brought_back(store, tmp_path / "b", file, tool="cvat")
    with pytest.raises(ValueError, match="is not there: give the file that coco has exported"):
        brought_back(store, tmp_path / "b", tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="no annotation tool is called 'paint'; use one of coco, cvat, label-studio"):
        export_batch(store, selection, BatchRequest(tool="paint", task="pose"), tmp_path / "c")
    with pytest.raises(ValueError, match=r"images=\w+ is no selection"):
        export_batch(store, store.latest("images"), BatchRequest(tool="coco", task="pose"), tmp_path / "c")
    assert not list(store.all("labels"))
