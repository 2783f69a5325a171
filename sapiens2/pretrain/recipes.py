"""Recipes: each a function that returns a config, its header saying what to expect and what it costs.

The costs in the headers are arithmetic, not measurements, unless they say so. Their rows are those of
`recipe_costs`, and tests hold them against the code: FLOPs of one image and of the run, images seen, days on so many
H200s (989 TFLOP/s) at the share that is aimed at, and the memory that is predicted for each GPU with so many images at
a time and with the recipe's own compilation and checkpointing.
"""

from __future__ import annotations

from sapiens2.engine.config import EngineConfig
from sapiens2.model.sizes import SizeName
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.schedules import scaled_ema
from sapiens2.pretrain.small_batch import for_batch

PHASE_SHARE = 0.02  # of the run before: the paper calls its 2K phase brief
REWARMED = 0.1  # of the rate of the run before


def paper(size: SizeName = "1b", *, window_tokenizer: bool = False) -> PretrainConfig:
    """The paper's recipe at any size: 5e5 steps of 1536 images, 1024 x 768, bfloat16; 4096 x 3072 with the tokenizer.

    Not run by us: what the paper leaves open follows DINOv3 and MAE (specification 8.2), and the batch is inferred from
    one pass over its 750 million images. Blocks are compiled; from 0.8b on, norms and gates are computed again.

    recipe          TFLOP/image       FLOP     images  H200s   MFU    days  at a time  GiB each
    0.1b                   7.56   5.81e+21      768 M     64   33%    3.22         24      69.1
    0.4b                   20.7   1.59e+22      768 M     64   40%    7.28         12      71.9
    0.8b                   39.6   3.04e+22      768 M     64   42%    13.2          8      48.9
    1b                     67.8   5.21e+22      768 M     64   45%    21.2          8      70.0
    5b                      222   1.71e+23      768 M     64   38%    82.1          4      82.9
    1b-4k                   171   1.31e+23      768 M     64   45%    53.4          8      74.2
    """
    large = size in ("1b", "5b")
    scale = 4 if window_tokenizer else 1
    return PretrainConfig(
        size=size,
        window_tokenizer=window_tokenizer,
        engine=EngineConfig(
            steps=500_000,
            warmup_steps=1000,
            precision="bf16",
            checkpoint_every=1000,
            compile=True,
            checkpointing="none" if size in ("0.1b", "0.4b") else "elementwise",
        ),
        image_size=(1024 * scale, 768 * scale),
        local_size=(512 * scale, 384 * scale),
        prototypes=131_072 if large else 65_536,
        head_bottleneck=384 if large else 256,
        koleo_group=4 if size == "5b" else 8,
        metrics_every=100,
        decode_threads=4,
        cache_mb=0,
    )


def small(size: SizeName = "0.1b") -> PretrainConfig:
    """256 x 192 on one GPU in about an hour: 8000 steps of 256 images, 2.05 million in all.

    Not run by us. Rotary positions are relative to the image, so the result continues at higher resolutions
    (`enlarged`).

    recipe          TFLOP/image       FLOP     images  H200s   MFU    days  at a time  GiB each
    0.1b-256              0.394   8.07e+17    2.048 M      1   25%  0.0378        256      54.5
    """
    return for_batch(
        PretrainConfig(
            size=size,
            engine=EngineConfig(
                steps=8000, lr=1.5e-4, min_lr=1e-6, precision="bf16", checkpoint_every=500, log_every=20, compile=True
            ),
            batch=256,
            image_size=(256, 192),
            local_size=(128, 96),
            metrics_every=20,
            decode_threads=8,
        )
    )


def enlarged(finished: PretrainConfig, times: int = 2, share: float = 0.25) -> PretrainConfig:
    """The next stage of a curriculum: a finished run's config at `times` its resolution, for a share of its steps.

    Not run by us. Start it from the finished run's weights. A token costs the same, so an image costs about times^2 as
    much.

    recipe          TFLOP/image       FLOP     images  H200s   MFU    days  at a time  GiB each
    0.1b-512               1.54    7.9e+17    512,000      1   25%   0.037         64      49.9
    0.1b-1024              7.56   9.68e+17    128,000      1   33%  0.0343         16      48.7
    """
    steps = max(2, round(share * finished.engine.steps))
    engine = finished.engine.model_copy(update={"steps": steps, "lr": finished.engine.lr / 2})
    changes = {
        "engine": engine,
        "image_size": tuple(times * side for side in finished.image_size),
        "local_size": tuple(times * side for side in finished.local_size),
    }
    return for_batch(_changed(finished, changes))


def continued(size: SizeName = "1b", *, window_tokenizer: bool = False) -> PretrainConfig:
    """Released weights, your pictures: 20,000 steps of 256 images at full resolution with a short re-warm.

    Not run by us. Decoder and projection head start fresh, so the prototypes are frozen over the warm-up of 1000 steps,
    the rate stays at a fifth of the paper's, and the teacher looks back over as many images as the paper's.

    recipe          TFLOP/image       FLOP     images  H200s   MFU    days  at a time  GiB each
    0.1b-continued         7.56   3.87e+19     5.12 M      8   33%   0.172          8      24.5
    0.4b-continued         20.7   1.06e+20     5.12 M      8   40%   0.388          8      49.4
    0.8b-continued         39.6   2.03e+20     5.12 M      8   42%   0.705          8      50.3
    1b-continued           67.8   3.47e+20     5.12 M      8   45%    1.13          8      72.5
    5b-continued            222   1.14e+21     5.12 M      8   38%    4.38          4      91.3
    """
    base = paper(size, window_tokenizer=window_tokenizer)
    engine = base.engine.model_copy(update={"steps": 20_000, "lr": 2e-5})
    return for_batch(_changed(base, {"engine": engine, "batch": 256, "ema": scaled_ema(256)}))


def input_2k(finished: PretrainConfig) -> PretrainConfig:
    """The paper's 2K phase, read as 2K input: the encoder of a finished run completes pictures of twice the side.

    Reconstruction alone, as the paper names nothing else, for 2 % of the run's steps at a tenth of its rate; start it
    from the finished run's weights. It checks that k-NN does not get worse (`sapiens2.evaluation.knn_check`). Not run
    by us.

    recipe          TFLOP/image       FLOP     images  H200s   MFU    days  at a time  GiB each
    1b-2k-input            86.4   1.33e+21    15.36 M     64   45%   0.539          8     103.8
    """
    sizes: dict[str, object] = {
        name: tuple(2 * side for side in getattr(finished, name)) for name in ("image_size", "local_size")
    }
    return _reconstruction_phase(finished, sizes)


def output_2k(finished: PretrainConfig) -> PretrainConfig:
    """The paper's 2K phase, read as 2K output: a finished 4K run completes 2048 x 1536 pixels from its 64 x 48 tokens.

    As `input_2k`, but the sizes stay: 32 x 32 x 3 values a token. Raises ValueError for a run without the window
    tokenizer. Not run by us.

    recipe          TFLOP/image       FLOP     images  H200s   MFU    days  at a time  GiB each
    1b-2k-output           40.2   6.18e+20    15.36 M     64   45%   0.251          8      32.5
    """
    if not finished.window_tokenizer:
        raise ValueError(
            "2K output is a phase of the 4K model: give a run with window_tokenizer=True, or use input_2k for a 1K one"
        )
    return _reconstruction_phase(finished, {})


def _reconstruction_phase(finished: PretrainConfig, changes: dict[str, object]) -> PretrainConfig:
    engine = finished.engine
    short = engine.model_copy(
        update={"steps": max(2, round(PHASE_SHARE * engine.steps)), "lr": REWARMED * engine.lr, "min_lr": 0.0}
    )
    off = {"contrastive_weight": 0.0, "koleo_weight": 0.0, "local_views": 0}
    return for_batch(_changed(finished, {"engine": short, "knn_check": True, **off, **changes}))


def _changed(config: PretrainConfig, changes: dict[str, object]) -> PretrainConfig:
    return PretrainConfig.model_validate({**dict(config), **changes})


def micro() -> PretrainConfig:
    """Two steps of four images that walk the whole path and learn nothing: 0.13 CPU seconds a step, 0.4 to build.

    recipe          TFLOP/image       FLOP     images  H200s   MFU    days  at a time  GiB each
    micro               0.00152   1.21e+10          8    CPU                        4      0.10
    """
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


def nano(steps: int = 1800) -> PretrainConfig:
    """Experiments on a CPU: 64 x 48 pixels in patches of 8, bfloat16; 0.8 seconds of one core a step of 32 images.

    What counts in steps follows their number. On 330 web photographs the reconstruction loss fell from 1.06 to 0.72
    in 1150 of 1800 steps, and the teacher's mutual information rose to 2.9 nats of at most 4.2 in a batch.
    """
    return PretrainConfig(
        size="nano",
        engine=EngineConfig(
            steps=steps,
            lr=2e-3,
            min_lr=1e-5,
            warmup_steps=steps // 20,
            precision="bf16",
            checkpoint_every=max(1, steps // 10),
            log_every=max(1, steps // 50),
        ),
        batch=32,
        image_size=(64, 48),
        local_size=(32, 24),
        decoder_dim=128,
        decoder_layers=2,
        decoder_heads=4,
        prototypes=256,
        head_hidden=256,
        head_bottleneck=64,
        unit_prototypes=True,
        teacher_temperature=(0.02, 0.02),
        centring="sinkhorn",
        ema=0.98,
        freeze_prototypes_steps=steps // 40,
        workers=0,
        cache_mb=2048,
    )


def demo() -> PretrainConfig:
    """110 steps of 8 images at 128 x 96: about 50 CPU seconds, on a laptop without a GPU.

    Measured with 140 steps on 48 web photographs, seed 0, first against last ten: loss 2.84 to 2.48, reconstruction
    1.03 to 0.93, contrastive 4.37 to 3.88 (4.16 is chance for 64 prototypes), mutual information of the teacher 0 to
    0.89 nats, RankMe 1 to 8.6 of 16. At the paper's teacher temperature that information stayed below 0.01 nats, so
    it is 0.02 here. The teacher looks back over 20 steps: `scaled_ema` would leave it at its start in so few images.

    recipe          TFLOP/image       FLOP     images  H200s   MFU    days  at a time  GiB each
    tiny                0.00394   3.47e+12        880    CPU                        8      0.24
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
