"""How fast and how large a pretraining step is on this machine, beside what was predicted.

It runs the objective, the step, the optimiser and the source of a real run, on pictures made for it.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from sapiens2.engine.feeder import Feeder
from sapiens2.engine.parallel import parallelize
from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.engine.world import World, cpu_threads
from sapiens2.model.block import block_flops
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import BACKWARD, step_cost
from sapiens2.pretrain.memory import Predictor, check_fits, layout_of
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.source import PretrainSource
from sapiens2.pretrain.views import GLOBAL_VIEWS

WARMUP = 2  # steps that are not timed: allocation, compilation, moments
PICTURE, PICTURES = (1536, 1152, 3), 16  # what a source meets: photographs of 1.8 megapixels
MATRIX = {"cuda": 8192, "cpu": 1024}  # side of the product that shows what the device can do
DATASHEET = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # dense bf16 FLOP/s by a part of the device's name


@dataclass(frozen=True)
class Measured:
    """Times in seconds, memory in bytes; each beside its prediction where there is one."""

    device: str
    matrix_flops: float  # FLOP/s of one large matrix product: what is attainable
    peak_flops: float | None  # of the datasheet
    block: float  # forward and backward of one encoder block over all student sequences
    block_at_peak: float  # what it would take at the attainable rate
    step: float
    step_at_peak: float
    images_per_second: float
    flops: float  # FLOP/s of the whole step
    memory: int  # the most that was allocated; on a CPU, what the process grew by
    memory_predicted: int
    data_wait: float  # share of the step spent waiting for its batch
    views: float  # seconds of one core for decoding a picture and its views

    @property
    def mfu(self) -> float | None:
        """Share of the datasheet's FLOP/s, on a known GPU."""
        return self.flops / self.peak_flops if self.peak_flops else None


def pictures(folder: Path) -> str:
    """A shard of JPEGs of PICTURE's size, smooth as photographs are; returns its path."""
    rng, rows = np.random.default_rng(0), []
    height, width, _ = PICTURE
    for index in range(PICTURES):
        coarse = rng.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        data = cv2.imencode(".jpg", pixels)[1].tobytes()
        rows.append({"image_id": f"{index:032x}", "bytes": data, "width": width, "height": height})
    path = str(folder / "pictures.parquet")
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def source_of(shard: str, config: PretrainConfig) -> PretrainSource:
    """The source of a real run on the shard; no picture stays decoded, as none does in a run on millions."""
    return PretrainSource([shard], config.model_copy(update={"cache_mb": 0, "person_crops": 0.0}))


def measure(config: PretrainConfig, device: torch.device, steps: int) -> Measured:
    """Run `steps` timed steps of a config on one device. Raises ValueError when they cannot fit."""
    check_fits(config, ranks=1, device=device)
    predictor = Predictor(config, device.type)
    predicted = predictor.memory(layout_of(config, ranks=1, device=device.type)).total
    world = World(0, 1, device)
    with tempfile.TemporaryDirectory(prefix="sapiens2-doctor-") as folder, cpu_threads(config.engine):
        source = source_of(pictures(Path(folder)), config)
        views = _seconds_of_views(source)
        matrix = matrix_flops(device, config.engine.precision)
        before = _used(device, reset=True)
        objective = parallelize(drawn_on(device, config), world, config.engine)
        objective.train()
        step = Step(objective, make_optimizer(objective, config.engine), config.engine, world, FiniteGate(device))
        seconds, waited = _timed_steps(step, source, world, config, steps)
        used = _used(device) - before
        block, block_flop = _block(objective, config, device)
    flop = step_cost(config).total * config.batch
    return Measured(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        matrix_flops=matrix,
        peak_flops=_datasheet(device),
        block=block,
        block_at_peak=block_flop / matrix,
        step=seconds,
        step_at_peak=flop / matrix,
        images_per_second=config.batch / seconds,
        flops=flop / seconds,
        memory=used,
        memory_predicted=predicted,
        data_wait=waited / seconds,
        views=views,
    )


def drawn_on(device: torch.device, config: PretrainConfig) -> PretrainObjective:
    """An objective whose weights are drawn on the device itself; on a GPU they are others than a run's, and quick."""
    with torch.device("meta"):
        objective = PretrainObjective(config)
    objective.to_empty(device=device)
    objective.init_weights()
    return objective


def _timed_steps(
    step: Step, source: PretrainSource, world: World, config: PretrainConfig, steps: int
) -> tuple[float, float]:
    """Median seconds of a step, and mean seconds that it waited for its batch."""
    engine, last = config.engine, WARMUP + steps
    feeder = Feeder(
        source,
        world,
        micro_batches=engine.micro_batches,
        prefetch=engine.prefetch,
        first=0,
        last=last,
        workers=engine.loader_workers,
    )
    times: list[float] = []
    waited = 0.0
    with feeder:
        for number in range(last):
            if number == WARMUP:
                waited = feeder.waited_s
            began = time.perf_counter()
            step(number, feeder.next())
            _finish(world.device)
            times.append(time.perf_counter() - began)
    return statistics.median(times[WARMUP:]), (feeder.waited_s - waited) / steps


def _seconds_of_views(source: PretrainSource) -> float:
    """Median seconds of decoding a picture and cropping its views, one after the other."""
    work, times = source.worker(), []
    for index in range(PICTURES):
        began = time.perf_counter()
        work([(index, source.shards[index])])
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _block(objective: nn.Module, config: PretrainConfig, device: torch.device) -> tuple[float, int]:
    """Seconds of forward and backward of a middle block over the student's global views, and their FLOPs."""
    assert isinstance(objective, PretrainObjective)
    backbone = objective.backbone
    block = backbone.blocks[len(backbone.blocks) // 2]
    sequences, tokens = GLOBAL_VIEWS * config.batch, config.kept + backbone.prefix
    if config.local_tokens == config.kept:
        sequences += config.local_views * config.batch
    rows = backbone.rope.rows(*config.grid, device).gather(torch.arange(config.kept, device=device)[None])
    places = rows.expand(sequences).with_prefix(backbone.prefix)
    x = torch.randn(sequences, tokens, backbone.architecture.dim, device=device, requires_grad=True)

    def once() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.engine.precision == "bf16"):
            y = block(x, places)
        y.backward(torch.ones_like(y))

    return _seconds(once, device), (1 + BACKWARD) * sequences * block_flops(block, tokens)


def matrix_flops(device: torch.device, precision: str) -> float:
    """FLOP/s of a large square matrix product in the precision of a run."""
    side = MATRIX[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: a @ b, device)


def _seconds(work: object, device: torch.device, repeats: int = 5) -> float:
    """Median seconds of a call, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()  # type: ignore[operator]
        _finish(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _used(device: torch.device, *, reset: bool = False) -> int:
    """Bytes: the most that was allocated on a GPU, the largest resident size of the process on a CPU."""
    if device.type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.max_memory_allocated(device)


def _datasheet(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in DATASHEET.items() if part in name), None)
