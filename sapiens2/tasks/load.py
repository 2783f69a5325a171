"""A task model from its file: our runs say in config.json what they are, released files by the names inside."""

from __future__ import annotations

import json
from typing import Any, get_args

import torch
from torch import Tensor

from sapiens2.engine import storage
from sapiens2.model.backbone import Backbone, build_backbone
from sapiens2.model.sizes import SIZES, SizeName
from sapiens2.model.weights import load_state, read_state
from sapiens2.tasks.assemble import STRUCTURE, assemble
from sapiens2.tasks.build import TaskModel, build_task
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.head_specs import TASKS, TaskName
from sapiens2.tasks.told import Told, told, told_by

_LAST = {f"decode_head.conv_{name}.weight": task for name, task in zip(("pose", "seg", *TASKS[2:]), TASKS)}
"""The key of a released head's last layer, which names its task."""
CONFIG = "config.json"


def load_task(
    path: str, *, task: TaskName | None = None, size: SizeName | None = None, device: str | None = None
) -> TaskModel:
    """The task model in a .safetensors file or in the folder of a fine-tuning run, ready to predict.

    path: local or s3://. What the model is comes from the config.json beside the weights; without one, from the file's
    header, from `task` and `size`, and what these leave open from the names inside, as in released files. device:
    default a GPU if there is one. `model.image_size` is the size it was trained at, where that is known. Raises
    FileNotFoundError for a missing file, ValueError for a device that is not here, a model of another task or size than
    asked for and for weights that do not fit.
    """
    place = _device(device)
    weights = path if path.endswith(".safetensors") else storage.join(path, "model.safetensors")
    about = _config_beside(weights)
    state = read_state(weights)
    said = told_by(about) if about else told(weights)
    found: dict[str, Any] = {"task": said.task or _task(state), "size": about.get("size") or _size(state)}
    for name, asked in (("task", task), ("size", size)):
        if asked and found[name] and asked != found[name]:
            raise ValueError(f"{weights} holds a {found['task']} model of size {found['size']}, not {name} {asked}")
        if not (asked or found[name]):
            raise ValueError(f"{weights} does not say its {name}, and has no config.json beside it: give {name}")
    windows = any(name.startswith("backbone.tokenizer.") for name in state)
    model = _structure(about, said, task or found["task"], size or found["size"], windows)
    load_state(model, state, where=weights)
    model.image_size = said.image_size
    return model.eval().to(place)


def _device(name: str | None) -> torch.device:
    """The device of a name, or the default. Raises ValueError for one that torch does not know or find."""
    try:
        chosen = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ValueError(f"there is no device {name!r}: use cpu, cuda or cuda:N") from error
    there = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= there:
        raise ValueError(f"device {name!r}, but torch finds {there} GPUs: use cpu, or leave it out")
    return chosen


def load_backbone(path: str, *, size: SizeName | None = None) -> Backbone:
    """The backbone in a .safetensors file or the folder of a run, pretrained or of a task, on the CPU.

    Its size and its window tokenizer are told by the names inside; `size` has to agree where it is given. Raises as
    `load_task` does.
    """
    weights = path if path.endswith(".safetensors") else storage.join(path, "model.safetensors")
    state = read_state(weights)
    whole = any(name.startswith("backbone.") for name in state)
    named = state if whole else {f"backbone.{name}": tensor for name, tensor in state.items()}
    found = size or _size(named)
    if found is None:
        raise ValueError(f"{weights} is of no known size: give size")
    with torch.device("meta"):
        model = build_backbone(found, window_tokenizer=any(".tokenizer." in name for name in named))
    load_state(model, state, where=weights)
    return model.eval()


def _structure(about: dict[str, Any], said: Told, task: TaskName, size: SizeName, windows: bool) -> TaskModel:
    """A run of ours as its whole configuration describes it, anything else as told; weights are still to come."""
    config = FinetuneConfig.model_validate(about["config"]) if isinstance(about.get("config"), dict) else None
    if config is not None and config.backbone:  # has tables that no file holds
        return assemble(config, structure=about.get(STRUCTURE))
    with torch.device("meta"):
        if config is not None:
            return assemble(config)
        return build_task(task, size, window_tokenizer=windows, head=said.head, scale=said.scale)


def _config_beside(weights: str) -> dict[str, Any]:
    path = weights.rpartition("/")[0] + "/" + CONFIG if "/" in weights else CONFIG
    try:
        text = storage.read_bytes(path)
    except FileNotFoundError:
        return {}
    try:
        about = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): restore it, or remove it and say task and size") from error
    if not isinstance(about, dict) or about.get("task") not in (None, *TASKS):
        return {}
    return about if about.get("size") in (None, *get_args(SizeName)) else {}


def _task(state: dict[str, Tensor]) -> str | None:
    return next((task for key, task in _LAST.items() if key in state), None)


def _size(state: dict[str, Tensor]) -> str | None:
    """The size whose width, depth and patch are those of the file."""
    token, patches = state.get("backbone.cls_token"), state.get("backbone.patch_embed.projection.weight")
    if token is None or patches is None:
        return None
    layers = len({key.split(".")[2] for key in state if key.startswith("backbone.blocks.")})
    found = (token.shape[-1], layers, patches.shape[-1])
    return next((n for n, arch in SIZES.items() if (arch.dim, arch.layers, arch.patch) == found), None)
