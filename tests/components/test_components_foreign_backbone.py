"""A step that is told of somebody else's backbone does without ours: no input, no lineage to pictures it never saw."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from components.artifacts import ArtifactError, Store
from components.given_weights import compared
from components.plan import plan
from components.run_step import identify
from components.settings import Settings
from components.steps import STEPS, find_steps
from pipelines.chosen_settings import backbone_anywhere, settings_of, tuned
from sapiens2.engine import checkpoint
from sapiens2.engine.world import World

NAME = "timm:vit_tiny_patch16_224:random"


def test_a_foreign_backbone_needs_no_pretraining(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(ArtifactError, match="needs backbone"):
        plan(find_steps("finetune-pose"), Settings(preset="micro"), store)
    settings = Settings(preset="micro", overrides={"finetune.backbone": NAME})
    (planned,) = plan(find_steps("finetune-pose"), settings, store)
    assert planned.inputs == {} and not planned.reused
    whole = plan((STEPS["pretrain"], STEPS["probe"], STEPS["finetune-pose"]), settings, store, given=_shards(store))
    assert whole[-1].version == planned.version


def _shards(store: Store) -> dict[str, object]:
    class Given:
        version = "0" * 16

    return {"shards": Given()}


@pytest.mark.parametrize("how", ["option", "set"])
def test_a_file_is_meant_from_where_the_command_is_given(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps run in folders of their own; what has no file is left as it is."""
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    name, step = "timm:vit_tiny_patch16_224:w.safetensors", STEPS["finetune-pose"]
    pairs = (f"finetune-pose.backbone={name}",) if how == "set" else ()
    settings = settings_of(pairs, None, "builtin", "micro")
    chosen = settings if how == "set" else tuned(settings, "pose", "", name)
    assert chosen.config(step).backbone == f"timm:vit_tiny_patch16_224:{tmp_path}/w.safetensors"
    monkeypatch.chdir("/")
    assert chosen.config(step).backbone_sha256 == hashlib.sha256(b"weights").hexdigest()
    as_it_is = (
        NAME,
        "timm:vit_tiny_patch16_224",
        "hf:a/b",
        "hf:a/b:s3://bucket/w.safetensors",
        "s3://bucket/w",
        "other:x",
    )
    assert [backbone_anywhere(each) for each in as_it_is] == list(as_it_is)
    pairs = ('probe.compare=["w.safetensors", "timm:a:w.pth"]',)
    assert settings_of(pairs, None, "builtin", "micro").config(STEPS["probe"]).compare == (
        "/w.safetensors",
        "timm:a:/w.pth",
    )


def _folder(place: Path) -> Path:
    """A transformers folder, as far as it is hashed."""
    place.mkdir()
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"weights")
    return place


def test_a_folder_is_meant_from_where_the_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _folder(tmp_path / "vit")
    monkeypatch.chdir(tmp_path)
    for name in ("hf:./vit", "hf:vit", f"hf:{tmp_path}/vit"):
        assert backbone_anywhere(name) == f"hf:{tmp_path}/vit"
    assert backbone_anywhere("hf:vit:random") == f"hf:{tmp_path}/vit:random"
    assert backbone_anywhere("hf:./vit:vit/model.safetensors") == f"hf:{tmp_path}/vit:{tmp_path}/vit/model.safetensors"
    assert backbone_anywhere("hf:dinov2:random") == "hf:dinov2:random" and backbone_anywhere("timm:vit") == "timm:vit"
    with pytest.raises(ValueError, match=r"no /nowhere/config\.json; give a folder with a config\.json"):
        settings_of(("finetune-pose.backbone=hf:/nowhere",), None, "builtin", "micro").config(STEPS["finetune-pose"])


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("named", ["", ":random", ":FILE"])
def test_what_lies_in_a_folder_is_part_of_the_version(file: str, named: str, tmp_path: Path) -> None:
    """Of a folder whose weights are not asked for, they are not."""
    folder, store = _folder(tmp_path / "vit"), Store(str(tmp_path / "root"))
    (tmp_path / "w.safetensors").write_bytes(b"others")
    name = f"hf:{folder}{named}".replace("FILE", str(tmp_path / "w.safetensors"))

    def versions() -> tuple[str, str, list[tuple[str, str]]]:
        settings = Settings(preset="micro", overrides={"finetune.backbone": name, "probe.compare": (name,)})
        (tuned_,) = plan(find_steps("finetune-pose"), settings, store)
        config = settings.config(STEPS["probe"])
        models = [each.model for each in compared(config, store)]
        probed = identify(STEPS["probe"], config, {"backbone": "0" * 16}, given=compared(config, store)).version
        return tuned_.version, probed, [(model.name, model.sha256) for model in models]

    before = versions()
    (folder / file).write_text("{ }")
    after = versions()
    for was, now in zip(before, after, strict=True):
        assert (was == now) == (file == "model.safetensors" and bool(named))
    own = ["compare-1/model.safetensors"] if not named else ["compare-1"] if named == ":FILE" else []
    rest = ["compare-1/config.json"] + (["compare-1/preprocessor_config.json"] if file.startswith("pre") else [])
    assert [role for role, _ in after[2]] == own + rest
    now = hashlib.sha256(b"{ }").hexdigest()
    assert dict(after[2]).get(f"compare-1/{file}", now) == now


def test_recipe_and_backbone_of_the_command_line_lie_under_and_over_what_is_set() -> None:
    chosen = Settings(preset="micro", overrides={"finetune.engine.steps": 700, "finetune-pose.batch": 3})
    config = tuned(chosen, "pose", "0.4b:paper", NAME).config(STEPS["finetune-pose"])
    assert (config.size, config.engine.clip_norm, config.layer_decay) == ("0.4b", 1.0, 0.8)
    assert (config.engine.steps, config.batch, config.backbone) == (700, 3, NAME)
    untouched = tuned(chosen, "pose", "0.4b:release", None).config(STEPS["finetune-normal"])
    assert untouched.size == "tiny" and untouched.engine.steps == 700


def test_a_plan_says_what_a_kill_has_left(tmp_path: Path) -> None:
    store, settings = Store(str(tmp_path)), Settings(preset="micro", overrides={"finetune.backbone": NAME})
    (planned,) = plan(find_steps("finetune-pose"), settings, store)
    assert planned.why == "not run yet"
    state, alone = store.storage.full(f"pose/{planned.version}/work"), World(0, 1, torch.device("cpu"))
    for step in (5, 20, 10):
        checkpoint.save({"weight": torch.ones(2)}, {}, root=state, step=step, world=alone)
    (tmp_path / f"pose/{planned.version}/work/step_20/complete.json").unlink()  # torn
    (planned,) = plan(find_steps("finetune-pose"), settings, store)
    assert planned.why == "interrupted: training goes on from step 10"
    given = {"checkpoint": _shards(store)["shards"]}  # any version will do
    (planned,) = plan(find_steps("evaluate-pose"), settings, store, given=given)
    for part in (0, 64, 128):
        store.storage.write(f"evaluation/{planned.version}/work/part_{part}.measured", b"")
    (planned,) = plan(find_steps("evaluate-pose"), settings, store, given=given)
    assert planned.why == "interrupted: 3 parts are done and stay"
