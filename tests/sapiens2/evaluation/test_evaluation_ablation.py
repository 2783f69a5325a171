"""Ablations: arms of equal cost, runs that are done once, differences that are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sapiens2.data.shards import Shards
from sapiens2.data.synthetic.shards import write_shard
from sapiens2.engine.interrupt import Interrupted
from sapiens2.evaluation.ablation.arms import (
    Arm,
    architecture_arms,
    attention_arms,
    changed,
    crops_arms,
    curation_arms,
    objective_arms,
)
from sapiens2.evaluation.ablation.comparison import differences, interval
from sapiens2.evaluation.ablation.report import arms_table, fragment, text
from sapiens2.evaluation.ablation.runner import Outcome, run_arms
from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.few_labels import tune
from sapiens2.evaluation.probe_scenes import ProbeScenes
from sapiens2.model.backbone import build_backbone
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.recipes import micro

SMALL = {"dim": 16, "layers": 2, "heads": 2, "patch": 8}


def base(**fields: object) -> PretrainConfig:
    return changed(micro(), changes=SMALL, image_size=(64, 48), local_size=(32, 16), workers=0, **fields)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_shard(tmp_path_factory.mktemp("people") / "people.parquet", 16, 64, 48, "train"))


PROBE = ProbeConfig(
    n_train=32, n_val=1, n_test=16, image_size=(64, 48), tasks=("normal",), steps=2, rounds=5, cache_scenes=False
)


def test_a_shard_of_people_reads_back_and_is_written_once(shard: str) -> None:
    shards = Shards([shard])
    assert len(shards) == 16 and (shards[3].height, shards[3].width) == (64, 48)
    before = Path(shard).stat().st_mtime_ns
    assert write_shard(Path(shard), 16, 64, 48, "train").stat().st_mtime_ns == before


def test_arms_of_an_axis_cost_the_same() -> None:
    engine = {"steps": 1000, "warmup_steps": 100}
    config = base(engine=engine, freeze_prototypes_steps=50)
    axes = [
        objective_arms(config, ["f"]),
        attention_arms(changed(config, changes={"window": 2}, image_size=(128, 96), local_size=(64, 32)), ["f"]),
        architecture_arms(changed(config, changes={"layers": 18}), ["f"]),
        crops_arms(config, ["f"]),
    ]
    for arms in axes:
        assert [arm.flops for arm in arms] == pytest.approx([arms[0].flops] * len(arms), rel=2e-3)
        assert arms[0].config.engine.steps == 1000
        for arm in arms:
            assert arm.config.engine.warmup_steps == pytest.approx(arm.config.engine.steps / 10, abs=1)
    both, mae, contrastive = axes[0]
    assert (mae.config.contrastive_weight, mae.config.koleo_weight, mae.config.local_views) == (0, 0, 0)
    assert contrastive.config.mae_weight == 0 < both.config.mae_weight
    assert min(mae.config.engine.steps, contrastive.config.engine.steps) > 1000
    assert [arm.config.window_tokenizer for arm in axes[1]] == [False, True]
    assert [(arm.name, arm.config.person_crops) for arm in axes[3]] == [("whole", 0.0), ("person", 0.5)]
    assert not any(arm.config.architecture.qk_norm for arm in axes[2] if arm.name == "no QK-norm")


def test_arms_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="2 layers leave none whose key heads are shared"):
        architecture_arms(base(), ["f"])
    with pytest.raises(ValueError, match="does not divide into tokens"):
        attention_arms(base(), ["f"])


def test_runs_stop_continue_and_are_done_once(shard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = objective_arms(base(), [shard])[:2]
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        run_arms(arms, [0], PROBE, out=str(tmp_path), stop=lambda: next(asked, True))
    outcomes = run_arms(arms, [0, 1], PROBE, out=str(tmp_path))
    assert [(o.arm, o.seed) for o in outcomes] == [("both", 0), ("mae", 0), ("both", 1), ("mae", 1)]
    assert outcomes[0].facts["steps"] == 2 and outcomes[0].errors["normal"].shape == (16,)
    assert np.isfinite(outcomes[0].main["normal"]) and outcomes[0].main != outcomes[2].main
    printed = capsys.readouterr().out
    assert printed.count("seed 0") == 2
    again = run_arms(arms, [0, 1], PROBE, out=str(tmp_path))
    assert [o.main for o in again] == [o.main for o in outcomes]
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="holds another experiment"):
        run_arms(arms, [0], PROBE.model_copy(update={"steps": 3}), out=str(tmp_path))
    page = fragment("objective", again, differences(again, "both"))
    assert "mae - both" in str(page) and "both" in text(*arms_table(again))


def test_curation_arms_share_the_run() -> None:
    arms = curation_arms(base(), {"random": ["a"], "filtered": ["b"]})
    assert arms == [Arm("random", base(), ("a",)), Arm("filtered", base(), ("b",))]


def outcome(arm: str, seed: int, errors: list[float]) -> Outcome:
    return Outcome(arm, seed, {"normal": float(np.mean(errors))}, {"normal": 1.0}, {"normal": np.array(errors)}, {}, "")


def test_differences_are_paired_by_scene_and_seed() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(10, 5, 400)  # what makes a scene hard is common to both arms
    outcomes = []
    for seed in range(3):
        outcomes.append(outcome("a", seed, list(hard + seed)))
        outcomes.append(outcome("b", seed, list(hard + seed - 0.5 + rng.normal(0, 0.2, 400))))
    (found,) = differences(outcomes, "a")
    assert (found.arm, found.reference, found.seeds, found.verdict) == ("b", "a", 3, "better")
    assert found.value == pytest.approx(-0.5, abs=0.03) and found.high - found.low < 0.1
    even = [outcome("c", seed, list(hard + seed + rng.normal(0, 1, 400))) for seed in range(3)]
    (other,) = differences([*outcomes[::2], *even], "a")
    assert other.verdict == "even"


def test_undefined_scenes_are_left_out() -> None:
    value, low, high = interval(np.array([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]]))
    assert value == 2.0 and low <= 2.0 <= high


def test_few_labels_train_backbone_and_decoder() -> None:
    config = PROBE.model_copy(update={"steps": 30, "batch": 8, "n_test": 8})
    scenes = ProbeScenes(config)
    architecture = base().architecture
    torch.manual_seed(0)
    backbone = build_backbone(architecture)
    before = {name: p.clone() for name, p in backbone.named_parameters()}
    errors = tune("normal", backbone, 8, config, scenes)
    assert errors.shape == (8,) and (errors < 90).all()
    assert all(not p.equal(before[name]) for name, p in backbone.named_parameters() if "blocks" in name)
    torch.manual_seed(0)
    assert (tune("normal", build_backbone(architecture), 8, config, scenes) == errors).all()
    with pytest.raises(ValueError, match=r"labels=64 must lie in 1\.\.32"):
        tune("normal", backbone, 64, config, scenes)
