"""The same training steps in fp32 and in bfloat16: how far apart their losses are.

    python benchmarks/precision.py [--size 0.1b] [--batch 32] [--steps 80] [--device cuda] [--out FILE.json]

Every run has the same weights and the same batches, of made photographs at 256 x 192 pixels; what differs is the
arithmetic: fp32, bfloat16 with the residual stream in fp32 (what recipes take), and bfloat16 throughout. fp32 with
another seed of the weights says how far apart runs lie that differ by chance. Prints a table of the terms; the last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from sapiens2.engine.parallel import World, parallelize
from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.measure import drawn_on, pictures, source_of
from sapiens2.pretrain.recipes import demo, small

TERMS = ("loss", "mae", "contrastive", "koleo")
RUNS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "bf16, residual too": {"precision": "bf16", "residual": "bf16"},
    "fp32, other weights": {"precision": "fp32", "seed": 1},
}


def config_of(options: argparse.Namespace, changes: dict[str, Any]) -> PretrainConfig:
    """The small recipe, shortened."""
    base = demo() if options.size == "tiny" else small(options.size)
    fields = base.model_dump() | {"batch": options.batch, "freeze_prototypes_steps": 0}
    fields["engine"] |= {"steps": options.steps, "warmup_steps": options.steps // 8, "compile": False} | changes
    return PretrainConfig(**fields)


def losses_of(config: PretrainConfig, batches: list[dict[str, torch.Tensor]], device: torch.device) -> dict[str, Any]:
    """The terms of every step, and the gradient norm."""
    world = World(0, 1, device)
    objective = parallelize(drawn_on(device, config), world, config.engine).train()
    gate = FiniteGate(device)
    step = Step(objective, make_optimizer(objective, config.engine), config.engine, world, gate)
    curves: dict[str, list[torch.Tensor]] = {name: [] for name in (*TERMS, "grad_norm")}
    began = time.perf_counter()
    for number in range(config.engine.steps):
        terms, norm, _ = step(number, [dict(batches[number % len(batches)])])
        for name in TERMS:
            curves[name].append(terms[name])
        curves["grad_norm"].append(norm)
    told = {name: torch.stack(values).float().tolist() for name, values in curves.items()}
    return {"curves": told, "seconds": time.perf_counter() - began, "skipped": int(gate.skipped.item())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="0.1b", help="a size, or tiny for a CPU")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, help="JSON, with all curves")
    options = parser.parse_args()
    device = torch.device(options.device)
    base = config_of(options, {})
    with tempfile.TemporaryDirectory() as folder:
        source = source_of(pictures(Path(folder)), base.model_copy(update={"decode_threads": 8}))
        batches = [source.batch(number, 0, 1) for number in range(16)]
    batches = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]
    found = {name: losses_of(config_of(options, changes), batches, device) for name, changes in RUNS.items()}
    if options.out:
        options.out.write_text(json.dumps(found))
    last = max(1, options.steps // 8)
    summary = {
        name: {term: sum(run["curves"][term][-last:]) / last for term in (*TERMS, "grad_norm")}
        | {"seconds": round(run["seconds"], 1), "skipped": run["skipped"]}
        for name, run in found.items()
    }
    reference = found["fp32"]["curves"]["loss"]
    for name, run in found.items():
        apart = [abs(a / b - 1) for a, b in zip(run["curves"]["loss"], reference)]
        summary[name] |= {"first_apart": apart[0], "largest_apart": max(apart), "last_apart": sum(apart[-last:]) / last}
    print(f"mean of the last {last} of {options.steps} steps; loss of each step relative to fp32's")
    print("run".ljust(22) + "".join(n.rjust(13) for n in (*TERMS, "grad_norm", "first", "largest", "last", "seconds")))
    for name, row in summary.items():
        told = "".join(f"{row[term]:13.4f}" for term in (*TERMS, "grad_norm"))
        told += "".join(f"{row[part]:13.1e}" for part in ("first_apart", "largest_apart", "last_apart"))
        print(name.ljust(22) + told + f"{row['seconds']:13.1f}")
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(json.dumps({"benchmark": "precision", "size": options.size, "device": where, "runs": summary}))


if __name__ == "__main__":
    main()
