"""Learning rate as a pure function of the step."""

from __future__ import annotations

import math

from sapiens2.engine.config import EngineConfig


def learning_rate(step: int, config: EngineConfig) -> float:
    """Rate of `step` (0-based): linear warm-up to `lr`, then cosine or polynomial decay that ends at `min_lr`.

    The first warm-up step already moves (lr / warmup_steps). The last step of the run has exactly `min_lr`, unless the
    warm-up leaves but one step to it or none.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    span = max(1, config.steps - 1 - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    if config.schedule == "cosine":
        remaining = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        remaining = (1.0 - progress) ** config.poly_power
    return config.min_lr + (config.lr - config.min_lr) * remaining
