"""No picture is trained on in one labels artifact and measured on in another."""

import json

import pyarrow as pa
import pytest
from annotation_root import brought_back, commit, curate, label
from click.testing import CliRunner

from components.annotation_batch import BatchRequest, export_batch
from components.given_labels import resolved
from components.label_splits import known_splits
from components.labels import SCHEMA
from pipelines.annotate_cli import export_command, import_command
from sapiens2.data.annotation import read_batch
from sapiens2.data.labelled import LabelError
from sapiens2.evaluation.config import EvaluateConfig


@pytest.fixture
def curated(tmp_path):
    return curate(tmp_path)


def request(share, **more):
    return BatchRequest(tool="coco", task="pose", count=8, test_share=share, **more)


def splits(batch):
    return {picture.group: picture.split for picture in batch.pictures}


def exported(curated, folder, share, **more):
    store, selection, _ = curated
    return export_batch(store, selection, request(share, **more), folder)


def test_pictures_that_are_labelled_again_keep_their_split(curated, tmp_path):
    """Whatever share and seed the second batch asks for; what nobody has labelled yet is drawn."""
    store, _, _ = curated
    first = exported(curated, tmp_path / "a", 1)
    brought_back(store, tmp_path / "a", label(tmp_path / "a", picked=3)[0])
    kept = {picture.group for picture in first.pictures[:3]}
    again = splits(exported(curated, tmp_path / "b", 0, again=True, seed=7))
    assert {group for group, split in again.items() if split == "test"} == kept and len(again) == 7
    brought_back(store, tmp_path / "b", label(tmp_path / "b")[0])
    options = ["--to", "coco", "--task", "pose", "--root", store.root, "--again", "--out", str(tmp_path / "c")]
    told = CliRunner().invoke(export_command, options, catch_exceptions=False).output
    assert "8 are labelled already, or a duplicate of them, and keep that split" in told


def test_a_second_batch_that_splits_otherwise_is_refused_until_it_takes_the_known_splits(curated, tmp_path):
    """Two batches were exported before either came back."""
    store, _, _ = curated
    exported(curated, tmp_path / "a", 0)
    second = exported(curated, tmp_path / "b", 1)
    first = brought_back(store, tmp_path / "a", label(tmp_path / "a", picked=4)[0]).artifact
    file, _ = label(tmp_path / "b")
    groups = {row["group_id"] for row in first.read().to_pylist()}
    clashing = [picture for picture in second.pictures if picture.group in groups]
    assert 4 <= len(clashing) < 8
    with pytest.raises(LabelError) as raised:
        brought_back(store, tmp_path / "b", file)
    said = str(raised.value)
    assert f"has {len(clashing)} pictures in another split than labels that have them" in said
    assert f"{clashing[0].name} is test here, train in {first!r}" in said and "import with --known-splits" in said
    assert [repr(labels) for labels in store.all("labels")] == [repr(first)]
    options = [str(file), "--batch", str(tmp_path / "b"), "--root", store.root]
    CliRunner().invoke(import_command, [*options, "--known-splits", "--licence", "ours"], catch_exceptions=False)
    assert splits(read_batch(tmp_path / "b")) == dict.fromkeys(splits(second), "test") | dict.fromkeys(groups, "train")
    assert {len(known) for known in known_splits(store, {}).values()} == {1}
    assert brought_back(store, tmp_path / "b", file).reused


def test_a_duplicate_of_a_labelled_picture_is_refused_too(curated, tmp_path):
    """6 and 7 of the pool are near-duplicates; each is labelled in a batch of its own."""
    store, _, _ = curated
    exported(curated, tmp_path / "a", 0)
    exported(curated, tmp_path / "b", 1)
    pair = [p.image_id for p in read_batch(tmp_path / "a").pictures if p.group != p.image_id]
    pair += [p.image_id for p in read_batch(tmp_path / "a").pictures if p.image_id == group_of(curated, pair[0])]
    for folder, picture in zip("ab", pair, strict=True):
        only(tmp_path / folder, picture)
    brought_back(store, tmp_path / "a", label(tmp_path / "a")[0])
    with pytest.raises(LabelError, match=f"has 1 pictures in another split .*{pair[1]}.* is test here, train in"):
        brought_back(store, tmp_path / "b", label(tmp_path / "b")[0])


def group_of(curated, image_id):
    rows = curated[0].latest("deduped").read(columns=["image_id", "group_id"]).to_pylist()
    return next(row["group_id"] for row in rows if row["image_id"] == image_id)


def only(folder, image_id):
    """Leave one picture of a batch."""
    values = json.loads((folder / "batch.json").read_text())
    values["pictures"] = [picture for picture in values["pictures"] if picture["image_id"] == image_id]
    (folder / "batch.json").write_text(json.dumps(values))


def test_what_labels_have_in_two_splits_goes_into_no_batch(curated, tmp_path):
    store, _, _ = curated
    batch = exported(curated, tmp_path / "a", 0)
    exported(curated, tmp_path / "b", 1)
    torn = batch.pictures[0]
    older(store, {torn.image_id: "train"}, "1" * 16)
    older(store, {torn.image_id: "test"}, "2" * 16)
    again = exported(curated, tmp_path / "c", 0.5, again=True)
    assert torn.group not in splits(again) and len(again.pictures) >= 6
    file, _ = label(tmp_path / "a", picked=1)
    with pytest.raises(LabelError, match=r"test in labels=2+; delete the labels of images/.*, which earlier labels"):
        brought_back(store, tmp_path / "a", file, as_known=True)
    options = ["--to", "coco", "--task", "pose", "--root", store.root, "--again", "--out", str(tmp_path / "d")]
    told = CliRunner().invoke(export_command, options, catch_exceptions=False).output
    assert "of which labels under the root disagree about the split" in told


def older(store, sides, version, **inputs):
    """A labels artifact as an earlier release could write it: splits by picture."""
    rows = [{"image_id": i, "group_id": i, "split": split, "rows": 1, "labels": "[]"} for i, split in sides.items()]
    return commit(store, "labels", {"data": pa.Table.from_pylist(rows, schema=SCHEMA)}, version=version, **inputs)


def test_a_model_is_not_measured_on_what_it_was_trained_on(curated):
    """In a root whose labels disagree already: the lineage of the checkpoint says what it has seen."""
    store, _, _ = curated
    trained = older(store, {"p": "train", "q": "train", "r": "test"}, "1" * 16)
    tested = older(store, {"q": "test", "s": "test", "p": "train"}, "2" * 16)
    other = older(store, {"r": "test", "t": "test"}, "3" * 16)
    config = {"sources": [{"path": "synthetic", "split": "train"}, {"path": "/gone", "split": "train"}]}
    model = commit(store, "pose", {"data": pa.table({"x": [1]})}, config=config, labels_2=trained)

    def measure(labels, split):
        config = EvaluateConfig(task="pose", labelled={"path": f"labels={labels.version}", "split": split})
        return resolved(config, {"checkpoint": model, "labels_1": labels}, store).labelled.path

    with pytest.raises(ValueError, match=rf"^pose=\w+ was trained on 1 of the 2 pictures of split test in {tested!r}"):
        measure(tested, "test")
    assert measure(tested, "train").endswith(f"{tested.version}/out")  # to see how well they are fitted
    assert measure(other, "test").endswith(f"{other.version}/out")
    assert measure(trained, "test").endswith(f"{trained.version}/out")  # the rows of train alone were trained on
