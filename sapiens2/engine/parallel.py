"""One process or many: who this rank is, how the model is spread, how numbers are brought together.

A single process trains the plain module. From two ranks on the module is sharded by FSDP2, so that parameters,
gradients, optimiser moments and the EMA teacher are DTensors and every rank holds its share.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from sapiens2.engine.config import EngineConfig


@dataclass(frozen=True)
class World:
    """This process among the ranks of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0


def join_world(config: EngineConfig) -> World:
    """Rank, size and device; starts torch.distributed when torchrun's environment asks for more than one rank."""
    device = _device(config)
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    if not dist.is_initialized():
        return World(0, 1, device)
    return World(dist.get_rank(), dist.get_world_size(), device)


def _device(config: EngineConfig) -> torch.device:
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("device='cuda' but torch finds no GPU: set device to 'cpu' or 'auto'")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


@contextmanager
def cpu_threads(config: EngineConfig) -> Iterator[int]:
    """Set the CPU threads of this process for the time of the run; yields their number.

    Sums depend on the number of threads in the last bit, so it is set here and not left to the environment. By itself
    it leaves a core to the thread that prepares batches: OpenMP threads wait for each other by spinning, and one of
    them without a core slows all down (measured on 2 cores: a step of 0.25 s on two threads, 0.44 s on one, but 2 to
    10 s on two beside another busy process).
    """
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    torch.set_num_threads(config.threads or max(1, (cores - 1) // local_ranks))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def parallelize(objective: nn.Module, world: World) -> nn.Module:
    """Move the objective to its device and, from two ranks on, shard it. Returns the same module."""
    objective.to(world.device)
    if world.size > 1:
        fully_shard(objective, mesh=init_device_mesh(world.device.type, (world.size,)))
    return objective


@contextmanager
def unsharded(objective: nn.Module, world: World) -> Iterator[None]:
    """Full parameters on every rank, for work outside the training forward; collective over all ranks."""
    if world.size == 1:
        yield
        return
    assert isinstance(objective, FSDPModule)
    objective.unshard()
    try:
        yield
    finally:
        objective.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on every rank; collective when it is sharded."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def mean_over_ranks(tensor: Tensor, world: World) -> Tensor:
    """Mean of a tensor over all ranks."""
    if world.size == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / world.size


def any_rank(flag: bool, world: World) -> bool:
    """Whether any rank raises the flag, so that all ranks act alike."""
    if world.size == 1:
        return flag
    shared = torch.tensor(float(flag), device=world.device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item())


def gather_objects(item: Any, world: World) -> list[Any]:
    """The items of all ranks, in order of rank, on every rank; also a barrier."""
    if world.size == 1:
        return [item]
    items: list[Any] = [None] * world.size
    dist.all_gather_object(items, item)
    return items


def from_leader(item: Any, world: World) -> Any:
    """What rank 0 passes in, on every rank."""
    return gather_objects(item, world)[0]
