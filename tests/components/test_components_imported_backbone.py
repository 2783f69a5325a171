"""What fine-tuning and the probe read: no probe where there is nothing to choose, files beside by their content."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from components.artifacts import Artifact, ArtifactError, Store
from components.given_weights import given
from components.import_weights import import_weights
from components.plan import PlannedStep, plan
from components.run_step import identify
from components.settings import Settings
from components.steps import STEPS, find_steps
from components.training_steps import starting_point
from sapiens2.evaluation.candidates import run_of
from sapiens2.evaluation.config import SelectionConfig
from sapiens2.model.backbone import build_backbone
from sapiens2.model.sizes import architecture
from sapiens2.model.weights import save_weights


class Ours:
    """Shards, or a backbone of an ordinary run that is still to come."""

    version = "0" * 16


def weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_weights(build_backbone("tiny"), path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "root"))


def imported(store: Store, tmp_path: Path) -> Artifact:
    file = str(weights(tmp_path / "released.safetensors", 1))
    return import_weights(file, store, size=None, task=None, licence="CC0").artifact


def finetuned(store: Store, backbone: object, **overrides: object) -> PlannedStep:
    settings = Settings(preset="micro", overrides={f"finetune.{name}": value for name, value in overrides.items()})
    given_by_role = {"backbone": backbone, "probe": Ours()}
    (planned,) = plan(find_steps("finetune-pose"), settings, store, given=given_by_role)  # type: ignore[arg-type]
    return planned


def test_a_probe_is_read_where_a_checkpoint_is_to_be_chosen(store: Store, tmp_path: Path) -> None:
    released = imported(store, tmp_path)
    chosen, last = finetuned(store, Ours()), finetuned(store, Ours(), checkpoint="last")
    assert chosen.inputs == {"backbone": Ours.version, "probe": Ours.version}
    assert last.inputs == {"backbone": Ours.version}
    assert finetuned(store, released).inputs == {"backbone": released.version}
    with pytest.raises(ArtifactError, match="needs probe"):
        plan(find_steps("finetune-pose"), Settings(preset="micro"), store, given={"backbone": Ours()})  # type: ignore[dict-item]


def test_imported_weights_are_what_training_starts_from(store: Store, tmp_path: Path) -> None:
    released = imported(store, tmp_path)
    for checkpoint in ("best-val", "last"):
        assert released.file_path(starting_point(released, None, checkpoint)).endswith("model.safetensors")


def test_imported_weights_tell_size_and_cell() -> None:
    made = architecture("tiny")
    for windows, stride in ((False, made.patch), (True, made.patch * made.window)):
        run = run_of({"config": None, "size": "tiny", "window_tokenizer": windows}, ["model.safetensors"], "each")
        assert (run.size, run.architecture, run.stride) == ("tiny", made, stride)
        assert [(each.name, each.file) for each in run.candidates] == [("imported", "model.safetensors")]


def test_a_file_beside_enters_the_version_by_its_bytes(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"

    def version(*names: str) -> str:
        step, config = STEPS["probe"], SelectionConfig(compare=names)
        return identify(step, config, {"backbone": Ours.version}, None, given(step, config, store)).version

    def of_both() -> tuple[str, str]:
        return version(str(file)), version(f"timm:vit_tiny_patch16_224:{file}")

    first, again, other = [(weights(file, seed), of_both())[1] for seed in (1, 1, 2)]
    assert first == again and len({*first, *other}) == 4
    names = ("timm:vit_tiny_patch16_224:random", "hf:facebook/dinov2-small")  # what has no file here is told by name
    config = SelectionConfig(compare=names)
    assert version(*names) == identify(STEPS["probe"], config, {"backbone": Ours.version}).version
    with pytest.raises(FileNotFoundError, match="there are no weights at"):
        version(str(tmp_path / "absent.safetensors"))
