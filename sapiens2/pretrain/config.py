"""What a pretraining run is: sizes, views, masks, losses, teacher. The defaults are the paper's 1K recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import model_validator

from sapiens2.config import Config, execution, recipe
from sapiens2.engine.config import EngineConfig
from sapiens2.model.sizes import Architecture, SizeName, architecture

Pair = tuple[float, float]
Pixels = tuple[int, int]


class ArchitectureChanges(Config):
    """Departures from a row of the table of sizes, for ablations; None keeps what the row says."""

    dim: int | None = recipe(None, "Channels of a token.", ge=4)
    layers: int | None = recipe(None, "Blocks of the encoder.", ge=1)
    heads: int | None = recipe(None, "Query heads.", ge=1)
    patch: int | None = recipe(None, "Side of a patch, pixels.", ge=1)
    window: int | None = recipe(None, "Patches along the side of a tokenizer window.", ge=1)
    qk_norm: bool | None = recipe(None, "RMSNorm of queries and keys.")
    gqa: bool | None = recipe(None, "Half as many key heads in the middle layers.")
    swiglu: bool | None = recipe(None, "Gated MLP; without it a GELU MLP of as many weights.")

    def of(self, size: str) -> Architecture:
        """The row with these changes. Raises ValueError where they do not fit together."""
        return replace(architecture(size), **self.model_dump(exclude_none=True))


class PretrainConfig(Config):
    """Settings of one pretraining run. Raises ValueError for combinations that cannot be trained."""

    size: SizeName = recipe("0.1b", "Backbone size, a row of sapiens2.model.sizes.SIZES.")
    window_tokenizer: bool = recipe(False, "Pool 4 x 4 patches into a token, for 4096 x 3072 pixels.")
    changes: ArchitectureChanges = recipe(ArchitectureChanges(), "Departures from the size, for ablations.")
    engine: EngineConfig = recipe(EngineConfig(), "Optimiser, schedule, checkpoints, seed.")

    batch: int = recipe(1536, "Images of one optimiser step, over all ranks.", ge=1)
    image_size: Pixels = recipe((1024, 768), "Height and width of the global views, pixels.")
    local_size: Pixels = recipe((512, 384), "Height and width of the local views, pixels.")
    local_views: int = recipe(4, "Local views of each image; there are always two global ones.", ge=0)
    global_area: Pair = recipe((0.5, 1.0), "Share of the image's area that a global view covers.")
    local_area: Pair = recipe((0.2, 0.7), "Share of the image's area that a local view covers.")
    aspect_jitter: Pair = recipe((3 / 4, 4 / 3), "Width to height of a crop, relative to that of the view.")
    resolution_power: float = recipe(
        0.0, "Small pictures are seen less often: by this power of their side over that of a global view.", ge=0
    )
    person_crops: float = recipe(
        0.0, "Share of the samples whose views surround one person; needs shards with boxes.", ge=0, le=1
    )
    person_side: int = recipe(
        384, "Short side, pixels, from which a person is chosen for that; where none has it, the largest.", ge=1
    )
    flip: float = recipe(0.5, "Probability of a mirrored view.", ge=0, le=1)
    shuffle_window: int = recipe(16, "Row groups whose rows are shuffled together.", ge=1)

    mask_ratio: float = recipe(0.75, "Share of the tokens of a global view that is hidden.", gt=0, lt=1)
    block_share: float = recipe(
        0.4, "Share of the masks made of rectangles; the others hide single tokens.", ge=0, le=1
    )
    mae_views: Literal["globals", "all"] = recipe(
        "globals", "Which views are masked and reconstructed: the global ones, or the local ones as well."
    )
    decoder_position: Literal["sine", "rope"] = recipe(
        "sine", "How the decoder knows places: a fixed sine-cosine code, or rotation as in the encoder."
    )
    decoder_dim: int = recipe(512, "Channels of the decoder.", ge=1)
    decoder_layers: int = recipe(8, "Blocks of the decoder.", ge=1)
    decoder_heads: int = recipe(16, "Attention heads of the decoder.", ge=1)

    prototypes: int = recipe(65536, "Outputs of the projection head.", ge=2)
    head_hidden: int = recipe(2048, "Hidden channels of the projection head.", ge=1)
    head_bottleneck: int = recipe(256, "Channels that are normalised before the prototypes.", ge=1)
    unit_prototypes: bool = recipe(False, "Prototypes of length 1 (DINOv2), whose answers are sharp from the start.")
    student_cls_source: Literal["masked", "full", "mixed"] = recipe(
        "masked", "Which pass over a global view gives the student's class token; mixed: both, by mixed_share."
    )
    mixed_share: float = recipe(0.2, "Share of each group whose class token comes from the full view, if mixed.", ge=0)
    student_temperature: float = recipe(0.1, "Softmax temperature of the student.", gt=0)
    teacher_temperature: Pair = recipe((0.065, 0.07), "Softmax temperature of the teacher, first and final.")
    teacher_temperature_steps: int = recipe(1000, "Steps from the first to the final teacher temperature.", ge=0)
    centring: Literal["centre", "sinkhorn"] = recipe("centre", "How the teacher is kept from a constant answer.")
    centre_momentum: float = recipe(0.9, "Share of the old centre that one step keeps.", ge=0, lt=1)
    ema: float = recipe(0.992, "Share of the old teacher that one step keeps.", ge=0, lt=1)
    freeze_prototypes_steps: int = recipe(1000, "First steps in which the prototypes stay as they were drawn.", ge=0)

    mae_weight: float = recipe(1.0, "Weight of the reconstruction loss.", ge=0)
    contrastive_weight: float = recipe(0.4, "Weight of the cross-view loss.", ge=0)
    koleo_weight: float = recipe(0.04, "Weight of the spread of class tokens, after its ramp.", ge=0)
    koleo_group: int = recipe(
        8, "Images, consecutive in the global batch, among which neighbours are sought; ranks may share a group.", ge=2
    )
    koleo_floor: float = recipe(0.05, "Distance of unit vectors below which the KoLeo gradient fades.", gt=0)

    probe_checkpoints: int = recipe(
        0, "Teachers kept along the run besides the last, evenly spaced, for the selection of a checkpoint.", ge=0
    )
    knn_check: bool = recipe(
        False, "Hold k-NN of the result against that of the weights it started from; got worse or not is reported."
    )
    init: str | None = execution(
        None, "Weights to continue from: a .safetensors file or URI, or an artifact; its sha256 enters the version."
    )
    metrics_every: int = recipe(1, "Steps between two measurements of RankMe, which waits for the device.", ge=1)
    workers: int = execution(1, "Training processes that share a batch; 0 trains in the calling process.", ge=0)
    min_workers: int = execution(0, "Go on with as few when nodes are lost; 0: with all `workers` only.", ge=0)
    decode_threads: int = execution(1, "Threads that decode and crop pictures.", ge=1)
    cache_mb: int = execution(256, "Memory for decoded pictures that later epochs need again, MiB.", ge=0)

    @property
    def architecture(self) -> Architecture:
        """What the backbone is made of."""
        return self.changes.of(self.size)

    @property
    def grouped(self) -> bool:
        """Whether images are trained in groups, which must be whole in what all ranks hold at the same time."""
        return self.koleo_weight > 0 or self.student_cls_source == "mixed"

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """The steps after which a teacher is kept besides the last: equal parts of the run."""
        parts = self.probe_checkpoints + 1
        return tuple(sorted({self.engine.steps * k // parts for k in range(1, parts)} - {0}))

    @property
    def stride(self) -> int:
        """Pixels per token along one axis."""
        arch = self.architecture
        return arch.patch * (arch.window if self.window_tokenizer else 1)

    @property
    def grid(self) -> Pixels:
        """Rows and columns of tokens of a global view."""
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    @property
    def tokens(self) -> int:
        """Tokens of a global view."""
        return self.grid[0] * self.grid[1]

    @property
    def masked(self) -> int:
        """Hidden tokens of a global view: 2304 of 3072 in the paper's recipe."""
        return round(self.mask_ratio * self.tokens)

    @property
    def kept(self) -> int:
        """Tokens of a global view that the student sees."""
        return self.tokens - self.masked

    @property
    def local_grid(self) -> Pixels:
        """Rows and columns of tokens of a local view."""
        return self.local_size[0] // self.stride, self.local_size[1] // self.stride

    @property
    def local_tokens(self) -> int:
        """Tokens of a local view."""
        return self.local_grid[0] * self.local_grid[1]

    @property
    def local_masked(self) -> int:
        """Hidden tokens of a local view: none, unless all views are reconstructed."""
        return round(self.mask_ratio * self.local_tokens) if self.mae_views == "all" else 0

    @property
    def target_patch(self) -> int:
        """Side of what the decoder predicts per token, pixels; a 4K model predicts the image at half its size."""
        return self.stride // 2 if self.window_tokenizer else self.stride

    @model_validator(mode="after")
    def _sizes_divide(self) -> PretrainConfig:
        for name in ("image_size", "local_size"):
            if any(side <= 0 or side % self.stride for side in getattr(self, name)):
                raise ValueError(
                    f"{name}={getattr(self, name)} does not divide into tokens of {self.stride} pixels: "
                    f"use multiples of {self.stride}"
                )
        if not 0 < self.masked < self.tokens:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} hides {self.masked} of {self.tokens} tokens: "
                "some must stay and some must go; use larger images or another ratio"
            )
        if self.mae_views == "all" and self.local_views and not 0 < self.local_masked < self.local_tokens:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} hides {self.local_masked} of the {self.local_tokens} tokens of a local "
                "view: use a larger local_size, or mae_views='globals'"
            )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> PretrainConfig:
        parts = self.engine.micro_batches
        if self.koleo_weight and self.batch % self.koleo_group:
            raise ValueError(
                f"batch={self.batch} does not divide into KoLeo groups of {self.koleo_group}: "
                "change koleo_group, or set koleo_weight to 0"
            )
        if self.batch % parts or (self.grouped and self.batch // parts % self.koleo_group):
            raise ValueError(
                f"batch={self.batch} in engine.micro_batches={parts} leaves {self.batch / parts:g} images at a time on "
                f"all ranks together, no multiple of koleo_group={self.koleo_group}, and images of different "
                "micro-batches cannot be compared: use fewer micro_batches or a smaller group"
            )
        if self.mae_weight == self.contrastive_weight == self.koleo_weight == 0:
            raise ValueError("all loss weights are 0: nothing would be learned; set one of them")
        return self

    @model_validator(mode="after")
    def _ranges_ordered(self) -> PretrainConfig:
        for name, top in (("global_area", 1.0), ("local_area", 1.0), ("aspect_jitter", float("inf"))):
            low, high = getattr(self, name)
            if not 0 < low <= high <= top:
                raise ValueError(f"{name}={(low, high)} is no range: give 0 < low <= high" + " <= 1" * (top == 1.0))
        if min(self.teacher_temperature) <= 0 or self.mixed_share > 1:
            raise ValueError("teacher_temperature must be above 0, and mixed_share at most 1")
        head = self.decoder_heads * (4 if self.decoder_position == "rope" else 1)
        if self.decoder_dim % 4 or self.decoder_dim % head:
            raise ValueError(
                f"decoder_dim={self.decoder_dim} must be a multiple of 4 and of decoder_heads={self.decoder_heads}, "
                "with four channels a head at least where it rotates"
            )
        return self
