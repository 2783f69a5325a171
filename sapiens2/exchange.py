"""Weights that others made or will read: recognised, strictly checked, renamed.

Three layouts are known: the released names, which are ours too; task checkpoints, with `backbone.` and `decode_head.`
in front; and the `transformers` port's names, of a backbone or of the backbone inside one of its task models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sapiens2.model.backbone import build_backbone
from sapiens2.model.rope import DTYPES, periods
from sapiens2.model.sizes import SIZES
from sapiens2.model.transformers_names import from_transformers, is_transformers, to_transformers
from sapiens2.model.weights import LICENCE, PERIODS, ROPE_DTYPE, fitted, read_header, read_metadata, read_state
from sapiens2.tasks.build import TaskName, build_task
from sapiens2.tasks.told import Told, told

Naming = Literal["released", "transformers"]
BACKBONE, HEAD = "backbone.", "decode_head."
PORT_TOKEN = "embeddings.cls_token"
SAPIENS_LICENCE = "Sapiens2 License (assumed: the file has the released layout)"
UNSTATED = "not stated"


@dataclass(frozen=True)
class Recognised:
    """What a weights file holds, from its header."""

    size: str
    window_tokenizer: bool
    naming: Naming
    has_head: bool  # of a task, beside the backbone
    rope_dtype: str | None  # "bfloat16" in released files; None where the file does not say
    told: Told  # what our own files say beside

    @property
    def text(self) -> str:
        """In words, for a person."""
        kind = "task checkpoint" if self.has_head else "backbone"
        tokenizer = " with the window tokenizer" if self.window_tokenizer else ""
        return f"{kind} of size {self.size}{tokenizer}, {self.naming} names, rotation {self.rope_dtype or 'unstated'}"


def recognise(path: str | Path, size: str | None = None) -> Recognised:
    """Looks at names, shapes and dtypes. Raises ValueError when they are no Sapiens2 weights of a known size.

    `size` spares the guess, so that the strict check can say what is wrong with a damaged file.
    """
    state = read_header(path)
    inner = backbone_part(state)
    token = inner.get("cls_token")
    if token is None:
        some = ", ".join(sorted(state)[:3])
        raise ValueError(f"{path} holds no Sapiens2 backbone: it has no cls_token, but {some} and so on")
    held = inner.get(PERIODS)
    naming: Naming = "transformers" if _port_prefix(state) is not None else "released"
    return Recognised(
        size=size or _guessed(inner, str(path)),
        window_tokenizer=any(name.startswith("tokenizer.") for name in inner),
        naming=naming,
        has_head=len(inner) < len(state) and naming == "released",
        rope_dtype=_rope_dtype(path) if held is None else str(held.dtype).removeprefix("torch."),
        told=told(path),
    )


def _rope_dtype(path: str | Path) -> str | None:
    """What a header says of the rotation; raises ValueError for a dtype that there is not."""
    told = read_metadata(path).get(ROPE_DTYPE)
    if told is not None and told not in DTYPES:
        raise ValueError(f"the header of {path} says {ROPE_DTYPE}={told!r}; known are {', '.join(DTYPES)}")
    return told


def backbone_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone inside a state dict of any known layout, under the released names."""
    prefix = _port_prefix(state)
    if prefix is not None:
        inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        return from_transformers(inside)
    if any(name.startswith(BACKBONE) for name in state):
        return {name.removeprefix(BACKBONE): t for name, t in state.items() if name.startswith(BACKBONE)}
    return state


def _port_prefix(state: dict[str, Tensor]) -> str | None:
    """What stands before the port's names: nothing in a backbone, the backbone's name in a task model."""
    return next((name.removesuffix(PORT_TOKEN) for name in state if name.endswith(PORT_TOKEN)), None)


def _guessed(inner: dict[str, Tensor], where: str) -> str:
    """The row of the table of sizes with this width, depth and patch."""
    width = inner["cls_token"].shape[-1]
    layers = len({name.split(".")[1] for name in inner if name.startswith("blocks.")})
    embed = inner.get("patch_embed.projection.weight")
    patch = embed.shape[-1] if embed is not None else 0
    near = [name for name, arch in SIZES.items() if arch.dim == width and (arch.patch == patch or not patch)]
    for name in near:
        if SIZES[name].layers == layers:
            return name
    if near:
        return near[0]  # the strict check will name the blocks that are missing
    raise ValueError(
        f"{where} holds a backbone {width} wide and {layers} deep with patches of {patch} pixels, which is none of the "
        f"sizes {', '.join(SIZES)}"
    )


def read_checked(path: str | Path, found: Recognised, task: TaskName | None = None) -> dict[str, Tensor]:
    """The tensors of a file under the released names in their own dtypes: of its backbone, or of the whole task model.

    Raises ValueError naming what is missing, unexpected or of another shape.
    """
    state = read_state(path)
    if task is not None and not found.has_head:
        raise ValueError(f"{path} is a backbone without a head: leave --task out")
    chosen = state if task is not None else backbone_part(state)
    with torch.device("meta"):
        windows: dict[str, Any] = {"window_tokenizer": found.window_tokenizer}
        model: nn.Module = (
            build_task(task, found.size, head=found.told.head, scale=found.told.scale, **windows)
            if task is not None
            else build_backbone(found.size, **windows)
        )
    weights, held = fitted(model, chosen, str(path))
    if found.rope_dtype is not None:  # the port's names have no place for it, so it may stand in the header alone
        width, dtype = SIZES[found.size].head_dim, DTYPES[found.rope_dtype]
        held = {prefix: periods(width, dtype) if own is None else own for prefix, own in held.items()}
    return weights | {f"{prefix}{PERIODS}": tensor for prefix, tensor in held.items() if tensor is not None}


def renamed(state: dict[str, Tensor], naming: Naming) -> dict[str, Tensor]:
    """A state dict with released names under the names asked for; raises ValueError for what the port has no name for.

    The port computes its rotation by itself, so the periods stay behind.
    """
    if naming == "released":
        return state
    if any(name.startswith(HEAD) for name in state):
        raise ValueError("heads have no transformers names here: export the backbone, or use the released names")
    return to_transformers(state) if not is_transformers(state) else state


def licence_of(path: str | Path) -> str:
    """What a file says of its licence in its header; else a guess from its layout, which says that it is one."""
    metadata, state = read_metadata(path), read_header(path)
    if stated := metadata.get(LICENCE) or metadata.get("license"):
        return stated
    held = backbone_part(state).get(PERIODS)
    half = held is not None and held.dtype == torch.bfloat16
    return SAPIENS_LICENCE if half or _port_prefix(state) is not None else UNSTATED
