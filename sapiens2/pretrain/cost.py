"""What a step of the objective costs in arithmetic, per source image."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sapiens2.model.backbone import Backbone, build_backbone
from sapiens2.model.block import block_flops
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.decoder import MaskedDecoder
from sapiens2.pretrain.dino_head import ProjectionHead
from sapiens2.pretrain.views import GLOBAL_VIEWS

BACKWARD = 2  # a backward pass costs two forward ones


class Cost(NamedTuple):
    """FLOPs for one source image in one step, all views; 2 per multiply-accumulate, attention included."""

    student: int
    teacher: int
    decoder: int
    heads: int

    @property
    def total(self) -> int:
        """FLOPs of everything."""
        return sum(self)


def step_cost(config: PretrainConfig) -> Cost:
    """The cost of a config, from the modules themselves on the meta device; nothing is allocated."""
    with torch.device("meta"):
        backbone = build_backbone(config.architecture, window_tokenizer=config.window_tokenizer)
        dim = backbone.architecture.dim
        pixels = 3 * config.target_patch**2
        decoder = MaskedDecoder(dim, config.decoder_dim, config.decoder_layers, config.decoder_heads, pixels)
        shape = (dim, config.head_hidden, config.head_bottleneck, config.prototypes)
        head = ProjectionHead(*shape, unit_prototypes=config.unit_prototypes)
    seen_local = config.local_tokens - config.local_masked
    seen = GLOBAL_VIEWS * [config.kept] + config.local_views * [seen_local]
    share = {"masked": 0.0, "full": 1.0, "mixed": config.mixed_share}[config.student_cls_source]
    full = GLOBAL_VIEWS * encoder_flops(backbone, config.tokens)
    student = sum(encoder_flops(backbone, tokens) for tokens in seen) + round(share * full)
    completed = GLOBAL_VIEWS * decoder.flops(config.kept, config.tokens)
    if config.mae_views == "all":
        completed += config.local_views * decoder.flops(seen_local, config.local_tokens)
    weights = 2 * sum(p.numel() for p in head.parameters() if p.ndim == 2)
    taught = config.contrastive_weight > 0
    return Cost(
        student=(1 + BACKWARD) * student,
        teacher=full * taught,
        decoder=(1 + BACKWARD) * completed * (config.mae_weight > 0),
        heads=weights * ((1 + BACKWARD) * len(seen) + GLOBAL_VIEWS) * taught,
    )


def encoder_flops(backbone: Backbone, tokens: int) -> int:
    """FLOPs of a forward pass that sees only `tokens` tokens of a view."""
    arch = backbone.architecture
    patches = tokens * (arch.window**2 if backbone.tokenizer is not None else 1)
    total = 2 * patches * backbone.patch_embed.projection.weight.numel()
    if backbone.tokenizer is not None:
        total += backbone.tokenizer.flops(tokens)
    return total + sum(block_flops(block, backbone.prefix + tokens) for block in backbone.blocks)
