"""Weights from outside are worked with as the import says: fine-tuned without a probe, and probed."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from kfp_api import KfpApi
from micro_runs import sapiens2_here

from components.artifacts import Artifact, Store
from pipelines.submit_command import submit
from sapiens2.model.backbone import build_backbone
from sapiens2.model.weights import save_weights


class Imported(NamedTuple):
    """A root into which a file was imported, the artifact, and the command that the import named."""

    root: Path
    file: Path
    artifact: Artifact
    use: list[str]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp("imported")
    torch.manual_seed(1)
    file = folder / "sapiens2_tiny.safetensors"
    save_weights(build_backbone("tiny", rope_dtype="bfloat16"), file)
    told = sapiens2_here("weights", "import", file, root=folder / "root", cwd=folder).stdout
    use = re.search(r"use it: sapiens2 (train finetune .*)", told)
    artifact = Store(str(folder / "root")).latest("backbone")
    assert use and artifact
    return Imported(folder / "root", file, artifact, [*use[1].split(), "--preset", "micro"])


@pytest.fixture(scope="module")
def probe(imported: Imported, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A probe of the import beside a file that is named as it lies in the folder."""
    beside = ("--backbone", imported.file.name)
    arguments = ("probe", "--each", "--preset", "micro", "--input", imported.artifact, *beside)
    cache = str(tmp_path_factory.getbasetemp() / "cache")
    sapiens2_here(*arguments, root=imported.root, cwd=imported.file.parent, SAPIENS2_CACHE=cache)
    found = Store(str(imported.root)).latest("evaluation-probe")
    assert found is not None
    return found


def test_the_import_is_the_only_candidate_of_its_probe(imported: Imported, probe: Artifact) -> None:
    metrics, store = probe.manifest.metrics, Store(str(imported.root))
    assert metrics["size"] == "tiny" and [each["name"] for each in metrics["candidates"]] == ["imported"]
    assert metrics["chosen"] == metrics["last"] and metrics["chosen"]["file"] == "model.safetensors"
    assert metrics["headline"].startswith("imported weights, score")
    assert metrics["others"][0]["printed"] == metrics["printed"]  # it was beside its own bytes
    assert store.find("best-val").version == imported.artifact.version
    assert store.tagged_file("best-val") == "out/model.safetensors"
    sections = {section["title"]: section for section in json.loads(probe.file("fragment.json"))["sections"]}
    assert sections["Choice"]["body"].startswith("Imported weights leave nothing to choose")
    assert sections["Checkpoints on validation scenes"]["rows"][0][:2] == ["imported (chosen)", ""]


def test_a_file_beside_is_on_record_with_its_sha256(imported: Imported, probe: Artifact) -> None:
    (model,) = probe.manifest.models
    assert model.name == "compare-1" and model.licence.startswith("Sapiens2 License")
    assert model.sha256 == hashlib.sha256(imported.file.read_bytes()).hexdigest()


def test_the_command_that_the_import_names_trains_from_it(imported: Imported, probe: Artifact, tmp_path: Path) -> None:
    """The probe that lies beside it by now is no input: nothing was chosen by it."""
    sapiens2_here(*imported.use, root=imported.root, cwd=tmp_path)
    model = Store(str(imported.root)).latest("pose")
    assert model is not None
    assert [(ref.role, ref.version) for ref in model.manifest.inputs] == [("backbone", imported.artifact.version)]
    sha256 = hashlib.sha256(imported.artifact.file("model.safetensors")).hexdigest()
    assert json.loads(model.file("metrics.json"))["backbone"]["weights_sha256"] == sha256
    assert "reused" in sapiens2_here(*imported.use, root=imported.root, cwd=tmp_path).stdout


def test_a_cluster_is_asked_for_no_probe_either(imported: Imported, probe: Artifact, tmp_path: Path) -> None:
    """Submitted, the stage reads what the command reads, so that it finds the model that the command made."""
    store = Store(str(imported.root))
    sapiens2_here(*imported.use, root=imported.root, cwd=tmp_path)
    (made,) = store.versions("pose")
    manifest = imported.root / "pose" / made / "manifest.json"
    written = manifest.stat().st_mtime_ns
    server = KfpApi(tmp_path / "server")
    try:
        arguments = ["stage:finetune-pose", "--host", server.url, "--preset", "micro", "--root", str(imported.root)]
        submit.main([*arguments, "--input", str(imported.artifact), "--wait", "--poll", "0.3"], standalone_mode=False)
        parameters = server.bodies[-1]["runtime_config"]["parameters"]
        assert {name for name in parameters if name.endswith("_manifest")} == {"backbone_manifest"}
        assert store.versions("pose") == [made] and manifest.stat().st_mtime_ns == written
    finally:
        server.close()
