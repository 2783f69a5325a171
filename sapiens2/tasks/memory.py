"""What fine-tuning needs in memory, before anything is allocated: from the modules on the meta device.

Weights, gradients and optimiser moments are counted; activations are the tensors that autograd keeps for the backward
pass, found by running the forward on the meta device. Left out: workspace of kernels, the allocator's slack, batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sapiens2.tasks.assemble import assemble_on_meta
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.objective import TaskObjective

Mode = Literal["full", "frozen", "lora"]
LORA_RANK = 16
FP32, MOMENTS = 4, 8
GB = 1e9


@dataclass(frozen=True)
class Memory:
    """Bytes of one fine-tuning on one GPU."""

    trained: int  # parameters, not bytes
    weights: int
    gradients: int
    moments: int
    activations: int  # of one picture
    batch: int = 1

    @property
    def total(self) -> int:
        """All of it, for a batch."""
        return self.held(1) + self.batch * self.activations

    def held(self, gpus: int) -> int:
        """Bytes on one of `gpus` whatever the batch: weights, gradients and moments are shared among them."""
        return -(-(self.weights + self.gradients + self.moments) // gpus)

    def largest_batch(self, room: int, gpus: int = 1) -> int:
        """The most pictures at a time on each of `gpus` with `room` bytes; 0 where not even one fits."""
        return max(0, (room - self.held(gpus)) // self.activations)


def finetune_memory(config: FinetuneConfig, batch: int = 1) -> Memory:
    """Memory of a configuration with `batch` pictures on the GPU; nothing is allocated.

    Weights, gradients and moments are fp32 (the engine's masters); in bf16 activations are counted at that width.
    """
    model = assemble_on_meta(config)
    with torch.device("meta"):
        objective = TaskObjective(config, model)
    held = sum(p.numel() for p in objective.parameters())
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    dtype = torch.bfloat16 if config.engine.precision == "bf16" else torch.float32
    images = torch.empty(1, 3, *config.image_size, device="meta", dtype=dtype)
    kept = kept_bytes(objective.model.to(dtype), images)
    return Memory(trained, FP32 * held, FP32 * trained, MOMENTS * trained, kept, batch)


class _Fused(torch.autograd.Function):
    """Attention that keeps what fused kernels keep: queries, keys, values, the answer and one sum per query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError("memory is counted from the forward pass alone")


class _FusedAttention(TorchFunctionMode):
    """The meta device knows only the plain path, whose score matrices no real training keeps."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention and args[0].is_meta:
            return _Fused.apply(*args[:3])
        return func(*args, **(kwargs or {}))


def kept_bytes(model: TaskModel | nn.Module, images: Tensor) -> int:
    """Bytes that autograd keeps of a forward pass beside the parameters, each storage once."""
    parameters = {_storage(p) for p in model.parameters()} | {_storage(b) for b in model.buffers()}
    seen: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage's number is given to another

    def keep(tensor: Tensor) -> Tensor:
        number = _storage(tensor)
        if number not in parameters:
            seen[number] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with _FusedAttention(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(images)
    del out
    return sum(seen.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def by_mode(config: FinetuneConfig, rank: int = LORA_RANK) -> dict[Mode, Memory]:
    """Memory of a configuration trained whole, with a frozen backbone, and with corrections of a rank."""
    modes: dict[Mode, dict[str, Any]] = {"full": {}, "frozen": {"freeze_backbone": True}, "lora": {"lora_rank": rank}}
    plain: dict[str, Any] = {"freeze_backbone": False, "lora_rank": 0}
    return {mode: finetune_memory(config.model_copy(update=plain | changes)) for mode, changes in modes.items()}
