"""Recipes: each a function that returns a config, its header saying what to expect and what it costs."""

from __future__ import annotations

from sapiens2.engine.config import EngineConfig
from sapiens2.model.sizes import SizeName
from sapiens2.pretrain.config import PretrainConfig


def paper(size: SizeName = "1b", *, window_tokenizer: bool = False) -> PretrainConfig:
    """The paper's recipe at any size: 5e5 steps of 1536 images, 1024 x 768, bfloat16; 4096 x 3072 with the tokenizer.

    Not run by us: what the paper leaves open follows DINOv3 and MAE (specification 8.2), and the batch is inferred from
    one pass over its 750 million images. Arithmetic per image (`cost.step_cost`), and H200 days of the run at 45 % of
    989 TFLOP/s: 0.1b 7.6 TFLOP, 151; 0.4b 20.7, 414; 0.8b 39.6, 790; 1b 67.8, 1354; 5b 222, 4438.
    """
    large = size in ("1b", "5b")
    scale = 4 if window_tokenizer else 1
    return PretrainConfig(
        size=size,
        window_tokenizer=window_tokenizer,
        engine=EngineConfig(steps=500_000, warmup_steps=1000, precision="bf16", checkpoint_every=1000),
        image_size=(1024 * scale, 768 * scale),
        local_size=(512 * scale, 384 * scale),
        prototypes=131_072 if large else 65_536,
        head_bottleneck=384 if large else 256,
        koleo_group=4 if size == "5b" else 8,
        metrics_every=100,
        decode_threads=4,
        cache_mb=0,
    )


def micro() -> PretrainConfig:
    """Two steps of four images that walk the whole path and learn nothing: 0.13 CPU seconds a step, 0.4 to build."""
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
        unit_prototypes=True,
        teacher_temperature=(0.02, 0.02),
        centring="sinkhorn",
        ema=0.9,
        freeze_prototypes_steps=0,
        probe_checkpoints=1,
    )


def demo() -> PretrainConfig:
    """110 steps of 8 images at 128 x 96: about 50 CPU seconds, on a laptop without a GPU.

    Measured with 140 steps on 48 web photographs, seed 0, first against last ten: loss 2.84 to 2.48, reconstruction
    1.03 to 0.93, contrastive 4.37 to 3.88 (4.16 is chance for 64 prototypes), mutual information of the teacher 0 to
    0.89 nats, RankMe 1 to 8.6 of 16. At the paper's teacher temperature that information stayed below 0.01 nats, so
    it is 0.02 here. The teacher looks back over 20 steps: `scaled_ema` would leave it at its start in so few images.
    """
    return PretrainConfig(
        size="tiny",
        engine=EngineConfig(
            steps=110, lr=1e-3, min_lr=1e-5, warmup_steps=10, checkpoint_every=40, log_every=5, weight_decay=0.05
        ),
        batch=8,
        koleo_group=4,
        image_size=(128, 96),
        local_size=(64, 48),
        decoder_dim=128,
        decoder_layers=2,
        decoder_heads=4,
        prototypes=64,
        head_hidden=256,
        head_bottleneck=64,
        unit_prototypes=True,
        teacher_temperature=(0.02, 0.02),
        centring="sinkhorn",
        ema=0.95,
        freeze_prototypes_steps=5,
        probe_checkpoints=2,
    )
