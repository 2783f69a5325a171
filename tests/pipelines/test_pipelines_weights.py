"""Weights through the command line: imported as an artifact, continued from, exported; and the recipes' names."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from micro_runs import sapiens2, sapiens2_here
from safetensors.torch import load_file, save_file

from components.artifacts import Store
from components.explain import trained_on
from components.import_weights import exported
from components.lineage import ancestors
from components.plan import plan
from components.settings import Settings
from components.steps import STEPS
from components.upkeep import verify
from sapiens2.model.backbone import build_backbone
from sapiens2.model.weights import read_metadata, save_weights
from sapiens2.tasks.load import load_task
from sapiens2.tasks.predict import predict

sys.path.insert(0, str(Path(__file__).parents[1] / "sapiens2" / "pretrain"))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("released") / "sapiens2_tiny.safetensors"
    save_weights(build_backbone("tiny", rope_dtype="bfloat16"), path)
    return path


@pytest.fixture(scope="module")
def root(micro_run, tmp_path_factory, released: Path) -> Path:
    """A copy of the micro run's root, into which the released file was imported."""
    folder = tmp_path_factory.mktemp("with-weights")
    shutil.copytree(micro_run[0], folder / "root")
    done = sapiens2("weights", "import", released, root=folder / "root", cwd=folder)
    assert "size tiny, released names, rotation bfloat16" in done.stdout and "Sapiens2 License" in done.stdout
    return folder / "root"


def test_an_import_is_an_artifact_like_any_other(root: Path, released: Path, tmp_path: Path) -> None:
    store = Store(str(root))
    artifact = store.latest("backbone")
    assert artifact is not None and artifact.manifest.step == "import-weights"
    (model,) = artifact.manifest.models
    assert model.name == "weights" and model.revision == released.name and model.licence.startswith("Sapiens2 License")
    assert verify(store, artifact) == [] and list(ancestors(store, [artifact])) == [("backbone", artifact.version)]
    again = sapiens2_here("weights", "import", released, root=root, cwd=tmp_path)
    assert f"reused backbone={artifact.version}" in again.stdout
    other = sapiens2_here("weights", "import", released, "--licence", "CC0", root=root, cwd=tmp_path)
    assert f"made backbone={artifact.version}" not in other.stdout and "licence: CC0" in other.stdout
    export = ("weights", "export", artifact.version, "--out", "out.safetensors")
    told = sapiens2_here(*export, root=root, cwd=tmp_path).stdout
    assert "licence: Sapiens2 License" in told
    ours, theirs = load_file(tmp_path / "out.safetensors"), load_file(released)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_export_says_licence_and_rotation_in_its_header(root: Path, released: Path, tmp_path: Path) -> None:
    imported = next(a for a in Store(str(root)).all("backbone") if a.manifest.step == "import-weights")
    made = tmp_path / "port.safetensors"
    arguments = ("weights", "export", imported.version, "--naming", "transformers", "--out", made)
    sapiens2_here(*arguments, root=root, cwd=tmp_path)
    assert read_metadata(made)["rope_dtype"] == "bfloat16"
    assert read_metadata(made)["licence"].startswith("Sapiens2 License")
    sapiens2_here("weights", "import", made, "--out", "back.safetensors", root=root, cwd=tmp_path)
    back, theirs = load_file(tmp_path / "back.safetensors"), load_file(released)
    assert back.keys() == theirs.keys()  # the periods too, for which the port has no name
    assert all(back[name].dtype == theirs[name].dtype and torch.equal(back[name], theirs[name]) for name in back)


def test_a_task_model_is_the_same_after_export_and_import(micro_run, tmp_path: Path) -> None:
    """The file alone says what it was trained at, so that whoever imports it predicts and measures as before."""
    ours = Store(str(micro_run[0])).latest("pose")
    assert ours is not None
    trained = ours.manifest.config["image_size"]
    sapiens2_here("weights", "export", ours.version, "--out", "pose.safetensors", root=micro_run[0], cwd=tmp_path)
    assert list(load_task(str(tmp_path / "pose.safetensors")).image_size or ()) == list(trained) != [128, 96]
    root, told = tmp_path / "other", ("weights", "import", "pose.safetensors", "--task", "pose")
    sapiens2_here(*told, root=root, cwd=tmp_path)
    sapiens2_here("weights", "import", "pose.safetensors", "--task", "pose", "--out", "again.safetensors", cwd=tmp_path)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "pose.safetensors").read_bytes()
    there = Store(str(root)).latest("pose")
    assert there is not None
    assert read_metadata(root / there.file_path("model.safetensors")) | {"licence": ""} == read_metadata(
        tmp_path / "pose.safetensors"
    ) | {"licence": ""}
    answers = []
    for base, artifact in ((micro_run[0], ours), (root, there)):
        model = load_task(str((base / artifact.file_path("model.safetensors")).parent), device="cpu")
        picture = np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)
        answers.append(predict(model, [picture], boxes=[np.array([[5.0, 5, 60, 80]])])[0][0].keypoints)
    assert np.array_equal(*answers)
    sapiens2_here("evaluate", "pose", "--preset", "micro", root=root, cwd=tmp_path)
    evaluation = Store(str(root)).latest("evaluation-pose")
    assert evaluation is not None and list(evaluation.manifest.metrics["image_size"]) == list(trained)


def test_what_has_no_names_of_ours_is_not_exported(micro_run, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(micro_run[0], root)
    foreign = ("--backbone", "timm:vit_tiny_patch16_224:random", "--set", "finetune.engine.steps=2")
    sapiens2_here("train", "finetune", "--task", "pose", "--preset", "micro", *foreign, root=root, cwd=tmp_path)
    with pytest.raises(ValueError, match="rests on timm:vit_tiny_patch16_224:random, which has no Sapiens2 names"):
        exported("pose", Store(str(root)))


def test_pretraining_continues_from_an_artifact(root: Path, tmp_path: Path) -> None:
    store = Store(str(root))
    imported = next(a for a in store.all("backbone") if a.manifest.step == "import-weights")
    (scratch,) = [a for a in store.all("backbone") if a.manifest.step == "pretrain"]
    arguments = ("train", "pretrain", "--preset", "micro", "--init", f"backbone={imported.version[:8]}")
    sapiens2(*arguments, root=root, cwd=tmp_path)
    made = store.latest("backbone")
    assert made is not None and made.version != scratch.version
    assert {(r.role, r.version) for r in made.manifest.inputs if r.role == "init"} == {("init", imported.version)}
    (model,) = made.manifest.models
    assert model.name == "init" and model.licence.startswith("Sapiens2 License")
    assert ("backbone", imported.version) in ancestors(store, [made])
    assert "reused" in sapiens2_here(*arguments, root=root, cwd=tmp_path).stdout
    image = store.latest("shards").read("train", ["image_id"])["image_id"][0].as_py()  # type: ignore[union-attr]
    assert made.version in {c.artifact.version for c in trained_on(store, image)}


def test_a_file_enters_the_version_by_its_bytes_and_not_by_its_path(root: Path, released: Path, tmp_path: Path) -> None:
    store, elsewhere, other = Store(str(root)), tmp_path / "moved.safetensors", tmp_path / "other.safetensors"
    elsewhere.write_bytes(released.read_bytes())
    torch.manual_seed(2)
    save_weights(build_backbone("tiny"), other)

    def version(path: Path | None) -> str:
        overrides = {"pretrain.init": str(path)} if path else {}
        (planned,) = plan((STEPS["pretrain"],), Settings(preset="micro", overrides=overrides), store)
        return planned.version

    assert version(released) == version(elsewhere)
    assert len({version(None), version(released), version(other)}) == 3


BAD = {
    "missing file": (["--init", "absent.safetensors"], ["there are no weights at", "absent.safetensors"]),
    "another architecture": (
        ["--init", "{released}", "--set", "pretrain.size=0.1b"],
        ["does not fit this model", "the file holds size tiny"],
    ),
    "no such artifact": (["--init", "backbone=ffff"], ["no artifact, tag or version 'backbone=ffff'"]),
    "not a backbone": (["--init", "shards"], ["not a backbone"]),
    "unknown recipe": (["--recipe", "2b"], ["unknown recipe '2b'; choose one of", "0.1b-256", "1b-continued"]),
    "a recipe that continues": (["--recipe", "1b-continued"], ["continues from 1b weights", "--init"]),
    "a batch that cannot fit": (
        ["--recipe", "5b", "--set", "pretrain.workers=0", "--set", "pretrain.batch=8"],
        ["pretraining 5b at 1024 x 768 would need", "GiB are free"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_start_is_said_in_a_line(case: str, root: Path, released: Path, tmp_path: Path) -> None:
    arguments, expected = BAD[case]
    filled = [argument.format(released=released) for argument in arguments]
    done = sapiens2_here("train", "pretrain", "--preset", "micro", *filled, root=root, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stdout + done.stderr
    for text in expected:
        assert text in done.stderr


def test_other_peoples_weights_are_refused_before_they_are_called_ours(tmp_path: Path) -> None:
    import timm

    state = timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "vt.safetensors")
    done = sapiens2_here("weights", "import", "vt.safetensors", root=tmp_path / "root", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "missing" in done.stderr and "backbone of size" not in done.stdout
