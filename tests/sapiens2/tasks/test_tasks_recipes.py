"""Published settings, and the memory that each mode needs."""

from __future__ import annotations

import pytest
import torch

from sapiens2.tasks.build import build_task
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.memory import by_mode, kept_bytes
from sapiens2.tasks.recipes import PUBLISHED, micro, named_fields, published


def test_every_task_and_size_has_a_recipe_of_both_sources() -> None:
    for size in PUBLISHED:
        for task in TASKS:
            release, paper = published(task, size), published(task, size, "paper")
            assert (release.engine.schedule, paper.engine.schedule) == ("poly", "cosine")
            assert release.engine.warmup_steps == 500 and release.engine.weight_decay == 0.1
            assert paper.losses == paper.head == paper.scale == "paper"
    assert published("pose", "5b").engine.lr == 1e-4 and published("segmentation", "5b").engine.lr == 5e-4
    assert published("pose", "1b").engine.clip_norm == 4 and published("pose", "1b", "paper").engine.clip_norm == 1
    assert (
        published("pointmap", "0.8b").engine.precision == "fp32" and published("pointmap", "0.8b").engine.clip_norm == 2
    )
    assert [published("normal", size).layer_decay for size in ("0.4b", "0.8b", "1b", "5b")] == [0.8, 0.85, 0.9, 0.94]
    with pytest.raises(ValueError, match="tiny"):
        published("pose", "tiny")


def test_a_recipe_by_its_name_gives_settings() -> None:
    fields = named_fields("pose", "1b:paper")
    assert fields["size"] == "1b" and fields["engine.clip_norm"] == 1 and fields["head"] == "paper"
    assert "workers" not in fields  # how it is run is not the recipe's business
    for task, name in (("gaze", "1b"), ("pose", "1b:book"), ("pose", "7b")):
        with pytest.raises(ValueError, match=r"gaze|book|7b"):
            named_fields(task, name)


@pytest.mark.parametrize("task", ["pose", "pointmap"])
def test_activations_on_meta_are_those_that_autograd_keeps(task: str) -> None:
    """The same forward for real, with fused attention, which on the meta device is stood in for."""
    images = torch.randn(1, 3, 256, 192)  # enough tokens for their score matrices to show, were they kept
    real = kept_bytes(build_task(task, "tiny"), images)  # type: ignore[arg-type]
    with torch.device("meta"):
        counted = kept_bytes(build_task(task, "tiny"), images.to("meta"))  # type: ignore[arg-type]
    assert counted == pytest.approx(real, rel=0.02)


def test_modes_need_what_they_train() -> None:
    values = micro("normal").model_dump() | {"image_size": (96, 64)}
    found = by_mode(FinetuneConfig(**values))
    model = build_task("normal", "tiny")
    total, head = (sum(p.numel() for p in m.parameters()) for m in (model, model.decode_head))
    assert found["full"].trained == total and found["frozen"].trained == head
    maps = sum(block.attn.wq.in_features + block.attn.wq.out_features for block in model.backbone.blocks) * 4
    maps += sum(sum(m.weight.shape) for block in model.backbone.blocks for m in (block.ffn.w12, block.ffn.w3))
    assert found["lora"].trained == head + 16 * maps
    assert found["full"].weights == found["frozen"].weights == 4 * total
    assert found["full"].moments == 8 * total and found["full"].gradients == 4 * total
    assert found["frozen"].activations < found["lora"].activations < 1.1 * found["full"].activations
    assert found["frozen"].total < found["lora"].total < found["full"].total
    whole = found["full"]
    assert whole.held(1) == 16 * total and whole.held(4) == 4 * total
    room = whole.held(2) + 3 * whole.activations
    assert whole.largest_batch(room, 2) == 3 and whole.largest_batch(room - 1, 2) == 2
    assert whole.largest_batch(whole.held(1) - 1) == 0
