"""Saves the state of a run beside its training: the step waits for a copy in memory, the files are written after it.

Of a GPU's state the copy goes to pinned memory, which is kept for the next one. At most one state is on its way.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from sapiens2.engine import checkpoint
from sapiens2.engine.world import World, background


class Saver:
    """Context manager; leaving it waits for what is on its way. All its methods are to be called by all ranks.

    `saved_at` is the step of the newest state that is complete. With `beside` False each save is finished before
    `save` returns.
    """

    def __init__(self, root: str, world: World, *, keep: int, beside: bool, saved_at: int = 0) -> None:
        self.root, self.keep, self.saved_at = root, keep, saved_at
        self._world, self._beside = world, beside
        self._open = ExitStack()
        self._pending: Future[None] | None = None

    def __enter__(self) -> Saver:
        if self._beside:
            # Ranks agree about a save while they agree about gradients: each talk has a group of its own.
            self._world = self._open.enter_context(background(self._world))
            self._memory = _Memory(self._world)
            self._thread = self._open.enter_context(ThreadPoolExecutor(1, thread_name_prefix="saver"))
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._open:
            if kind is None:
                self.wait()

    def save(self, tensors: dict[str, Tensor], note: dict[str, Any], step: int) -> None:
        """Save the state after `step` steps. Raises what the save before this one failed with."""
        self.wait()
        if self._beside:
            self._pending = self._thread.submit(self._write, self._memory.copy(tensors), note, step)
        else:
            self._write(tensors, note, step)

    def wait(self) -> None:
        """Return when nothing is on its way; raises what the last save failed with."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def look(self) -> None:
        """Raise what the last save failed with, if it has; does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def _write(self, tensors: dict[str, Tensor], note: dict[str, Any], step: int) -> None:
        checkpoint.save(tensors, note, root=self.root, step=step, world=self._world)
        self.saved_at = step
        if self._world.leads:
            checkpoint.retain(self.root, self.keep)


class _Memory:
    """Host copies of a state's tensors, made once and filled again at each save."""

    def __init__(self, world: World) -> None:
        self._copies: dict[str, Tensor] = {}
        self._mesh: DeviceMesh | None = None
        if dist.is_initialized():
            group = world.group or dist.group.WORLD
            assert group is not None
            self._mesh = DeviceMesh.from_group(group, "cpu")

    @torch.no_grad()
    def copy(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors in host memory; those of the copy before are overwritten."""
        copied = {name: self._one(name, tensor.detach()) for name, tensor in tensors.items()}
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.current_stream().synchronize()
        return copied

    def _one(self, name: str, tensor: Tensor) -> Tensor:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        held = self._copies.get(name)
        if held is None or held.shape != local.shape:
            held = torch.empty(local.shape, dtype=local.dtype, pin_memory=local.is_cuda)
            self._copies[name] = held
        held.copy_(local, non_blocking=True)
        if not isinstance(tensor, DTensor):
            return held
        assert self._mesh is not None
        # Shape and stride are told: from uneven shares DTensor would compute a wrong whole.
        return DTensor.from_local(
            held, self._mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
        )
