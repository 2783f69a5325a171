"""One process or many: who this rank is, where it computes, how numbers are brought together."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sapiens2.engine.config import EngineConfig


@dataclass(frozen=True)
class World:
    """This process among the ranks of the run. `group` is who talks to whom; None is torch's default group."""

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0


@contextmanager
def joined(config: EngineConfig) -> Iterator[World]:
    """This process's place for the length of the block; blocks may nest.

    Joins torch.distributed when torchrun's environment asks for more than one rank, until the process ends: ranks
    that part and meet again may miss each other. For `shard="always"` one process joins alone, until the outermost
    block ends. A group that is there already (Ray Train's) is used and left alone.
    """
    device = _device(config)
    ours = not dist.is_initialized() and _joins_alone(config, device)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device) if dist.is_initialized() else World(0, 1, device)
    finally:
        if ours:
            dist.destroy_process_group()


def _joins_alone(config: EngineConfig, device: torch.device) -> bool:
    """Start the group that the settings ask for, if any; whether it is one of this process alone."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group(backend)
        atexit.register(dist.destroy_process_group)
        return False
    if config.shard != "always":
        return False
    # It meets nobody: its store is memory, and gloo listens on the loopback device only.
    with _gloo_on_loopback():
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return True


@contextmanager
def _gloo_on_loopback() -> Iterator[None]:
    name = "GLOO_SOCKET_IFNAME"
    if name in os.environ or not Path("/sys/class/net/lo").is_dir():
        yield
        return
    os.environ[name] = "lo"
    try:
        yield
    finally:
        del os.environ[name]


@contextmanager
def background(world: World) -> Iterator[World]:
    """The same ranks over a group of their own on the CPU, for a thread beside the training; collective."""
    if world.size == 1:
        yield world
        return
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)  # every rank is in it
    try:
        yield replace(world, device=torch.device("cpu"), group=group)
    finally:
        dist.destroy_process_group(group)


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


def mean_over_ranks(tensor: Tensor, world: World) -> Tensor:
    """Mean of a tensor over all ranks."""
    if world.size == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total, group=world.group)
    return total / world.size


def any_rank(flag: bool, world: World) -> bool:
    """Whether any rank raises the flag, so that all ranks act alike."""
    if world.size == 1:
        return flag
    shared = torch.tensor(float(flag), device=world.device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=world.group)
    return bool(shared.item())


def gather_objects(item: Any, world: World) -> list[Any]:
    """The items of all ranks, in order of rank, on every rank; also a barrier."""
    if world.size == 1:
        return [item]
    items: list[Any] = [None] * world.size
    dist.all_gather_object(items, item, group=world.group)
    return items


def from_leader(item: Any, world: World) -> Any:
    """What rank 0 passes in, on every rank."""
    return gather_objects(item, world)[0]
