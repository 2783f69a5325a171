"""What is trained: rates by depth, frozen backbones, low-rank corrections, averages; and what is published."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from sapiens2.model.foreign import build_foreign
from sapiens2.model.lora import LoraLinear, add_lora, merged
from sapiens2.tasks import recipes
from sapiens2.tasks.assemble import assemble
from sapiens2.tasks.build import TaskModel, build_task
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.depth import depth_groups, depth_of, layer_of
from sapiens2.tasks.objective import TaskObjective
from sapiens2.tasks.source import TaskSource


def config(task: str = "normal", **changes: Any) -> FinetuneConfig:
    return FinetuneConfig(**{**recipes.micro(task).model_dump(), "cache_scenes": False, **changes})  # type: ignore[arg-type]


def objective(**changes: Any) -> TaskObjective:
    torch.manual_seed(0)
    chosen = config(**changes)
    return TaskObjective(chosen, assemble(chosen))


def trained_step(made: TaskObjective, rate: float = 1e-2, step: int = 0) -> None:
    batch = TaskSource(made.config).batch(step, 0, 1)
    optimizer = torch.optim.AdamW(made.param_groups(rate, 0.0))
    made.before_step([batch], step)
    made(batch, step)["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()
    made.after_step(step)


def test_rates_and_decay_of_the_published_sizes() -> None:
    """Every parameter of a 0.4B model by the rule of the specification, worked out from its name alone."""
    with torch.device("meta"):
        model = build_task("segmentation", "0.4b", window_tokenizer=True)
    groups = depth_groups(model, 1.0, 0.1, 0.8)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        word = name.split(".")
        if word[0] == "decode_head" or word[1] == "ln1":
            layer = 25
        elif word[1] == "blocks":
            layer = int(word[2]) + 1
        else:
            assert word[1] in ("cls_token", "storage_tokens", "patch_embed", "tokenizer"), name
            layer = 0
        spared = parameter.ndim == 1 or name == "backbone.tokenizer.local_pos_embed"
        assert found[id(parameter)] == (pytest.approx(0.8 ** (25 - layer)), 0.0 if spared else 0.1), name
    assert min(rate for rate, _ in found.values()) == pytest.approx(0.0038, abs=5e-5)


def test_layers_are_counted_from_the_embeddings() -> None:
    names = {
        "backbone.cls_token": 0,
        "backbone.tokenizer.blocks.1.ln1.weight": 0,
        "backbone.blocks.3.ln1.weight": 4,
        "backbone.ln1.weight": 7,
        "decode_head.blocks.0.x": 7,
        "backbone.net.patch_embed.proj.weight": 0,
        "backbone.net.blocks.2.attn.qkv.weight": 3,
        "backbone.net.encoder.layer.5.attention.query.weight": 6,
        "backbone.net.embeddings.position_embeddings": 0,
        "backbone.net.norm.weight": 7,
        "backbone.net.norm_pre.weight": 0,
        "backbone.net.vision_model.pre_layrnorm.weight": 0,
        "backbone.net.conv1.weight": 0,
        "backbone.net.layer4.1.conv1.weight": 4,
    }
    assert {name: layer_of(name, 6) for name in names} == names


def test_a_frozen_backbone_stays_and_the_head_moves() -> None:
    made = objective(freeze_backbone=True)
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    trained_step(made)
    moved = {name for name, p in made.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all(name.startswith("decode_head.") for name in moved)


def test_a_backbone_rests_between_its_steps() -> None:
    made = objective(backbone_every=3)
    moved = []
    for step in range(4):
        before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
        trained_step(made, step=step)
        changed = [name for name, p in made.model.named_parameters() if not torch.equal(p, before[name])]
        moved.append({name.split(".")[0] for name in changed})
    both = {"backbone", "decode_head"}
    assert moved == [both, {"decode_head"}, {"decode_head"}, both]


def test_lora_trains_corrections_and_head_and_merges_into_plain_weights() -> None:
    made = objective(lora_rank=4, lora_alpha=8.0)
    plain = objective()
    plain.model.load_state_dict(made.export_state() | {}, strict=False)
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(made.model(images)["normals"], plain.model(images)["normals"])  # B starts at zero
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    for _ in range(2):  # the first step moves only the zero half
        trained_step(made)
    moved = {name for name, p in made.model.named_parameters() if not torch.equal(p, before[name])}
    wanted = {name for name in before if "lora_" in name or name.startswith("decode_head.")}
    assert moved == wanted and sum("lora_" in name for name in moved) == 6 * 6 * 2
    state = made.export_state()
    assert not any("lora" in name for name in state)
    published = build_task("normal", "tiny")
    published.load_state_dict({n: t for n, t in state.items() if n in published.state_dict()}, strict=True)
    with torch.no_grad():
        ours, theirs = made.model(images)["normals"], published(images)["normals"]
        base = copy.deepcopy(made.model)
        for module in base.modules():
            if isinstance(module, LoraLinear):
                module.lora_up.zero_()
        assert not torch.allclose(base(images)["normals"], theirs, rtol=1e-3, atol=1e-4)
    assert ((ours - theirs).norm() / ours.norm()).item() <= 1e-5


def test_lora_finds_the_maps_of_a_foreign_backbone_and_refuses_what_has_none() -> None:
    pytest.importorskip("timm", reason="needs timm")
    assert add_lora(build_foreign("timm:vit_tiny_patch16_224:random"), 2, 4.0) == 12 * 4
    with torch.device("meta"):  # its pooling, which gives no maps, is none of its blocks
        assert add_lora(build_foreign("timm:vit_pe_core_tiny_patch16_384:random"), 2, 4.0) == 12 * 4
    with pytest.raises(ValueError, match="lora_rank=0"):
        add_lora(nn.Sequential(nn.Conv2d(3, 4, 1)), 2, 4.0)
    with pytest.raises(ValueError, match="lora_rank=999"):
        add_lora(build_task("normal", "tiny").backbone, 999, 4.0)


def test_lora_reaches_maps_whose_weight_a_foreign_network_multiplies_by_itself() -> None:
    """timm's EVA gives the weight of its map of queries, keys and values to a product of its own."""
    pytest.importorskip("timm", reason="needs timm")
    torch.manual_seed(0)
    net = build_foreign("timm:eva02_tiny_patch14_224:random").eval()
    images, names = torch.randn(1, 3, 64, 48), [name for name, _ in net.named_parameters()]
    with torch.no_grad():
        plain = net(images).patches
        add_lora(net, 2, 4.0)
        torch.testing.assert_close(net(images).patches, plain)
    assert set(names) < set(net.state_dict())  # files load before and after
    net(images).patches.square().mean().backward()
    ups = {name: p for name, p in net.named_parameters() if name.endswith("lora_up")}
    assert sum(".attn." in name for name in ups) >= 24
    assert not [name for name, p in ups.items() if p.grad is None or not p.grad.any()]
    with torch.no_grad():
        for parameter in ups.values():
            parameter.normal_(std=0.1)
        adapted, state = net(images).patches, merged(net, net.state_dict())
        again = build_foreign("timm:eva02_tiny_patch14_224:random").eval()
        again.load_state_dict(state, strict=True)
        torch.testing.assert_close(again(images).patches, adapted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(adapted, plain, atol=1e-2)


def test_averages_follow_by_the_decay_and_are_published() -> None:
    made = objective(ema=0.75)
    assert all(not p.requires_grad for p in made.averages)
    start = {name: t.clone() for name, t in made.export_state().items()}
    trained_step(made)
    now = made.export_state()
    for name, parameter in made.model.named_parameters():
        torch.testing.assert_close(now[name], 0.75 * start[name] + 0.25 * parameter.detach())
    assert not any("averages" in name for name in now)
    grouped = {id(p) for group in made.param_groups(1.0, 0.1) for p in group["params"]}
    assert not grouped & {id(p) for p in made.averages}


def test_foreign_backbones_are_trained_by_depth() -> None:
    pytest.importorskip("timm", reason="needs timm")
    made = objective(backbone="timm:vit_tiny_patch16_224:random", layer_decay=0.5)
    assert depth_of(made.model) == 12
    rates = {p: group["lr"] for group in made.param_groups(1.0, 0.1) for p in group["params"]}
    net: Any = made.model.backbone.net  # type: ignore[union-attr]
    assert rates[net.pos_embed] == 0.5**13 and rates[net.blocks[11].mlp.fc1.weight] == 0.5
    before = net.blocks[0].mlp.fc1.weight.detach().clone()
    trained_step(made)
    assert isinstance(made.model, TaskModel) and not torch.equal(net.blocks[0].mlp.fc1.weight, before)


def test_modes_that_exclude_each_other_are_refused() -> None:
    for changes, message in (
        ({"freeze_backbone": True, "lora_rank": 4}, "choose one"),
        (
            {"backbone": "timm:vit_tiny_patch16_224:random", "window_tokenizer": True, "image_size": (64, 64)},
            "window_tokenizer=false",
        ),
        ({"window_tokenizer": True, "image_size": (64, 48)}, "multiples of 64"),
        ({"backbone": "timm:vit_tiny_patch16_224:/nowhere"}, "no file"),
        ({"ema": 1.0}, "less than 1"),
    ):
        with pytest.raises(ValueError, match=message):
            config(**changes)
