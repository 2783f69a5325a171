"""Muon beside PyTorch's own, beside the singular value decomposition, and under what training does to an optimiser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from toy_run import ToyObjective, ToySource, toy_config

from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.engine.loop import train
from sapiens2.engine.muon import Muon, balanced, is_hidden, split
from sapiens2.engine.step import make_optimizer
from sapiens2.pretrain import recipes as pretrain_recipes
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.tasks.build import build_task


@pytest.mark.parametrize("shape", [(32, 32), (24, 160)])
def test_directions_stay_and_become_equally_long(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    lengths = torch.logspace(0, -1.5, shape[0], dtype=torch.float64)
    found = u.mT @ balanced((u * lengths @ v)[None])[0] @ v.mT
    assert torch.allclose(found, torch.diag(found.diagonal()), atol=1e-6)
    assert found.diagonal().min() > 0.65 and found.diagonal().max() < 1.21


def test_a_matrix_of_nothing_stays_so() -> None:
    assert not balanced(torch.zeros(2, 24, 30)).any()


def _matrices() -> tuple[nn.Module, dict[nn.Parameter, str]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 32, bias=False), nn.Linear(32, 96, bias=False), nn.Conv2d(32, 24, 3))
    return model, {parameter: name for name, parameter in model.named_parameters()}


def test_matrices_move_as_with_pytorchs_muon() -> None:
    """Theirs computes in bfloat16: to three digits; a convolution moves as the matrix of its rows."""
    _, names = _matrices()
    flat = {n: nn.Parameter(p.detach().flatten(1).clone()) for p, n in names.items() if p.ndim > 1}
    ours = Muon(split([{"params": list(names)}], names), lr=1e-2, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    theirs = torch.optim.Muon(flat.values(), lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    start = {name: parameter.detach().clone() for name, parameter in flat.items()}
    for _ in range(4):
        for parameter, name in names.items():
            parameter.grad = torch.randn_like(parameter)
            if name in flat:
                flat[name].grad = parameter.grad.flatten(1).clone()
        ours.step()
        theirs.step()
    for parameter, name in names.items():
        if name in flat:
            moved, expected = parameter.flatten(1) - start[name], flat[name] - start[name]
            assert (moved - expected).norm() < 0.02 * expected.norm()


def test_what_is_no_hidden_matrix_moves_as_with_adamw() -> None:
    model, names = _matrices()
    bias = model[2].bias
    assert isinstance(bias, nn.Parameter)
    twin = nn.Parameter(bias.detach().clone())
    ours = Muon(split([{"params": list(names)}], names), lr=1e-2, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    adamw = torch.optim.AdamW([twin], lr=1e-2, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    for _ in range(3):
        bias.grad = torch.randn_like(bias)
        twin.grad = bias.grad.clone()
        ours.step()
        adamw.step()
    assert torch.equal(bias, twin)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    _, names = _matrices()
    optimizer = Muon(split([{"params": list(names)}], names), lr=1e-2, betas=(0.9, 0.95), fused=True)
    for bad in (False, True):
        for parameter in names:
            parameter.grad = torch.full_like(parameter, float("nan")) if bad else torch.randn_like(parameter)
        before = {name: parameter.detach().clone() for parameter, name in names.items()}
        moments = {names[p]: optimizer.state[p]["momentum"].clone() for p in names if p.ndim > 1 and bad}
        optimizer.found_inf = torch.tensor(float(bad))
        optimizer.step()
        for parameter, name in names.items():
            assert torch.equal(parameter, before[name]) == bad
            assert name not in moments or torch.equal(optimizer.state[parameter]["momentum"], moments[name])


def test_which_matrices_are_hidden() -> None:
    with torch.device("meta"):
        tiny, large = build_task("segmentation", "tiny"), build_task("pose", "0.4b")
    hidden = {name for model in (tiny, large) for name, p in model.named_parameters() if is_hidden(name, p)}
    for name in ("blocks.0.attn.wq", "blocks.5.ffn.w12", "blocks.5.ffn.w3"):
        assert f"backbone.{name}.weight" in hidden, name
    for name in ("mix8.0", "deconv_layers.0", "conv_layers.3"):
        assert f"decode_head.{name}.weight" in hidden, name
    edges = ("patch_embed", "token", "conv_out", "conv_pose", "stem2", "bias", "norm", "ln1")
    assert not [name for name in hidden if any(edge in name for edge in edges)]


def test_pretraining_keeps_what_reads_and_answers_with_adamw() -> None:
    objective = PretrainObjective(pretrain_recipes.micro())
    hidden = {name for name, p in objective.named_parameters() if is_hidden(name, p)}
    assert any("decoder.blocks" in name for name in hidden) and any("mlp" in name for name in hidden)
    assert not [name for name in hidden if any(edge in name for edge in ("predict", "prototypes", "token", "embed"))]


@pytest.mark.parametrize("shard", ["auto", "always"])
def test_it_goes_on_where_it_was_stopped(tmp_path: Path, shard: str) -> None:
    def run(folder: str, stop_after: int = 0):  # type: ignore[no-untyped-def]
        done = iter(range(1, 1000))
        control = Control(stop=lambda: next(done) == stop_after)
        places = {name: str(tmp_path / folder / name) for name in ("out", "state")}
        config = toy_config(optimizer="muon", shard=shard)
        return train(ToyObjective(), ToySource(poisoned=(7,)), config, **places, control=control)

    whole = run("whole")
    with pytest.raises(Interrupted):
        run("parts", stop_after=10)
    resumed = run("parts")
    assert (resumed.resumed_from, resumed.skipped) == (10, 1)
    assert resumed.digest == whole.digest


def test_rates_follow_the_groups() -> None:
    optimizer = make_optimizer(ToyObjective(), toy_config(optimizer="muon"))
    found = [(len(g["params"]), g["muon"], g["ratio"], g["weight_decay"] > 0) for g in optimizer.param_groups]
    assert found == [(1, True, 1.0, True), (2, False, 1.0, True), (3, False, 0.5, False)]
