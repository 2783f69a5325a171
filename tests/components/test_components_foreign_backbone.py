"""A step that is told of somebody else's backbone does without ours: no input, no lineage to pictures it never saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts import ArtifactError, Store
from components.plan import plan
from components.settings import Settings
from components.steps import STEPS, find_steps
from pipelines.chosen_settings import tuned

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


def test_recipe_and_backbone_of_the_command_line_lie_under_and_over_what_is_set() -> None:
    chosen = Settings(preset="micro", overrides={"finetune.engine.steps": 700, "finetune-pose.batch": 3})
    config = tuned(chosen, "pose", "0.4b:paper", NAME).config(STEPS["finetune-pose"])
    assert (config.size, config.engine.clip_norm, config.layer_decay) == ("0.4b", 1.0, 0.8)
    assert (config.engine.steps, config.batch, config.backbone) == (700, 3, NAME)
    untouched = tuned(chosen, "pose", "0.4b:release", None).config(STEPS["finetune-normal"])
    assert untouched.size == "tiny" and untouched.engine.steps == 700
