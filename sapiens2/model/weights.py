"""Weights in and out: one safetensors file, loaded strictly.

Our checkpoints, the released ones and the `transformers` port's are told apart by their names. `rope_embed.periods`
carries no information but its dtype: bfloat16 there means that the weights expect bfloat16 rotation. The port's names
have no place for it, so that what we write says it in the header too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sapiens2.model.backbone import Backbone
from sapiens2.model.rope import DTYPES, RopeTables, periods
from sapiens2.model.sizes import SIZES
from sapiens2.model.transformers_heads import from_transformers_task, is_transformers_task
from sapiens2.model.transformers_names import from_transformers, is_transformers

PERIODS = "rope_embed.periods"
ROPE_DTYPE, LICENCE, ABOUT = "rope_dtype", "licence", "sapiens2"  # in a file's header; the last as JSON
METADATA = "__metadata__"
SHOWN = 5
HEADER_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Writes the weights of a backbone, or of a model with one, to a safetensors file with the released names."""
    write_state(named_weights(model), path)


def write_state(
    state: dict[str, Tensor], path: str | Path, *, rope_dtype: str | None = None, licence: str = "", about: str = ""
) -> None:
    """Writes tensors; the header says how the weights rotate (by default as their periods say) and their licence.

    about: JSON of what is to be said of the model beside (see sapiens2.tasks.told).
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    periods = next((tensor for name, tensor in state.items() if name.endswith(PERIODS)), None)
    if rope_dtype is None and periods is not None:
        rope_dtype = str(periods.dtype).removeprefix("torch.")
    told = {ROPE_DTYPE: rope_dtype, LICENCE: licence, ABOUT: about}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, path, metadata={"format": "pt"} | {name: value for name, value in told.items() if value})
    _order_metadata(Path(path))


def _order_metadata(path: Path) -> None:
    """Puts what a header says beside its tensors in order, so that equal weights make equal bytes.

    safetensors writes these entries in an order that is another at each call.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        ordered = {METADATA: dict(sorted(header.pop(METADATA).items()))} | header
        told = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
        file.seek(8)
        file.write(told.ljust(length))


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """What a file holds: parameters and buffers where they are, and per backbone the RoPE periods in their dtype."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    for prefix, backbone in _backbones(model).items():
        state[prefix + PERIODS] = periods(backbone.rope.head_dim, DTYPES[backbone.rope.dtype])
    return state


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Loads a file or an s3:// URI into a model of the same architecture; also into one on the meta device.

    A backbone takes its part of a task checkpoint. Raises ValueError naming the keys that are missing, unexpected or of
    another shape, and FileNotFoundError for a file that is not there.
    """
    load_state(model, read_state(path), where=str(path))


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, local or behind a URI."""
    if "://" in str(path):
        from pyarrow import fs

        store, key = fs.FileSystem.from_uri(str(path))
        with store.open_input_file(key) as stream:
            return load_bytes(stream.read())
    if not Path(path).is_file():
        raise FileNotFoundError(f"there are no weights at {path}; give the path of a .safetensors file")
    return load_file(path)


def check_weights(model: nn.Module, path: str | Path) -> None:
    """What `load_weights` checks of names and shapes, from the file's header alone; a model on the meta device will do.

    Raises ValueError and FileNotFoundError as it does.
    """
    fitted(model, read_header(path), where=str(path))


def read_header(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or URI on the meta device: names, shapes and dtypes without the bytes.

    Raises ValueError for a file of another kind, FileNotFoundError.
    """
    try:
        return {
            name: torch.empty(entry["shape"], dtype=HEADER_DTYPES[entry["dtype"]], device="meta")
            for name, entry in _header(path).items()
            if name != METADATA
        }
    except (KeyError, TypeError) as error:
        raise _no_safetensors(path) from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """What the header of a safetensors file or URI says beside its tensors; raises as `read_header`."""
    return {str(name): str(value) for name, value in (_header(path).get(METADATA) or {}).items()}


def _header(path: str | Path) -> dict[str, Any]:
    from pyarrow import fs

    uri = "://" in str(path)
    if not uri and not Path(path).is_file():
        raise FileNotFoundError(f"there are no weights at {path}; give the path of a .safetensors file")
    store, key = fs.FileSystem.from_uri(str(path)) if uri else (fs.LocalFileSystem(), str(path))
    with store.open_input_file(key) as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= stream.size() else b""
    try:
        told = json.loads(header)
    except ValueError as error:
        raise _no_safetensors(path) from error
    if not isinstance(told, dict):
        raise _no_safetensors(path)
    return told


def _no_safetensors(path: str | Path) -> ValueError:
    return ValueError(f"{path} does not hold safetensors: its header cannot be read; download or export it again")


def load_state(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Loads a state dict strictly; `where` names its source in errors."""
    state, dtypes = fitted(model, state, where)
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    expected = model.state_dict()
    state = {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=on_meta)
    for prefix, backbone in _backbones(model).items():
        _set_rope_dtype(backbone, dtypes[prefix], where)


def fitted(
    model: nn.Module, state: dict[str, Tensor], where: str
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """A state dict under the model's own names, and per backbone the RoPE periods if it has them.

    Raises ValueError unless names and shapes are exactly the model's.
    """
    if is_transformers(state):
        state = from_transformers(state)
    elif is_transformers_task(state):
        last = getattr(getattr(model, "decode_head", None), "last", "predictor")
        state = from_transformers_task(state, last)
    if isinstance(model, Backbone) and any(name.startswith("backbone.") for name in state):
        state = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    state = dict(state)
    dtypes = {prefix: state.pop(prefix + PERIODS, None) for prefix in _backbones(model)}
    _check(model, state, where)
    return state, dtypes


def _backbones(model: nn.Module) -> dict[str, Backbone]:
    """Every backbone inside a model, by the prefix of its keys."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, Backbone)}
    return {f"{name}." if name else "": module for name, module in found.items()}


def _set_rope_dtype(backbone: Backbone, saved: Tensor | None, where: str) -> None:
    """Rotation as the file demands; a file without periods leaves what the model was built with."""
    if saved is None:
        return
    dtype = "bfloat16" if saved.dtype == torch.bfloat16 else "float32"
    head_dim = backbone.architecture.head_dim
    if saved.shape != (head_dim // 4,) or not torch.allclose(saved, periods(head_dim, saved.dtype), rtol=0.01):
        raise ValueError(f"{where}: its RoPE periods are not those of base 100 over {head_dim} channels per head")
    backbone.rope = RopeTables(head_dim, dtype)


def _check(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Raises ValueError unless names and shapes are exactly the model's."""
    expected = model.state_dict()
    problems = [
        ("missing from the file", sorted(set(expected) - set(state))),
        ("unexpected in the file", sorted(set(state) - set(expected))),
        (
            "of another shape",
            [
                f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
                for name in sorted(set(expected) & set(state))
                if state[name].shape != expected[name].shape
            ],
        ),
    ]
    found = [f"{_some(names)} {what}" for what, names in problems if names]
    if found:
        raise ValueError(f"{where} does not fit this model{_guess(state)}: " + "; ".join(found))


def _some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _guess(state: dict[str, Tensor]) -> str:
    """Which size the file seems to hold, to help whoever chose the wrong one."""
    token = state.get("cls_token", state.get("backbone.cls_token"))
    if token is None:
        return ""
    kernel = state.get("patch_embed.projection.weight", state.get("backbone.patch_embed.projection.weight"))
    patch = kernel.shape[-1] if kernel is not None else None
    sizes = [n for n, arch in SIZES.items() if arch.dim == token.shape[-1] and patch in (None, arch.patch)]
    tokenizer = any("tokenizer." in name for name in state)
    kind = f"size {' or '.join(sizes)}" if sizes else f"width {token.shape[-1]}"
    return f" (the file holds {kind}, {'with' if tokenizer else 'without'} the window tokenizer)"
