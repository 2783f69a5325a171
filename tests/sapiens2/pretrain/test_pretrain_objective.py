"""The whole objective at a tiny size: it learns, it resumes, its shortcuts are exact, and it minds its teacher."""

from __future__ import annotations

import contextlib
import copy
import math
from pathlib import Path

import pytest
import shard_files
import torch
from torch import Tensor

from sapiens2.engine.schedule import learning_rate
from sapiens2.engine.term_norms import term_norms
from sapiens2.model.backbone import build_backbone
from sapiens2.model.block import SwiGLU
from sapiens2.model.normalise import normalise
from sapiens2.model.sizes import SIZES, Architecture
from sapiens2.model.weights import load_state, save_weights
from sapiens2.pretrain import losses
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import step_cost
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.photometric import augment
from sapiens2.pretrain.recipes import demo, micro, paper
from sapiens2.pretrain.source import PretrainSource

Batch = dict[str, Tensor]


def changed(config: PretrainConfig, **settings: object) -> PretrainConfig:
    engine = settings.pop("engine", {})
    fields = {**config.model_dump(), **settings}
    fields["engine"] = {**fields["engine"], **engine}  # type: ignore[dict-item]
    return PretrainConfig(**fields)


MICRO = micro()


@pytest.fixture(autouse=True)
def smaller_tiny_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objective takes its backbone from the table of sizes; a narrower row there makes these tests short."""
    monkeypatch.setitem(SIZES, "tiny", Architecture(dim=64, layers=3, heads=2))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return shard_files.shards(tmp_path_factory.mktemp("shards"), 8)


@pytest.fixture
def batch(files: list[str]) -> Batch:
    return PretrainSource(files, MICRO).batch(0, 0, 1)


def randomised(config: PretrainConfig, seed: int = 0) -> PretrainObjective:
    """Student and teacher with different weights that all count."""
    objective = PretrainObjective(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in objective.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return objective


def train(
    objective: PretrainObjective, source: PretrainSource, steps: range, optimizer: torch.optim.Optimizer
) -> list[dict[str, float]]:
    history = []
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, objective.config.engine)
        terms = objective(source.batch(step, 0, 1), step)
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step)
        history.append({name: value.item() for name, value in terms.items()})
    return history


def optimizer_of(objective: PretrainObjective) -> torch.optim.Optimizer:
    engine = objective.config.engine
    return torch.optim.AdamW(objective.param_groups(engine.lr, engine.weight_decay), betas=engine.betas)


def test_all_terms_go_down_on_a_fixed_set(files: list[str]) -> None:
    """Eight pictures, crops that do not change: every term can be learned, and class tokens tell images apart."""
    config = changed(
        MICRO,
        batch=8,
        global_area=(1.0, 1.0),
        local_area=(0.5, 0.5),
        aspect_jitter=(1.0, 1.0),
        flip=0.0,
        prototypes=32,
        engine={"steps": 80, "lr": 3e-3, "warmup_steps": 5},
    )
    objective = PretrainObjective(config)
    history = train(objective, PretrainSource(files, config), range(80), optimizer_of(objective))

    def change(name: str) -> float:
        first, last = ([row[name] for row in part] for part in (history[:5], history[-5:]))
        return sum(last) / 5 - sum(first) / 5

    assert change("loss") < -0.4
    assert change("mae") < -0.12
    assert change("koleo") < -2
    assert history[-1]["contrastive"] < math.log(config.prototypes) - 0.03  # better than any answer without a look
    assert change("mutual_information") > 0.2
    assert change("cls_std") > 0.5
    assert change("rankme") > 2
    assert all(math.isfinite(value) for row in history for value in row.values())


def test_at_the_start_the_losses_are_those_of_chance(batch: Batch) -> None:
    terms = PretrainObjective(changed(MICRO, unit_prototypes=False))(batch, 0)
    assert terms["mae"].item() == pytest.approx(1, abs=0.1)
    assert terms["contrastive"].item() == pytest.approx(math.log(MICRO.prototypes), rel=0.02)
    assert abs(terms["mutual_information"].item()) < 0.01
    weights = MICRO.mae_weight, MICRO.contrastive_weight, MICRO.koleo_weight
    parts = [terms[name].item() for name in ("mae", "contrastive", "koleo")]
    assert terms["loss"].item() == pytest.approx(sum(w * p for w, p in zip(weights, parts)), rel=1e-5)


def test_no_term_drowns_the_others_at_the_start(files: list[str]) -> None:
    """Gradient norms over all that is trained. Tried naively, KoLeo's is 65 times that of the reconstruction at once.

    Contrast is the loudest at first: class tokens start at a scale of 0.02, which the final norm enlarges, and the
    projection head is fresh. The first steps go at a fraction of the rate, and the clip may shrink them.
    """
    config = demo()
    objective, source = PretrainObjective(config), PretrainSource(files, config)
    trained = [p for p in objective.parameters() if p.requires_grad]
    warm = config.engine.warmup_steps

    def norms(step: int) -> dict[str, float]:
        weights = objective.weights(step)
        found = term_norms(objective, trained, lambda b: objective(b, step), [source.batch(0, 0, 1)], weights)
        assert found.keys() == {"grad_norm_mae", "grad_norm_contrastive", "grad_norm_koleo"}
        return {name.removeprefix("grad_norm_"): norm.item() for name, norm in found.items()}

    first = norms(0)
    assert max(first["koleo"], norms(warm)["koleo"]) < 2 * first["mae"]
    assert first["contrastive"] < 6 * config.engine.clip_norm
    train(objective, source, range(2 * warm), optimizer_of(objective))
    quiet, loud, loudest = sorted(norms(2 * warm).values())
    assert loudest < 5 * loud and loudest < 15 * quiet


def reference_terms(objective: PretrainObjective, batch: Batch) -> dict[str, Tensor]:
    """The terms, one view at a time, with whole forward passes of the backbone wherever nothing is hidden."""
    config, student = objective.config, objective.backbone
    globals_, locals_ = batch["globals"], augment(batch["locals"].flatten(0, 1), batch["photometric"].flatten(0, 1))
    locals_ = locals_.unflatten(0, (len(globals_), -1))
    with torch.no_grad():
        answers = [objective.teacher_head(objective.teacher(normalise(globals_[:, v])).cls) for v in range(2)]
    temperature = config.teacher_temperature[0]
    probabilities = torch.stack([((a - objective.centre) / temperature).softmax(-1) for a in answers], 1)
    cls, errors = [], []
    for view in range(2):
        images, kept = normalise(globals_[:, view]), batch["kept"][:, view]
        patches = student.patchify(images)
        for i in range(len(images)):
            rows = student.rope.rows(*config.grid, images.device)
            tokens = student.embed(patches[i : i + 1])[:, kept[i]]
            places = type(rows)(rows.cos[:, kept[i]], rows.sin[:, kept[i]])
            hidden = student.ln1(student.encode(tokens, places)[0])
            cls.append(hidden[:, 0])
            masked = torch.tensor([t for t in range(config.tokens) if t not in kept[i].tolist()])
            prediction = objective.decoder(hidden[:, 0], hidden[:, 9:], kept[i : i + 1], masked[None], config.grid)
            errors.append(losses.reconstruction_loss(prediction[0], patches[i, masked]))
    global_cls = torch.cat(cls).unflatten(0, (2, -1))
    every = [*global_cls, *(student(normalise(locals_[:, v])).cls for v in range(config.local_views))]
    logits = torch.stack([objective.head(c) for c in every], 1)
    return {
        "mae": torch.stack(errors).mean(),
        "contrastive": losses.cross_view_loss(logits, probabilities, config.student_temperature),
        "koleo": torch.stack([losses.koleo_loss(c, config.koleo_group, config.koleo_floor) for c in global_cls]).mean(),
    }


@pytest.mark.parametrize("position", ["sine", "rope"])
@pytest.mark.parametrize("local_size", [(32, 32), (32, 48)], ids=["one batch", "two lengths"])
def test_the_batched_pass_equals_one_view_at_a_time(
    files: list[str], local_size: tuple[int, int], position: str
) -> None:
    """Dropped tokens, crops as one batch, class-only teacher: forward and gradient, fp32."""
    config = changed(MICRO, local_size=local_size, centring="centre", decoder_position=position)
    assert (config.kept == 4) and ((local_size == (32, 32)) == (config.kept * 256 == local_size[0] * local_size[1]))
    batch = PretrainSource(files, config).batch(0, 0, 1)
    objective = randomised(config)
    objective.centre.normal_(generator=torch.Generator().manual_seed(1))
    fast, slow = objective(batch, 0), reference_terms(objective, batch)
    trained = [p for p in objective.parameters() if p.requires_grad]
    for name, term in slow.items():
        assert fast[name].item() == pytest.approx(term.item(), rel=1e-5), name
    weights = objective.weights(0)
    total = torch.stack([weights[name] * term for name, term in slow.items()]).sum()
    ours = torch.cat([g.flatten() for g in torch.autograd.grad(fast["loss"], trained)])
    reference = torch.cat([g.flatten() for g in torch.autograd.grad(total, trained)])
    assert (ours - reference).norm() <= 1e-5 * reference.norm()


def test_all_views_can_be_reconstructed(files: list[str]) -> None:
    config = changed(MICRO, local_size=(32, 64), mae_views="all", contrastive_weight=0, koleo_weight=0)
    batch = PretrainSource(files, config).batch(0, 0, 1)
    kept, locals_ = batch["kept_local"], batch["locals"]
    assert kept.shape == (4, 2, 2) and (config.local_tokens, config.local_masked) == (8, 6)
    without = PretrainSource(files, changed(config, mae_views="globals")).batch(0, 0, 1)
    assert "kept_local" not in without and without["kept"].equal(batch["kept"])  # the other draws are as they were
    objective = randomised(config)
    images = normalise(augment(locals_.flatten(0, 1), batch["photometric"].flatten(0, 1)))
    errors = []
    for image, seen in zip(images, kept.flatten(0, 1)):
        backbone = objective.backbone
        patches = backbone.patchify(image[None])
        rows = backbone.rope.rows(*config.local_grid, image.device).gather(seen[None])
        hidden = backbone.ln1(backbone.encode(backbone.embed(patches[:, seen]), rows)[0])
        masked = torch.tensor([t for t in range(8) if t not in seen.tolist()])
        prediction = objective.decoder(hidden[:, 0], hidden[:, 9:], seen[None], masked[None], config.local_grid)
        errors.append(losses.reconstruction_loss(prediction[0], patches[0, masked]))
    with torch.no_grad():
        student = objective._learn(normalise(batch["globals"].flatten(0, 1)), batch)
        of_globals = objective._completion_loss(
            student.hidden[0], normalise(batch["globals"].flatten(0, 1)), batch["kept"].flatten(0, 1), config.grid
        )
    expected = (2 * of_globals + 2 * torch.stack(errors).mean()) / 4
    assert objective(batch, 0)["mae"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_reconstruction_alone_needs_no_teacher(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = changed(MICRO, contrastive_weight=0, koleo_weight=0, local_views=0, centring="centre")
    assert step_cost(alone).teacher == step_cost(alone).heads == 0 < step_cost(MICRO).teacher
    objective = randomised(alone)
    monkeypatch.setattr(objective.teacher, "forward", None)
    monkeypatch.setattr(objective.teacher, "encode", None)
    terms = objective(batch, 0)
    terms["loss"].backward()
    objective.after_step(0)
    assert {"cls_std", "rankme"} < terms.keys() and "mutual_information" not in terms
    assert torch.isfinite(objective.centre).all()


@pytest.mark.parametrize("changes", [{"qk_norm": False}, {"swiglu": False}, {"layers": 20, "gqa": False}])
def test_the_architecture_can_depart_from_the_table(batch: Batch, changes: dict[str, object]) -> None:
    config = changed(MICRO, changes={"dim": 32, **changes})
    objective = PretrainObjective(config)
    block = objective.backbone.blocks[min(9, len(objective.backbone.blocks) - 1)]
    assert objective.backbone.architecture.dim == 32
    assert isinstance(block.attn.q_norm, torch.nn.RMSNorm) == ("qk_norm" not in changes)
    assert isinstance(block.ffn, SwiGLU) == ("swiglu" not in changes)
    assert block.attn.kv_heads == 2
    weights = sum(p.numel() for p in block.ffn.parameters() if p.ndim == 2)
    assert weights == 12 * 32**2
    objective(batch, 0)["loss"].backward()


def test_the_student_class_token_can_come_from_the_full_view(batch: Batch) -> None:
    objectives = {
        source: randomised(changed(MICRO, student_cls_source=source, mixed_share=0.5))
        for source in ("masked", "full", "mixed")
    }
    images = normalise(batch["globals"].flatten(0, 1))
    cls = {name: objective._learn(images, batch).cls for name, objective in objectives.items()}
    whole = objectives["full"].backbone(images).cls.unflatten(0, (4, 2))
    torch.testing.assert_close(cls["full"][:, :2], whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cls["mixed"][:2], cls["full"][:2])
    torch.testing.assert_close(cls["mixed"][2:], cls["masked"][2:])
    assert not torch.allclose(cls["masked"][:, :2], whole, atol=0.1)
    torch.testing.assert_close(cls["masked"][:, 2:], cls["full"][:, 2:])  # local views are never masked


def test_the_teacher_follows_and_gets_no_gradient(batch: Batch) -> None:
    objective = randomised(MICRO)
    before = {name: p.clone() for name, p in objective.teacher.named_parameters()}
    objective(batch, 0)["loss"].backward()
    assert all(p.grad is None for module in (objective.teacher, objective.teacher_head) for p in module.parameters())
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)
    objective.after_step(0)
    student = dict(objective.backbone.named_parameters())
    for name, p in objective.teacher.named_parameters():
        torch.testing.assert_close(p, before[name] * MICRO.ema + student[name] * (1 - MICRO.ema), rtol=1e-5, atol=1e-6)


def test_the_centre_moves_once_per_step_by_all_its_micro_batches(files: list[str]) -> None:
    config = changed(MICRO, batch=8, centring="centre")
    source, objective = PretrainSource(files, config), randomised(config)
    start = objective.centre.normal_(generator=torch.Generator().manual_seed(0)).clone()
    for part in range(2):
        objective(source.batch(0, part, 2), 0)
    with torch.no_grad():
        images = normalise(source.batch(0, 0, 1)["globals"].flatten(0, 1))
        mean = objective.teacher_head(objective.teacher(images).cls).mean(0)
    objective.after_step(0)
    torch.testing.assert_close(objective.centre, 0.9 * start + 0.1 * mean, rtol=1e-4, atol=1e-5)
    assert objective.logit_count == 0
    objective.eval()
    objective(source.batch(1, 0, 1), 1)
    assert objective.logit_count == 0  # a validation pass leaves no trace


def test_the_centre_of_two_ranks_is_that_of_one(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed(MICRO, batch=8, centring="centre")
    source = PretrainSource(files, config)
    alone, *ranks = (randomised(config) for _ in range(3))
    alone(source.batch(0, 0, 1), 0)
    alone.after_step(0)
    for rank, objective in enumerate(ranks):
        objective(source.batch(0, rank, 2), 0)
    others = {tuple(x.shape): x.clone() for x in (ranks[1].logit_sum, ranks[1].logit_count)}
    monkeypatch.setattr("sapiens2.pretrain.ranks.all_sum", lambda x: x + others[tuple(x.shape)])
    ranks[0].after_step(0)
    torch.testing.assert_close(ranks[0].centre, alone.centre, rtol=1e-5, atol=1e-7)


def test_temperatures_and_ramp_follow_their_schedules(batch: Batch) -> None:
    """The contrastive term at a step is that of a constant temperature of that step's value."""
    rising = randomised(changed(MICRO, teacher_temperature=(0.02, 0.1), teacher_temperature_steps=4))
    for step, temperature in ((0, 0.02), (2, 0.06), (4, 0.1), (9, 0.1)):
        constant = randomised(changed(MICRO, teacher_temperature=(temperature, temperature)))
        found, expected = (o(batch, step)["contrastive"].item() for o in (rising, constant))
        assert found == pytest.approx(expected, rel=1e-5)
    ramped = PretrainObjective(changed(MICRO, engine={"steps": 20, "warmup_steps": 10}))
    assert [ramped.weights(step)["koleo"] / 0.04 for step in (0, 4, 9, 15)] == pytest.approx([0.1, 0.5, 1, 1])


@pytest.mark.parametrize("centring", ["centre", "sinkhorn"])
def test_micro_batches_give_the_gradient_of_the_whole(files: list[str], centring: str) -> None:
    config = changed(MICRO, batch=8, centring=centring, student_cls_source="mixed", mixed_share=0.5)
    source, objective = PretrainSource(files, config), randomised(config)
    trained = [p for p in objective.parameters() if p.requires_grad]
    whole = torch.autograd.grad(objective(source.batch(0, 0, 1), 0)["loss"], trained)
    batches = [source.batch(0, i, 2) for i in range(2)]
    objective.before_step(batches, 0)
    parts = [torch.autograd.grad(objective(part, 0)["loss"], trained) for part in batches]
    for a, b, c in zip(whole, *parts):
        assert (a - (b + c) / 2).norm() <= 1e-4 * a.norm() + 1e-6
    alone = [objective(source.batch(0, i, 2), 0)["contrastive"].item() for i in range(2)]
    ahead = [objective(part, 0)["contrastive"].item() for part in batches]
    assert (alone == pytest.approx(ahead, rel=1e-6)) == (centring == "centre")


def test_prototypes_stay_frozen_at_first(batch: Batch) -> None:
    objective = randomised(changed(MICRO, freeze_prototypes_steps=2))
    for step, moves in ((0, False), (1, False), (2, True)):
        objective.zero_grad()
        objective(batch, step)["loss"].backward()
        assert (objective.head.prototypes.weight.grad is not None) == moves
        assert objective.head.mlp[0].weight.grad is not None


def test_only_matrices_decay() -> None:
    objective = PretrainObjective(changed(MICRO, window_tokenizer=True, image_size=(256, 256), local_size=(128, 128)))
    decayed, others = objective.param_groups(1e-3, 0.05)
    names = {id(p): name for name, p in objective.named_parameters()}
    kinds = {names[id(p)].rpartition(".")[2] for p in others["params"]}
    assert {"cls_token", "storage_tokens", "mask_token", "w_cls", "local_pos_embed", "bias"} <= kinds
    matrices = [names[id(p)] for p in decayed["params"]]
    assert not [
        name for name in matrices if any(part in name for part in ("ln", "norm", "gamma", "bias", "_token", "w_cls"))
    ]
    assert {"projection.weight", "w12.weight", "wq.weight"} <= {".".join(n.split(".")[-2:]) for n in matrices}
    chosen = {id(p) for group in (decayed, others) for p in group["params"]}
    assert chosen == {id(p) for p in objective.parameters() if p.requires_grad}
    assert not any(names[i].startswith("teacher") for i in chosen)


def test_a_run_continues_bit_for_bit_from_its_state(files: list[str]) -> None:
    config = changed(MICRO, centring="centre", engine={"steps": 4, "warmup_steps": 2})
    objective, source = PretrainObjective(config), PretrainSource(files, config)
    optimizer = optimizer_of(objective)
    train(objective, source, range(2), optimizer)
    saved = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    moments = copy.deepcopy(optimizer.state_dict())
    train(objective, source, range(2, 4), optimizer)

    again = PretrainObjective(changed(config, engine={"seed": 9}))
    again.config = config
    again.load_state_dict(saved)
    restarted = optimizer_of(again)
    restarted.load_state_dict(moments)
    train(again, PretrainSource(files, config), range(2, 4), restarted)
    for name, tensor in objective.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert {"centre", "teacher.cls_token", "teacher_head.prototypes.weight", "decoder.mask_token"} <= saved.keys()


def test_what_is_exported_is_the_teachers_backbone(batch: Batch, tmp_path: Path) -> None:
    objective = randomised(MICRO)
    state = objective.export_state()
    backbone = build_backbone("tiny", rope_dtype="bfloat16")
    load_state(backbone, state, where="export")
    assert backbone.rope.dtype == "float32"  # the file says how it was trained
    images = normalise(batch["globals"][:, 0])
    assert torch.equal(backbone(images).cls, objective.teacher(images).cls)
    assert not torch.allclose(backbone(images).cls, objective.backbone(images).cls, atol=0.01)

    save_weights(backbone, tmp_path / "model.safetensors")
    continued = PretrainObjective(MICRO)
    continued.load_backbone(str(tmp_path / "model.safetensors"))
    for model in (continued.backbone, continued.teacher):
        assert torch.equal(model(images).cls, backbone(images).cls)


def test_the_seed_decides_the_initial_weights() -> None:
    one, same, other = (PretrainObjective(changed(MICRO, engine={"seed": s})).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["backbone.cls_token"], other["backbone.cls_token"])
    assert torch.equal(one["backbone.cls_token"], one["teacher.cls_token"])
    assert all(torch.isfinite(tensor).all() for tensor in one.values())


def test_a_4k_model_masks_windows_and_predicts_half_the_size(files: list[str]) -> None:
    config = changed(MICRO, window_tokenizer=True, image_size=(256, 256), local_size=(128, 128))
    objective = PretrainObjective(config)
    batch = PretrainSource(files, config).batch(0, 0, 1)
    assert (config.tokens, config.kept, config.target_patch) == (16, 4, 32)
    images = normalise(batch["globals"][:, 0])
    target = objective.target_patches(images)
    assert target.shape == (4, 16, 3 * 32 * 32)
    corner = images[0, :, :64, :64].unflatten(1, (32, 2)).unflatten(3, (32, 2)).mean((2, 4))
    torch.testing.assert_close(target[0, 0].unflatten(0, (3, 32, 32)), corner, rtol=1e-4, atol=1e-5)
    terms = objective(batch, 0)
    terms["loss"].backward()
    assert terms["mae"].item() == pytest.approx(1, abs=0.1)
    assert objective.backbone.tokenizer is not None and objective.backbone.tokenizer.w_cls.grad is not None


@pytest.mark.parametrize(
    "settings",
    [{"centring": "centre"}, {"centring": "sinkhorn"}, {"student_cls_source": "mixed"}, {"student_cls_source": "full"}],
    ids=lambda settings: " ".join(settings.values()),
)
def test_a_step_neither_leaves_its_device_nor_waits_for_it(
    batch: Batch, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors of the meta device have no values: reading one, or mixing in one from the CPU, is an error. So is one
    made of Python's numbers, which a GPU would have to wait for."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it does not know this device
    objective = PretrainObjective(changed(MICRO, metrics_every=2, **settings)).to("meta")
    moved = {name: tensor.to("meta") for name, tensor in batch.items()}
    objective(moved, 0)  # sends the constants that stay there
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("a tensor is sent from the host"))
    terms = objective(moved, 1)
    terms["loss"].backward()
    objective.after_step(1)
    assert {value.device.type for value in terms.values()} == {"meta"}


def test_each_term_can_be_trained_alone(batch: Batch) -> None:
    off = {"mae_weight": 0.0, "contrastive_weight": 0.0, "koleo_weight": 0.0}
    for name in ("mae", "contrastive", "koleo"):
        objective = randomised(changed(MICRO, **{**off, f"{name}_weight": 1.0}))
        terms = objective(batch, 1)
        assert terms["loss"].item() == pytest.approx(terms[name].item())
        assert {"mae", "contrastive", "koleo"} & terms.keys() == {name}


# Training notes A.2: FLOPs of a step per source image at the paper's sizes, by hand, 1e12.
@pytest.mark.parametrize(
    ("size", "expected"), [("0.1b", 7.57), ("0.4b", 20.74), ("0.8b", 39.57), ("1b", 67.85), ("5b", 222.3)]
)
def test_the_cost_of_the_papers_recipes(size: str, expected: float) -> None:
    config = paper(size)
    assert (config.tokens, config.kept) == (3072, 768)
    assert config.local_size[0] * config.local_size[1] == config.kept * 256
    assert step_cost(config).total / 1e12 == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": (100, 96)}, r"image_size=\(100, 96\) does not divide into tokens of 16 pixels"),
        ({"koleo_group": 1}, "greater than or equal to 2"),
        ({"batch": 6}, "batch=6 does not divide into KoLeo groups of 4"),
        ({"batch": 16, "engine": {"micro_batches": 8}}, "leaves 2 images at a time on all ranks together, no multiple"),
        ({"batch": 6, "koleo_weight": 0, "student_cls_source": "mixed"}, "leaves 6 images at a time"),
        ({"mask_ratio": 0.01}, "mask_ratio=0.01 hides 0 of 16 tokens"),
        ({"mae_weight": 0, "contrastive_weight": 0, "koleo_weight": 0}, "all loss weights are 0"),
        ({"local_area": (0.5, 0.2)}, "local_area=.* is no range"),
        ({"decoder_heads": 3}, "decoder_dim=64 must be a multiple"),
        ({"mae_views": "all", "local_size": (16, 16)}, "hides 1 of the 1 tokens of a local view"),
        ({"decoder_position": "rope", "decoder_heads": 32}, "four channels a head at least where it rotates"),
        ({"changes": {"heads": 5}}, "dim 64 is not divisible by 5 heads"),
        ({"size": "2b"}, "size"),
        ({"colour": 1}, "colour"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_built(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(MICRO, **settings)
