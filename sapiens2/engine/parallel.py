"""How a model is run: activation checkpointing, compilation and sharding, applied here and nowhere else.

The model knows nothing of it. All three work on its transformer blocks, in this order: a block is told what to compute
again in the backward pass, then compiled as a whole, then sharded, so that FSDP2's hooks stay outside of the compiled
code. Parameters, gradients, moments and the EMA teacher of a sharded model are DTensors; every rank holds its share.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from sapiens2.engine.config import EngineConfig
from sapiens2.engine.world import World
from sapiens2.model.backbone import Backbone
from sapiens2.model.block import Block, Norm
from sapiens2.model.tokenizer import WindowTokenizer

Module = TypeVar("Module", bound=nn.Module)

_aten = torch.ops.aten
_ATTENTION = {
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
}
_PRODUCTS = {_aten.mm.default, _aten.addmm.default}
_RECOMPILE_LIMIT = 64  # a block has a variant per role: student, teacher, class token only, decoder, sizes of views


def parallelize(objective: Module, world: World, config: EngineConfig) -> Module:
    """Move the objective to its device and apply what `config` asks for; returns the same module.

    Blocks are all modules of class `sapiens2.model.block.Block`. Those of the window tokenizer run once per chunk of
    windows and are already computed again in backward by the tokenizer itself: it is not checkpointed further, and is
    sharded as one piece.
    """
    objective.to(world.device)
    set_stream(objective, config)
    if config.checkpointing != "none":
        for block in _outermost(objective, Block, inside=False):
            block.forward = partial(_recomputed, block.forward, config.checkpointing)  # type: ignore[method-assign]
    if config.compile:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILE_LIMIT)
        for block in _outermost(objective, Block, inside=True):
            block.forward = torch.compile(block.forward, fullgraph=True, dynamic=False)  # type: ignore[method-assign]
    if world.size > 1 or config.shard == "always":
        _shard(objective, world, config)
    return objective


def set_stream(objective: nn.Module, config: EngineConfig) -> None:
    """Tell backbones and blocks in which dtype their residual streams run.

    In bfloat16 a block keeps a quarter less for its backward pass, but class tokens start less far apart than it
    resolves (layer scale 1e-4): a run from scratch keeps fp32; weights that were trained before have no such start.
    """
    for module in objective.modules():
        if isinstance(module, Backbone | Norm):
            module.narrow = config.residual == "bf16"


def _outermost(objective: nn.Module, kind: type[Module], *, inside: bool) -> Iterator[Module]:
    """Modules of a kind; those within a window tokenizer only if `inside`."""
    hidden = {id(m) for t in objective.modules() if isinstance(t, WindowTokenizer) for m in t.modules() if m is not t}
    return (m for m in objective.modules() if isinstance(m, kind) and (inside or id(m) not in hidden))


def _recomputed(forward: Callable[..., Tensor], what: str, *inputs: Any, **options: Any) -> Tensor:
    """A block's forward that keeps its inputs, or a selection of its products, and computes the rest again."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    if what in _POLICIES:
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _POLICIES[what])
    kept: Tensor = checkpoint(forward, *inputs, use_reentrant=False, **options)
    return kept


def _keep_products(context: Any, operation: Any, *arguments: Any, **more: Any) -> CheckpointPolicy:
    """Keep attention and every product of matrices; compute norms, rotations and gates again: no arithmetic to speak
    of, for 30 D to 32 D bytes a token in bfloat16."""
    if operation in _ATTENTION or operation in _PRODUCTS:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _keep_narrow(context: Any, operation: Any, *arguments: Any, **more: Any) -> CheckpointPolicy:
    """Keep attention and the narrow products; compute norms, rotations, gates and the SwiGLU's wide product again.

    Of 12 D^2 multiply-accumulates a token and block, 5.3 are computed twice (0.15 of the step), for about 14 D bytes a
    token in bfloat16 instead of 30 D to 46 D. "full" keeps 2 D and computes all of it twice.
    """
    if operation in _ATTENTION:
        return CheckpointPolicy.MUST_SAVE
    if operation in _PRODUCTS:
        rows_by_columns = arguments[-1].shape  # [in, out]
        if rows_by_columns[1] <= rows_by_columns[0]:
            return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


_POLICIES = {"elementwise": _keep_products, "selective": _keep_narrow}


def _shard(objective: nn.Module, world: World, config: EngineConfig) -> None:
    """FSDP2 per block and, for all that is left, at the root.

    In bf16 the matrices of blocks are gathered in bfloat16, half the traffic; gradients are summed in fp32. Autocast
    stays on as without sharding, where it would cast the same matrices: it keeps the residual stream in fp32, in whose
    last bits the class tokens differ at first. Norms, gains and what lies at the root stay in fp32 as well: the head
    and the final norm compute in it.
    """
    mesh = init_device_mesh(world.device.type, (world.size,))
    whole = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    inner = whole
    if config.precision == "bf16":
        inner = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,  # it would round the rotary table and the residual stream
            param_dtype_override_fn=lambda parameter: torch.float32 if parameter.ndim < 2 else None,
        )
    for unit in [*_outermost(objective, WindowTokenizer, inside=True), *_outermost(objective, Block, inside=False)]:
        fully_shard(unit, mesh=mesh, mp_policy=inner)
    fully_shard(objective, mesh=mesh, mp_policy=whole)
    # The tokenizer returns a view of its tokens, which nobody changes in place.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on every rank; collective when it is sharded."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def plain(objective: Module, world: World, build: Callable[[], Module]) -> Module | None:
    """The trained objective as it was before `parallelize`, on the leading rank; None elsewhere. Collective.

    What was only checkpointed or compiled is undone in place. What was sharded is gathered, a tensor at a time, into
    the new one that `build` returns.
    """
    if not isinstance(objective, FSDPModule):
        for block in _outermost(objective, Block, inside=True):
            block.__dict__.pop("forward", None)
        return objective
    state = {}
    for name, tensor in objective.state_dict().items():
        full = whole(tensor)
        if world.leads:
            state[name] = full.cpu()
    if not world.leads:
        return None
    fresh = build()
    fresh.load_state_dict(state)
    return fresh.to(world.device)
