"""Our pretraining step beside a straightforward one: same weights, same batch, same losses.

    python benchmarks/pretrain_step.py [--batch 8] [--rounds 5]
    python benchmarks/pretrain_step.py --device cuda --cases 1b:8:compiled,0.4b:4:compiled:both --out FILE

The straightforward step (`straightforward.py`) has our weights, and before any time is taken its three losses must be
ours: for that check the mask tokens are hidden from all queries, which makes both the same mathematics (what they do to
each other is not compared). Ours is the engine's own: `parallelize` and `Step`.

On a CPU (one thread, fp32) sides take turns and the ratio is that of the median processor times; the straightforward
side is also given smaller local views (its own best size, as equal length buys it nothing). On a GPU (bfloat16) the
table is img/s, MFU of 989 TFLOP/s and peak memory; see `step_on_gpu.py`. Prints a table; the last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import step_on_gpu
import torch
from straightforward import STEP, Batch, PlainStep, Straightforward, check, plain_attention

from sapiens2.engine.parallel import World, parallelize
from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.model import block
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.measure import drawn_on, pictures, source_of
from sapiens2.pretrain.recipes import demo

TARGET_CPU = 1.5


def side(name: str, config: PretrainConfig, device: torch.device) -> Callable[[int, Batch], None]:
    """One step of a side as a function of its number and the batch; both compile if the engine's settings ask."""
    world = World(0, 1, device)
    if name == "ours":
        objective = parallelize(drawn_on(device, config), world, config.engine).train()
        whole = Step(objective, make_optimizer(objective, config.engine), config.engine, world, FiniteGate(device))
        return lambda number, batch: (whole(number, [batch]), None)[1]
    straightforward = Straightforward(config, device).train()
    plain = PlainStep(straightforward)
    if config.engine.compile:
        torch._dynamo.config.recompile_limit = 64  # as ours has it
        for module in straightforward.modules():
            if isinstance(module, block.Block):
                module.compile(fullgraph=True, dynamic=False)

    def step(number: int, batch: Batch) -> None:
        with plain_attention(straightforward.attention):
            plain(number, batch)

    return step


def batch_of(config: PretrainConfig, device: torch.device) -> Batch:
    """Views of made pictures, from the source of a real run."""
    with tempfile.TemporaryDirectory() as folder:
        batch = source_of(pictures(Path(folder)), config).batch(0, 0, 1)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def tiny(batch: int, local: tuple[int, int]) -> PretrainConfig:
    """A step that a CPU does in a second or two: 192 tokens, of which the student sees 48."""
    fields = demo().model_dump()
    fields |= {"batch": batch, "image_size": (256, 192), "local_size": local, "centring": "centre"}
    fields["freeze_prototypes_steps"] = 0
    return PretrainConfig(**fields)


def on_cpu(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    device = torch.device("cpu")
    configs = {
        "ours": tiny(options.batch, (128, 96)),
        "straightforward": tiny(options.batch, (128, 96)),
        "straightforward, smaller locals": tiny(options.batch, (112, 80)),
    }
    batches = {name: batch_of(config, device) for name, config in configs.items()}
    difference = check(configs["ours"], batches["ours"])
    steps = {name: side(name, config, device) for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step(STEP + turn, batches[name])
            if turn:  # the first is a warm-up
                seconds[name].append(time.process_time() - began)
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    ratios = {name: round(value / medians["ours"], 2) for name, value in medians.items()}
    print(f"losses of the two sides differ by {difference:.1e} (relative, mask tokens hidden)")
    print("seconds of a step".ljust(36) + "seconds".rjust(10) + "ratio".rjust(8))
    for name, value in medians.items():
        print(name.ljust(36) + f"{value:10.3f}{ratios[name]:7.2f}x")
    meets = min(value for name, value in ratios.items() if name != "ours") >= TARGET_CPU
    return {"seconds": medians, "ratios": ratios, "loss_difference": difference, "meets": meets}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=8, help="images of a step, on a CPU")
    parser.add_argument("--rounds", type=int, default=5, help="measured steps of each side")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--cases", default=step_on_gpu.CASES, help="on a GPU: size:batch:mode[:side], by commas")
    parser.add_argument("--attention", default="default", choices=["default", "flash", "cudnn"], help="on a GPU")
    parser.add_argument("--warm", action="store_true", help="on a GPU: only fill the compiler's cache")
    parser.add_argument("--profile", action="store_true", help="on a GPU: also write the kernels of a step")
    parser.add_argument("--out", type=Path, help="JSON lines, on a GPU; cases that are there are not run again")
    options = parser.parse_args()
    found = on_cpu(options) if options.device == "cpu" else step_on_gpu.run(options, side, batch_of)
    print(json.dumps({"benchmark": "pretrain_step", **found, "machine": platform.machine()}))


if __name__ == "__main__":
    main()
