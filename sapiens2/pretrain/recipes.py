"""Recipes: each a function that returns a config, its header saying what to expect and what it costs."""

from __future__ import annotations

from sapiens2.engine.config import EngineConfig
from sapiens2.pretrain.config import PretrainConfig


def micro() -> PretrainConfig:
    """Two steps that prove the whole path, and learn nothing."""
    return PretrainConfig(
        size="tiny",
        engine=EngineConfig(steps=2, lr=5e-4, min_lr=1e-6, warmup_steps=1, checkpoint_every=1, log_every=1),
        batch=4,
        koleo_group=4,
        image_size=(64, 64),
        local_size=(32, 32),
        local_views=2,
        decoder_dim=64,
        decoder_layers=1,
        decoder_heads=2,
        prototypes=64,
        head_hidden=64,
        head_bottleneck=32,
        centring="sinkhorn",
        ema=0.9,
        freeze_prototypes_steps=0,
    )


def demo() -> PretrainConfig:
    """A minute on a laptop."""
    return PretrainConfig(
        size="tiny",
        engine=EngineConfig(
            steps=120, lr=1e-3, min_lr=1e-5, warmup_steps=10, checkpoint_every=40, log_every=5, weight_decay=0.05
        ),
        batch=8,
        koleo_group=4,
        image_size=(128, 96),
        local_size=(64, 48),
        decoder_dim=128,
        decoder_layers=2,
        decoder_heads=4,
        prototypes=512,
        head_hidden=256,
        head_bottleneck=64,
        centring="sinkhorn",
        ema=0.95,
        freeze_prototypes_steps=5,
    )
