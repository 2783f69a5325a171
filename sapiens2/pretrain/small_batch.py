"""What changes in the objective when a batch is far from the paper's thousands (training notes B.5 and G.4).

A centre averaged over few images is noise, and a teacher that looks back over 125 steps looks back over few images.
"""

from __future__ import annotations

from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.schedules import scaled_ema

SMALL = 256  # images a step: below it the rules apply
PROTOTYPES = (1024, 4096)
WARMUP_SHARE = 0.05  # of the run, at most the paper's 1000 steps
LONGEST_WARMUP = 1000


def scaled_warmup(steps: int) -> int:
    """Steps of warm-up for a run: a twentieth, at most the paper's 1000, and at least one where there is room."""
    return min(LONGEST_WARMUP, max(1, round(WARMUP_SHARE * steps)), steps - 1)


def fewer_prototypes(batch: int) -> int:
    """16 prototypes for each image of a step, between 1024 and 4096: all must be used for the answers to mean much."""
    low, high = PROTOTYPES
    return min(high, max(low, 16 * batch))


def for_batch(config: PretrainConfig) -> PretrainConfig:
    """The config with the rules applied: unchanged from a batch of 256 on but for the length of its warm-up.

    Below: Sinkhorn in place of the centre, the scaled teacher, fewer prototypes. Warm-up, the ramp of the teacher's
    temperature and the steps with frozen prototypes fit the length of the run at any batch.
    """
    warmup = scaled_warmup(config.engine.steps)
    changes: dict[str, object] = {
        "engine": config.engine.model_copy(update={"warmup_steps": warmup}),
        "freeze_prototypes_steps": min(config.freeze_prototypes_steps, warmup),
        "teacher_temperature_steps": min(config.teacher_temperature_steps, warmup),
    }
    if config.batch < SMALL:
        changes |= {
            "centring": "sinkhorn",
            "ema": scaled_ema(config.batch),
            "prototypes": min(config.prototypes, fewer_prototypes(config.batch)),
        }
    return PretrainConfig.model_validate({**dict(config), **changes})
