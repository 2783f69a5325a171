"""Learning rates by depth: the rate of a layer is `layer_decay` times that of the one above it (specification 4).

Weight decay spares what has one dimension (norm gains, LayerScale, biases) and position embeddings; tokens and matrices
decay. Foreign backbones are read by the same rule: numbered blocks in order, what comes before them is layer 0.
"""

from __future__ import annotations

import math
import re
from typing import Any

from torch import nn

BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers?|stages)\.(\d+)\.")
STAGE = re.compile(r"(?:^|\.)layer(\d+)\.")  # of residual networks, counted from 1
SHALLOW: tuple[str, ...] = ("token", "patch_embed", "embeddings", "embed", "tokenizer", "stem", "register", "w_cls")
SHALLOW += ("norm_pre", "ln_pre", "pre_layrnorm", "net.conv1", "net.bn1")  # norms of timm's, open_clip's and hf's CLIP
"""Words in the names of what comes before the first block."""


def layer_of(name: str, layers: int) -> int:
    """Depth of a task model's parameter: 0 embeddings, i + 1 block i, layers + 1 final norm and head."""
    if not name.startswith("backbone."):
        return layers + 1
    inner = name.removeprefix("backbone.")
    if inner.startswith("tokenizer."):  # its own blocks belong to the embedding
        return 0
    block = _block(inner)
    if block is not None:
        return block + 1
    return 0 if any(word in inner for word in SHALLOW) else layers + 1


def depth_of(model: nn.Module) -> int:
    """Numbered blocks of a task model's backbone."""
    return max((layer_of(n, 0) for n, _ in model.named_parameters() if _is_block(n)), default=0)


def _is_block(name: str) -> bool:
    own = name.startswith("backbone.") and not name.startswith("backbone.tokenizer.")
    return own and _block(name.removeprefix("backbone.")) is not None


def _block(inner: str) -> int | None:
    """The number of the block of a backbone's parameter, from 0."""
    block, stage = BLOCK.search(inner), STAGE.search(inner)
    return int(block[1]) if block else int(stage[1]) - 1 if stage else None


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies."""
    return parameter.ndim > 1 and "pos_embed" not in name and "position_embeddings" not in name


def depth_groups(model: nn.Module, lr: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Optimiser groups of the trained parameters of a task model, one per depth and kind, the deepest last."""
    layers = depth_of(model)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((layer_of(name, layers), decays(name, parameter)), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * math.pow(layer_decay, layers + 1 - layer),
            "weight_decay": weight_decay if matrices else 0.0,
        }
        for (layer, matrices), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
