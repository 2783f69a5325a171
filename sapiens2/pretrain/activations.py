"""What a step of the objective keeps in memory for its backward pass, counted on the code itself.

The objective's forward runs on fake tensors, which have shapes and no storage, while autograd's own hooks tell what it
would keep. So the count follows the model and the losses wherever they change. Equal blocks keep equally much: of a
long row of them three run, and the one in the middle counts for all between the first and the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from sapiens2.engine.parallel import set_stream
from sapiens2.model.normalise import constant
from sapiens2.model.sizes import Architecture
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.views import sample

ENCODER, DECODER, REST = "encoder", "decoder", "rest"
LATE = 1_000_000  # a step at which nothing is frozen any more


@dataclass(frozen=True)
class Kept:
    """Bytes that wait for the backward pass; all but `casts` are for one image."""

    encoder: float  # inside the blocks of the student
    decoder: float  # inside the blocks of the decoder
    rest: float  # patches, tables, class tokens, logits, losses
    encoder_inputs: float  # what full checkpointing keeps of the encoder's blocks
    decoder_inputs: float
    largest_block: float  # what full checkpointing holds while it computes one block again
    casts: float  # 16-bit copies of the weights, once per forward pass


def kept_for_backward(config: PretrainConfig, device: str = "cuda") -> Kept:
    """The count for a config on a kind of device, without compilation or checkpointing; nothing is allocated."""
    return _kept(config.model_dump_json(), config.architecture, device)


@lru_cache(maxsize=64)
def _kept(fields: str, _: Architecture, device: str) -> Kept:
    """By value: a plan asks for one config again and again."""
    config = PretrainConfig.model_validate_json(fields)
    unit = config.koleo_group
    one, two = (_count(config, unit * times, device) for times in (1, 2))
    image = {name: (two[name] - one[name]) / unit for name in two}
    blocks = {name: value for name, value in image.items() if name.startswith("block ")}
    return Kept(
        encoder=image.get(ENCODER, 0.0),
        decoder=image.get(DECODER, 0.0),
        rest=image[REST],
        encoder_inputs=image.get(f"{ENCODER} inputs", 0.0),
        decoder_inputs=image.get(f"{DECODER} inputs", 0.0),
        largest_block=max(blocks.values(), default=0.0),
        casts=sum(2 * one[name] - two[name] for name in (ENCODER, DECODER, REST)),
    )


def _count(config: PretrainConfig, images: int, device: str) -> Counter[str]:
    """Bytes kept by a forward pass over `images` images, by place; `block I` for single blocks."""
    with torch.device("meta"):
        objective: nn.Module = PretrainObjective(config)
    set_stream(objective, config.engine)
    ledger = _Ledger()
    ledger.watch(objective)
    one = sample(np.zeros((64, 48, 3), np.uint8), config, 0)  # a real one, before tensors are fake
    attention = _FlashMemory() if device == "cuda" else nullcontext()
    with _no_cached_constants(), FakeTensorMode(allow_non_fake_inputs=True):
        objective = objective.to_empty(device=device)
        ledger.ignore(objective)
        batch = _batch(one, images, device)
        hooks = torch.autograd.graph.saved_tensors_hooks(ledger.note, lambda tensor: tensor)
        with attention, _autocast(device, config.engine.precision == "bf16"), hooks:
            objective(batch, LATE)
    return ledger.bytes


@contextmanager
def _no_cached_constants() -> Iterator[None]:
    """Fake constants must not outlive the count: a later step would find them in the cache."""
    constant.cache_clear()
    try:
        yield
    finally:
        constant.cache_clear()


def shorten(blocks: nn.ModuleList) -> tuple[nn.ModuleList, list[int]]:
    """Three blocks for each row of more equal ones, and how many blocks each of those left stands for."""
    kinds = [[(name, p.shape) for name, p in block.named_parameters()] for block in blocks]
    chosen: list[nn.Module] = []
    times: list[int] = []
    for _, found in groupby(range(len(blocks)), key=lambda index: kinds[index]):
        row = list(found)
        if len(row) > 3:
            times += [1, len(row) - 2, 1]
            row = [row[0], row[1], row[-1]]
        else:
            times += [1] * len(row)
        chosen += [blocks[index] for index in row]
    return nn.ModuleList(chosen), times


class _Ledger:
    """Counts each storage once, at the place where it was first kept."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter({REST: 0})
        self._seen: dict[int, Any] = {}  # holds the storages, so that none is freed and its number used again
        self._places: dict[str, int] = {REST: 1}  # and how many blocks the running one stands for there

    def ignore(self, module: nn.Module) -> None:
        """Parameters and buffers are there anyway."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._is_new(tensor)

    def watch(self, objective: nn.Module) -> None:
        """Follow the forward pass into the blocks of student and decoder; cuts their rows, and the teacher's."""
        assert isinstance(objective, PretrainObjective)
        objective.teacher.blocks = objective.teacher.blocks[-1:]  # it keeps nothing
        for part, module in ((ENCODER, objective.backbone), (DECODER, objective.decoder)):
            module.blocks, stands_for = shorten(module.blocks)
            for index, (block, times) in enumerate(zip(module.blocks, stands_for, strict=True)):
                block.register_forward_pre_hook(self._entering({part: times, f"block {part} {index}": 1}, part))
                block.register_forward_hook(self._leaving)

    def _entering(self, places: dict[str, int], part: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if torch.is_grad_enabled():
                self._places = places
                self.bytes[f"{part} inputs"] += places[part] * inputs[0].untyped_storage().nbytes()

        return hook

    def _leaving(self, *_: Any) -> None:
        self._places = {REST: 1}

    def note(self, tensor: Tensor) -> Tensor:
        """Autograd's hook for a tensor that it keeps."""
        if self._is_new(tensor):
            for place, times in self._places.items():
                self.bytes[place] += times * tensor.untyped_storage().nbytes()
        return tensor

    def _is_new(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        known = storage._cdata in self._seen
        self._seen[storage._cdata] = storage
        return not known


class _FlashAttention(torch.autograd.Function):
    """What the fused kernels keep: queries, keys, values, result and one number per query and head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, sums = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise AssertionError("only the forward pass is counted")


class _FlashMemory(TorchFunctionMode):
    """Without a GPU at hand, fake tensors would take the path that keeps whole attention matrices."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _FlashAttention.apply(*args[:3])
        return func(*args, **(kwargs or {}))


@contextmanager
def _autocast(device: str, enabled: bool) -> Iterator[None]:
    """torch.autocast, which switches itself off where there is no GPU, although fake tensors need none."""
    if not enabled:
        yield
        return
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, torch.bfloat16)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.autocast_decrement_nesting()
        torch.set_autocast_enabled(device, False)
        torch.clear_autocast_cache()


def _batch(one: Mapping[str, np.ndarray], images: int, device: str) -> dict[str, Tensor]:
    """A batch as the loader makes it, of fake tensors: the shapes are those of one real sample."""
    kinds = {name: torch.from_numpy(values[:0]).dtype for name, values in one.items()}
    return {name: torch.empty(images, *one[name].shape, dtype=kind, device=device) for name, kind in kinds.items()}
