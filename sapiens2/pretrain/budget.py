"""What a pretraining run costs before anything is spent: arithmetic, memory, time, disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import Cost, step_cost
from sapiens2.pretrain.memory import (
    FP32,
    GIBIBYTE,
    Checkpointing,
    Layout,
    Memory,
    Predictor,
    fitting_checkpointing,
    micro_batch,
    state_bytes,
    unit_of,
)

HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: dense 16-bit FLOP/s of the datasheet, bytes that a process can use."""

    flops: float
    memory: int


GPUS = {
    "h200": Gpu(989e12, 139 * GIBIBYTE),
    "h100": Gpu(989e12, 79 * GIBIBYTE),
    "a100": Gpu(312e12, 79 * GIBIBYTE),
}


@dataclass(frozen=True)
class Budget:
    """The costs of a run on some GPUs at an assumed utilisation."""

    config: PretrainConfig
    cost: Cost  # FLOPs per image
    memory: Memory  # on each GPU
    room: int  # bytes of each GPU
    batch_per_gpu: int  # images of a micro-batch; 0 when not even the fewest fit
    largest_batch: int  # the most that would fit
    micro_batches: int
    layout: Layout  # with what this was computed: ranks, checkpointing, compilation
    checkpointing_that_fits: Checkpointing | None  # the cheapest with which the fewest images fit
    recomputed: float  # FLOPs per image that checkpointing adds and utilisation does not count
    state: int  # bytes of one saved state
    weights: int  # bytes of the published backbone
    images_per_second: float
    gpus: int

    @property
    def images(self) -> int:
        """Images seen in the whole run."""
        return self.config.batch * self.config.engine.steps

    @property
    def flops(self) -> int:
        """FLOPs of the whole run."""
        return self.cost.total * self.images

    @property
    def fits(self) -> bool:
        """Whether a step fits into each GPU."""
        return self.batch_per_gpu > 0 and self.memory.total <= self.room

    @property
    def settings(self) -> dict[str, Any]:
        """What a run sets under `pretrain.engine` to be the one that was computed."""
        made: dict[str, Any] = {"micro_batches": self.micro_batches, "compile": self.layout.compiled}
        if self.layout.checkpointing != "none":
            made["checkpointing"] = self.layout.checkpointing
        return made

    @property
    def days(self) -> float:
        """Days on all GPUs together."""
        return self.images / self.images_per_second / DAY

    @property
    def gpu_hours(self) -> float:
        """Hours of all GPUs added up."""
        return self.days * DAY / HOUR * self.gpus

    def summary(self) -> dict[str, Any]:
        """All numbers under plain names, for other programs; bytes and FLOPs."""
        return {
            "size": self.config.size,
            "image_size": list(self.config.image_size),
            "batch": self.config.batch,
            "steps": self.config.engine.steps,
            "images": self.images,
            "flops_per_image": self.cost._asdict() | {"total": self.cost.total},
            "flops": self.flops,
            "gpus": self.gpus,
            "images_per_second": self.images_per_second,
            "days": self.days,
            "gpu_hours": self.gpu_hours,
            "memory_per_gpu": self.memory.parts() | {"total": self.memory.total},
            "room_per_gpu": self.room,
            "fits": self.fits,
            "batch_per_gpu": self.batch_per_gpu,
            "largest_batch_per_gpu": self.largest_batch,
            "micro_batches": self.micro_batches,
            "settings": self.settings,
            "checkpointing_that_fits": self.checkpointing_that_fits,
            "recomputed_flops_per_image": self.recomputed,
            "state_bytes": self.state,
            "weights_bytes": self.weights,
        }


def budget(
    config: PretrainConfig,
    *,
    gpu: str = "h200",
    gpus: int = 1,
    mfu: float = 0.4,
    batch_per_gpu: int | None = None,
    checkpointing: Checkpointing = "none",
    compiled: bool = True,
    predictor: Predictor | None = None,
) -> Budget:
    """The budget of a run; `mfu` is the share of the datasheet's FLOP/s that the model's own arithmetic reaches.

    Without `batch_per_gpu` the largest micro-batch that fits and divides the batch is taken. A `predictor` of
    the same config spares counting its memory again. Raises ValueError for an
    unknown GPU, a share outside (0, 1], a batch that does not divide among the GPUs, or a micro-batch that does not
    divide a GPU's share, or leaves KoLeo groups that the GPUs together do not hold whole.
    """
    if gpu not in GPUS:
        raise ValueError(f"unknown GPU {gpu!r}; choose one of {', '.join(GPUS)}")
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu={mfu} is no share: give a number above 0 and up to 1, such as 0.4")
    if gpus < 1 or config.batch % gpus:
        raise ValueError(f"a batch of {config.batch} images does not divide among {gpus} GPUs: choose another number")
    asked = None if batch_per_gpu is None else _divisor(config, gpus, batch_per_gpu)
    predictor, room = predictor or Predictor(config), GPUS[gpu].memory
    layout = Layout(images=1, ranks=gpus, checkpointing=checkpointing, compiled=compiled)
    largest = predictor.largest_batch(layout, room)
    share = config.batch // gpus
    images = micro_batch(config, gpus, largest) if asked is None else asked
    layout = replace(layout, images=images or unit_of(config, gpus))
    memory = predictor.memory(layout)
    cost = step_cost(config)
    return Budget(
        config=config,
        cost=cost,
        memory=memory,
        room=room,
        batch_per_gpu=images,
        largest_batch=largest,
        micro_batches=share // images if images else 0,
        layout=layout,
        checkpointing_that_fits=fitting_checkpointing(predictor, layout, room),
        recomputed=_recomputed(cost, checkpointing),
        state=state_bytes(memory, gpus),
        weights=FP32 * sum(p.numel() for p in predictor.objective.teacher.parameters()),
        images_per_second=gpus * mfu * GPUS[gpu].flops / cost.total,
        gpus=gpus,
    )


def _divisor(config: PretrainConfig, gpus: int, images: int) -> int:
    """The micro-batch that was asked for; raises ValueError with the possible ones when training would refuse it."""
    unit, share = unit_of(config, gpus), config.batch // gpus
    if images < 1 or images % unit or share % images:
        possible = [n for n in range(unit, share + 1, unit) if share % n == 0]
        raise ValueError(
            f"{images} images at a time do not divide a GPU's {share} so that {gpus} GPU(s) hold whole KoLeo groups of "
            f"{config.koleo_group}: choose one of {', '.join(map(str, possible))}"
        )
    return images


# Of the student's and the decoder's forward pass, a third of what training them costs, this share runs twice.
_TWICE: dict[str, float] = {"none": 0.0, "elementwise": 0.0, "selective": 5.3 / 12, "full": 1.0}


def _recomputed(cost: Cost, checkpointing: Checkpointing) -> float:
    return _TWICE[checkpointing] * (cost.student + cost.decoder) / 3
