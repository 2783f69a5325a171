"""How much memory pretraining takes on each rank, known before anything is allocated.

What lasts (weights, gradients, moments, teacher) is summed over the modules on the meta device; what a step keeps for
its backward pass is counted on the code (`activations.kept_for_backward`). Only two things are estimates: what
compilation saves of that, and what checkpointing of a selection does. What is predicted for twelve steps that were
measured on an H200, from 0.1b to 5b, eager and compiled, lies within 3 % of what they took (five are in the tests).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import nn

from sapiens2.engine.capacity import available_bytes
from sapiens2.pretrain.activations import kept_for_backward
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.views import GLOBAL_VIEWS

GIBIBYTE = 2**30
FP32, BF16 = 4, 2
MOMENTS = 2
# Bytes a token and channel that a block keeps in bf16, by the dtype of the residual stream. "none": eager, as the count
# finds it at full attention. "compiled": what the partitioner of torch.compile leaves, which recomputes cheap work
# (measured on the block's own graph, tests). Checkpointing keeps the block's input (4 or 2) and chosen results:
# attention's and five narrow products (2 each), and with "elementwise" the wide one (16).
BYTES: dict[str, dict[str, float]] = {
    "fp32": {"none": 68, "compiled": 50, "elementwise": 32, "selective": 16},
    "bf16": {"none": 54, "compiled": 48, "elementwise": 30, "selective": 14},
}

# Compiled for a GPU, blocks keep this share of that (measured on an H200); cuBLAS, cuDNN and the allocator's gaps add:
ON_GPU = {"compiled": 0.92, "elementwise": 0.87}
WORKSPACES = 5 * 2**28  # bytes

MANY = 1000
GENEROUS = 400  # bytes a token and channel: eager fp32 keeps about 140

Checkpointing = Literal["none", "elementwise", "selective", "full"]


@dataclass(frozen=True)
class Layout:
    """How a run is laid out on its devices: nothing of it changes what is learned."""

    images: int  # per rank and micro-batch
    ranks: int = 1
    micro_batches: int = 1
    compiled: bool = False
    checkpointing: Checkpointing = "none"
    sharded: bool = True  # from two ranks on, every rank holds its share of what lasts
    device: str = "cuda"


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank."""

    weights: int  # student, heads, decoder, in fp32
    gradients: int
    moments: int
    teacher: int
    buffers: int
    encoder: int  # kept for the backward pass, as are the next two
    decoder: int
    rest: int
    working: int  # 16-bit copies of weights, gathered blocks, a block that is computed again, workspaces
    overlap: int  # gradients that come while what was kept goes: counted twice in the other parts

    @property
    def lasting(self) -> int:
        """Bytes that stay from step to step, gradients included."""
        return self.weights + self.gradients + self.moments + self.teacher + self.buffers

    @property
    def activations(self) -> int:
        """Bytes that wait for the backward pass."""
        return self.encoder + self.decoder + self.rest

    @property
    def total(self) -> int:
        """The largest sum of all that is there at the same time."""
        return self.lasting + self.activations + self.working - self.overlap

    def parts(self) -> dict[str, int]:
        """Every part by name; their sum is the total."""
        return asdict(self) | {"overlap": -self.overlap}


class Predictor:
    """Predictions for one config; counts once, so that many layouts of it cost nothing more."""

    def __init__(self, config: PretrainConfig, device: str = "cuda") -> None:
        self.config, self.device = config, device
        with torch.device("meta"):
            self.objective = PretrainObjective(config)
        self.kept = kept_for_backward(config, device)

    def memory(self, layout: Layout) -> Memory:
        """What a layout takes on each rank."""
        shards = layout.ranks if layout.sharded else 1
        student = [p for p in self.objective.parameters() if p.requires_grad]
        teacher = [p for p in self.objective.parameters() if not p.requires_grad]
        weights = _share(student, shards)
        encoder, decoder = (round(bytes_ * layout.images) for bytes_ in self._blocks(layout))
        rest = round(self.kept.rest * layout.images)
        early = layout.device != "cuda" or layout.micro_batches > 1  # there before the backward pass begins
        return Memory(
            weights=weights,
            gradients=weights,
            moments=MOMENTS * weights + FP32 * len(student),
            teacher=_share(teacher, shards),
            buffers=sum(b.numel() * b.element_size() for b in self.objective.buffers()),
            encoder=encoder,
            decoder=decoder,
            rest=rest,
            working=self._working(layout),
            overlap=0 if early else min(weights, encoder + decoder + rest + round(self.kept.casts)),
        )

    def _blocks(self, layout: Layout) -> tuple[float, float]:
        """Bytes per image kept inside the encoder's and the decoder's blocks."""
        kept = self.kept
        if layout.checkpointing == "full":
            return kept.encoder_inputs, kept.decoder_inputs
        share = self._share_of(layout.checkpointing, layout.compiled)
        return share * kept.encoder, share * kept.decoder

    def _share_of(self, what: str, compiled: bool) -> float:
        """How much of an eager block's memory remains."""
        own = dict(BYTES[self.config.engine.residual])
        if compiled and self.device == "cuda":
            own |= {name: share * own[name] for name, share in ON_GPU.items()}
        return min(own[what], own["compiled"] if compiled else own["none"]) / own["none"]

    def _working(self, layout: Layout) -> int:
        total = round(self.kept.casts) + (WORKSPACES if layout.device == "cuda" else 0)
        if layout.checkpointing != "none":
            total += round(layout.images * self.kept.largest_block * self._share_of("none", layout.compiled))
        if layout.ranks > 1 and layout.sharded:
            total += self._gathered()
        return total

    def _gathered(self) -> int:
        """Whole weights on a rank for a moment: two blocks, as one is fetched ahead, and all outside blocks."""
        blocks = [*self.objective.backbone.blocks, *self.objective.teacher.blocks, *self.objective.decoder.blocks]
        sizes = [sum(p.numel() for p in block.parameters()) for block in blocks]
        outside = sum(p.numel() for p in self.objective.parameters()) - sum(sizes)
        width = BF16 if self.config.engine.precision == "bf16" else FP32
        return width * 2 * max(sizes) + FP32 * outside

    def largest_batch(self, layout: Layout, room: int) -> int:
        """The most images per rank and micro-batch that fit into `room` bytes, in multiples of `unit_of`; 0: none."""
        unit = unit_of(self.config, layout.ranks)
        many = MANY * unit  # where what is kept outgrows the gradients, the total is a straight line
        here, next_ = (self.memory(_with_images(layout, images)).total for images in (many, many + unit))
        images = max(0, many + (room - here) // max(1, next_ - here) * unit)
        while images and self.memory(_with_images(layout, images)).total > room:
            images -= unit
        return images


def unit_of(config: PretrainConfig, ranks: int) -> int:
    """The fewest images of one rank with which all ranks together hold whole KoLeo groups; micro-batches are multiples.

    1 where the ranks are a multiple of the group, the whole group for a single one.
    """
    return config.koleo_group // math.gcd(config.koleo_group, ranks) if config.grouped else 1


def micro_batch(config: PretrainConfig, ranks: int, largest: int) -> int:
    """The largest divisor of a rank's share that is at most `largest`, in multiples of `unit_of`; 0 when none is."""
    unit, share = unit_of(config, ranks), config.batch // ranks
    fitting = [images for images in range(unit, min(share, largest) + 1, unit) if share % images == 0]
    return max(fitting, default=0)


def _with_images(layout: Layout, images: int) -> Layout:
    return replace(layout, images=images)


def _share(parameters: Iterable[nn.Parameter], ranks: int) -> int:
    """fp32 bytes of the first rank's share: FSDP2 cuts every tensor along its first axis, rounded up."""
    return sum(FP32 * -(-len(p) // ranks) * (p.numel() // max(1, len(p))) for p in parameters)


def state_bytes(memory: Memory, ranks: int = 1) -> int:
    """Size of one saved state on disk, all ranks together: weights, moments, teacher, centre."""
    return ranks * (memory.weights + memory.moments + memory.teacher) + memory.buffers


def check_fits(config: PretrainConfig, *, ranks: int, device: torch.device, room: int | None = None) -> None:
    """Raises ValueError with the numbers and the mend when a step of this run cannot fit; allocates nothing.

    `room` is what may be used, bytes; by default what the device has left.
    """
    room = available_bytes(device) if room is None else room
    parts = ranks * config.engine.micro_batches
    if room is None or config.batch % parts:
        return  # the batch source says what is wrong with such a batch
    layout = layout_of(config, ranks=ranks, device=device.type)
    if _surely_fits(config, layout, room):
        return
    predictor = Predictor(config, device.type)
    memory = predictor.memory(layout)
    if memory.total <= room:
        return
    raise ValueError(
        f"pretraining {config.size} at {config.image_size[0]} x {config.image_size[1]} would need "
        f"{memory.total / GIBIBYTE:.1f} GiB on each of {ranks} rank(s), and {room / GIBIBYTE:.1f} GiB are free: "
        f"{memory.lasting / GIBIBYTE:.1f} for weights, gradients, moments and teacher, "
        f"{(memory.activations + memory.working) / GIBIBYTE:.1f} for the {layout.images} images of a micro-batch; "
        + _mend(predictor, layout, config, room)
    )


def _surely_fits(config: PretrainConfig, layout: Layout, room: int) -> bool:
    """Whether a bound several times too high leaves half of the room free: it spares small runs the count."""
    arch = config.architecture
    prefix = 1 + arch.registers
    student = GLOBAL_VIEWS * (config.kept + prefix) + config.local_views * (config.local_tokens + prefix)
    completed = GLOBAL_VIEWS * (config.tokens + 1) + config.local_views * (config.local_tokens + 1)
    widths = student * arch.layers * arch.dim + completed * config.decoder_layers * config.decoder_dim
    widths += GLOBAL_VIEWS * config.tokens * arch.layers * arch.dim  # where the full views are seen as well
    pixels = GLOBAL_VIEWS * math.prod(config.image_size) + config.local_views * math.prod(config.local_size)
    logits = (GLOBAL_VIEWS + config.local_views) * config.prototypes
    image = GENEROUS * (widths + 3 * pixels + logits)
    weights = 2 * arch.layers * 20 * arch.dim**2 + 4 * config.prototypes * config.head_bottleneck
    windows = config.window_tokenizer  # pools windows one chunk at a time, which this bound does not know
    return not windows and 2 * (layout.images * image + 20 * weights) < room


def layout_of(config: PretrainConfig, *, ranks: int, device: str) -> Layout:
    """The layout that a config asks for on `ranks` ranks."""
    engine = config.engine
    return Layout(
        images=max(1, config.batch // (ranks * engine.micro_batches)),
        ranks=ranks,
        micro_batches=engine.micro_batches,
        compiled=bool(getattr(engine, "compile", False)),
        checkpointing=getattr(engine, "checkpointing", "none"),
        device=device,
    )


def _mend(predictor: Predictor, layout: Layout, config: PretrainConfig, room: int) -> str:
    """What would make it fit."""
    fits = predictor.largest_batch(layout, room)
    share = layout.images * layout.micro_batches
    if images := micro_batch(config, layout.ranks, fits):
        return f"at most {fits} fit: set pretrain.engine.micro_batches={share // images} (same batch), or a lower batch"
    least = unit_of(config, layout.ranks)
    if how := fitting_checkpointing(predictor, layout, room):
        return f"not even {least} image(s) fit: compute again in backward, pretrain.engine.checkpointing={how}"
    return f"not even {least} image(s) fit: use more ranks, a smaller size or smaller images"


def fitting_checkpointing(predictor: Predictor, layout: Layout, room: int) -> Checkpointing | None:
    """The cheapest checkpointing with which the fewest images fit; None where there is none."""
    every: tuple[Checkpointing, ...] = ("elementwise", "selective", "full")
    fitting = (how for how in every if predictor.largest_batch(replace(layout, checkpointing=how), room))
    return next(fitting, None)  # a weaker one than the layout's never fits
