"""Checkpointing, compilation and sharding change where and how a step is computed, and nothing else."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parents[1] / "pretrain"))  # shards made by code

import shard_files

from sapiens2.engine.config import EngineConfig
from sapiens2.engine.parallel import parallelize, plain, set_stream, whole
from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.engine.world import joined
from sapiens2.model.backbone import build_backbone
from sapiens2.model.block import Block
from sapiens2.model.rope import compute_rows
from sapiens2.model.sizes import SIZES, Architecture
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.recipes import micro
from sapiens2.pretrain.source import PretrainSource

STEPS = 2
KINDS: dict[str, dict[str, Any]] = {
    "masked": {},
    "mixed class tokens": {"student_cls_source": "mixed", "mixed_share": 0.5, "centring": "centre"},
    "4K": {"window_tokenizer": True, "image_size": (256, 256), "local_size": (128, 128)},
}


def config(kind: str, **engine: Any) -> PretrainConfig:
    fields = micro().model_dump() | KINDS[kind]
    fields["engine"] |= {"device": "cpu", "threads": 1, "steps": 20, "warmup_steps": 0} | engine
    return PretrainConfig(**fields)


@pytest.fixture(scope="module", autouse=True)
def smaller_tiny_size() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", Architecture(dim=64, layers=2, heads=4))
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return shard_files.shards(tmp_path_factory.mktemp("shards"), 8)


def objective_of(settings: PretrainConfig) -> PretrainObjective:
    """Weights that all count, unlike those of the start, where layer scale hides the blocks."""
    objective, generator = PretrainObjective(settings), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in objective.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return objective


def trained(
    settings: PretrainConfig, files: list[str], parts: int = 1
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Losses of a few steps, and the weights after them."""
    source = PretrainSource(files, settings)
    engine = settings.engine
    with joined(engine) as world:
        objective = parallelize(objective_of(settings), world, engine)
        step = Step(objective, make_optimizer(objective, engine), engine, world, FiniteGate(world.device))
        rows = []
        for number in range(STEPS):
            losses, norm, _ = step(number, [source.batch(number, part, parts) for part in range(parts)])
            rows.append({name: float(value) for name, value in losses.items()} | {"norm": float(norm)})
        assert isinstance(objective, FSDPModule) == (engine.shard == "always")
        assert all(isinstance(p, DTensor) == (engine.shard == "always") for p in objective.parameters())
        return rows, {name: whole(tensor) for name, tensor in objective.state_dict().items()}


@pytest.fixture(scope="module")
def untouched(files: list[str]) -> dict[str, Any]:
    return {kind: trained(config(kind), files) for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("masked", {"checkpointing": "elementwise"}),
        ("masked", {"checkpointing": "selective"}),
        ("4K", {"checkpointing": "full"}),
        ("masked", {"shard": "always", "checkpointing": "selective"}),
        ("mixed class tokens", {"shard": "always"}),
        ("4K", {"shard": "always", "checkpointing": "full"}),
    ],
    ids=str,
)
def test_the_result_is_that_of_the_plain_path(
    kind: str, settings: dict[str, Any], files: list[str], untouched: dict[str, Any]
) -> None:
    rows, weights = trained(config(kind, **settings), files)
    assert rows == untouched[kind][0]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in untouched[kind][1].items())
    assert not dist.is_initialized()


@pytest.mark.parametrize("shard", ["auto", "always"])
def test_micro_batches_change_nothing(shard: str, files: list[str]) -> None:
    """Sinkhorn, the centre and KoLeo see the whole batch however it is cut, in fp32 and under bf16 autocast."""
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 2e-2)):
        settings = config("masked", shard=shard, precision=precision).model_copy(update={"batch": 8, "koleo_group": 2})
        (whole, weights), (cut, pieces) = (trained(settings, files, parts) for parts in (1, 2))
        for ours, reference in zip(cut, whole, strict=True):
            for term in ("loss", "mae", "contrastive", "koleo", "norm"):
                assert ours[term] == pytest.approx(reference[term], rel=tolerance), term
        if precision == "fp32":
            # AdamW's first steps move every weight by the rate, whatever the size of its gradient.
            apart = torch.stack([(weights[n] - pieces[n]).abs().max() for n in weights if "logit" not in n])
            assert apart.median() < 1e-6


class TwoBlocks(nn.Module):
    """An objective of two blocks, for what is too slow to be shown on the real one."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.blocks = nn.ModuleList(Block(32, 4, 2, 64) for _ in range(2))
            self.scale = nn.Parameter(torch.ones(32))

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        x, rows = batch["x"], compute_rows(2, 3, 8, torch.float32, "cpu")
        for block in self.blocks:
            x = block(x, rows)
        return {"loss": (x * self.scale - batch["y"]).square().mean()}

    def after_step(self, step: int) -> None:
        """Nothing to do."""

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr": lr, "weight_decay": weight_decay}]

    @staticmethod
    def batch() -> dict[str, Tensor]:
        x = torch.randn(2, 2, 6, 32, generator=torch.Generator().manual_seed(1))
        return {"x": x[0], "y": x[1]}


class Products(TorchDispatchMode):
    """Counts products of matrices."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), more: Any = None) -> Any:
        self.count += operation in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return operation(*arguments, **(more or {}))


def test_what_is_computed_again() -> None:
    counts = {}
    for checkpointing in ("none", "elementwise", "selective", "full"):
        engine = EngineConfig(device="cpu", checkpointing=checkpointing)
        with joined(engine) as world, Products() as products:
            parallelize(TwoBlocks(), world, engine)(TwoBlocks.batch(), 0)["loss"].backward()
        counts[checkpointing] = products.count
    # Six products a block: one forward and two backward; again: none, the SwiGLU's wide one, all that backward reads.
    assert counts == {"none": 2 * 18, "elementwise": 2 * 18, "selective": 2 * 19, "full": 2 * 23}


def few_steps(**settings: Any) -> tuple[list[float], list[Tensor]]:
    engine = EngineConfig(device="cpu", steps=4, **settings)
    with joined(engine) as world:
        model = parallelize(TwoBlocks(), world, engine)
        step = Step(model, make_optimizer(model, engine), engine, world, FiniteGate(world.device))
        losses = [float(step(number, [TwoBlocks.batch()])[0]["loss"]) for number in range(3)]
        if engine.shard == "always":
            model.blocks[0].unshard()
            wide = torch.bfloat16 if engine.precision == "bf16" else torch.float32
            assert model.blocks[0].ffn.w12.weight.dtype == wide and model.blocks[0].ln1.weight.dtype == torch.float32
            model.blocks[0].reshard()
        return losses, [whole(parameter) for parameter in model.parameters()]


def test_matrices_gathered_in_bfloat16_are_those_that_autocast_would_make() -> None:
    expected, weights = few_steps(precision="bf16")
    losses, sharded = few_steps(precision="bf16", shard="always")
    assert losses == expected and expected != few_steps()[0]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(sharded, weights, strict=True))


def test_a_stream_in_bfloat16_learns_alike(files: list[str]) -> None:
    """Losses of a few steps within what rounding to 8 bits moves; not the same, so that the option does something."""
    wide, narrow = (
        trained(config("masked", precision="bf16", residual=residual), files)[0] for residual in ("fp32", "bf16")
    )
    for ours, reference in zip(narrow, wide, strict=True):
        assert ours != reference
        for term in ("mae", "contrastive", "koleo", "norm"):
            assert ours[term] == pytest.approx(reference[term], rel=0.03), term
    with pytest.raises(ValueError, match="residual='bf16' needs precision='bf16'"):
        EngineConfig(residual="bf16")


def test_a_stream_in_bfloat16_stays_so_through_the_blocks() -> None:
    """Layer scale, norm gains and class token are in fp32, and none widens it; without autocast nothing is narrowed."""
    backbone = build_backbone("tiny")
    images = torch.randn(1, 3, 64, 64)
    dtypes: list[torch.dtype] = []
    for block in backbone.blocks:
        block.register_forward_hook(lambda _, inputs, out: dtypes.extend((inputs[0].dtype, out.dtype)))
    for residual, expected in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        set_stream(backbone, EngineConfig(precision="bf16", residual=residual))
        with torch.autocast("cpu", torch.bfloat16):
            backbone(images)
        assert set(dtypes) == {expected}
        dtypes.clear()
        backbone(images)
        assert set(dtypes) == {torch.float32}
        dtypes.clear()


def test_the_plain_model_comes_back() -> None:
    def build() -> TwoBlocks:
        return TwoBlocks()

    for settings in ({"checkpointing": "full"}, {"shard": "always", "checkpointing": "full", "precision": "bf16"}):
        engine = EngineConfig(device="cpu", **settings)
        with joined(engine) as world:
            model = parallelize(TwoBlocks(), world, engine)
            with torch.no_grad():
                model.scale.mul_(2)
            again = plain(model, world, build)
        assert again is not None and not isinstance(again, FSDPModule)
        assert "forward" not in again.blocks[0].__dict__
        assert torch.equal(again.scale, torch.full((32,), 2.0))
        assert torch.equal(again.blocks[1].ffn.w3.weight, TwoBlocks().blocks[1].ffn.w3.weight)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on the CPU needs a C++ compiler (g++)")
@pytest.mark.timeout(240)
def test_compiled_blocks_agree() -> None:
    expected, weights = few_steps()
    losses, compiled = few_steps(compile=True, shard="always", checkpointing="selective")
    assert losses == pytest.approx(expected, rel=1e-5) and losses[0] > losses[-1]
    for ours, theirs in zip(compiled, weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
