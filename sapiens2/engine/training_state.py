"""Everything a run must remember, as one flat dict of tensors, and the digest that says when two runs are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sapiens2.engine.parallel import whole

MODEL = "model."
OPTIMIZER = "optimizer."


def collect(objective: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Parameters and buffers (teacher and centre included) and the moments, by name; the tensors are not copied."""
    state = {MODEL + name: tensor for name, tensor in objective.state_dict().items()}
    for name, parameter in objective.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            state[f"{OPTIMIZER}{name}.{slot}"] = value
    strangers = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(f"the state must be tensors only, but {strangers[0]} is not: keep such values in a buffer")
    return state


def prepare(objective: nn.Module, optimizer: Optimizer, saved: Iterable[str]) -> dict[str, Tensor]:
    """The tensors that a saved state with the names `saved` is read into, in place.

    Moments that a fresh optimiser does not hold yet are made here: one tensor like its parameter per slot, except the
    step count, which is a scalar.
    """
    parameters = dict(objective.named_parameters())
    for full_name in saved:
        if not full_name.startswith(OPTIMIZER):
            continue
        name, _, slot = full_name.removeprefix(OPTIMIZER).rpartition(".")
        if name in parameters:
            optimizer.state[parameters[name]][slot] = _empty_slot(parameters[name], slot)
    return collect(objective, optimizer)


def _empty_slot(parameter: Tensor, slot: str) -> Tensor:
    if slot == "step":
        return torch.zeros((), dtype=torch.float32, device=parameter.device)
    return torch.zeros_like(parameter.detach())


def digest(state: dict[str, Tensor]) -> str:
    """sha256 over the sorted names, each with dtype, shape and raw bytes, on every rank; collective when sharded."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = whole(state[name]).to("cpu").contiguous()
        header = f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{tuple(tensor.shape)}\0"
        total.update(header.encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
