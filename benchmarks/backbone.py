"""Our backbone beside the `transformers` port of Sapiens2: same weights, same inputs, same compile mode.

    python benchmarks/backbone.py [--sizes tiny,0.1b] [--image 1024x768] [--batches 1] [--rounds 5] [--layers N]
    python benchmarks/backbone.py --device cuda --sizes 0.1b,0.4b,0.8b,1b,5b --batches 1,8 [--compiled] --out FILE

On a CPU in fp32, on a GPU in bfloat16. Both sides read the same weights in memory. Each case first asserts that they
give the same features in fp32, then lets them take turns; the ratio is that of the median times. A case that does not
fit into the memory that is free is left out, and a line says so. `--layers` shortens both networks alike, where a whole
one would take minutes; the table says so. With `--out` every case is appended as a JSON line when it is done, and a
case that is there already is not run again: the table can be made in several short calls. Prints a table; the last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.sapiens2 import Sapiens2Config, modeling_sapiens2

from sapiens2.engine.capacity import available_bytes
from sapiens2.model.backbone import Backbone, build_backbone
from sapiens2.model.rope import RopeTables
from sapiens2.model.sizes import SIZES
from sapiens2.model.transformers_names import to_transformers

TARGETS = {"cpu": 0.98, "cuda": 1.3}  # times as fast; on a GPU uncompiled
TOLERANCE = 1e-4  # relative, in fp32; on a GPU its products may sum in another order


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    size: str
    layers: int
    height: int
    width: int
    batch: int
    device: str
    compiled: bool


def pair(case: Case) -> tuple[Backbone, nn.Module]:
    """Ours and the port over the same random weights, of which every one counts."""
    arch = replace(SIZES[case.size], layers=case.layers)
    torch.manual_seed(0)
    with torch.device(case.device):
        ours = build_backbone(arch).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            scale = 0.3 if parameter.ndim < 2 else 0.5 * parameter[0].numel() ** -0.5
            parameter.add_(torch.randn_like(parameter) * scale)
    config = Sapiens2Config(
        hidden_size=arch.dim,
        intermediate_size=arch.hidden,
        num_hidden_layers=arch.layers,
        num_attention_heads=arch.heads,
        num_key_value_attention_heads=arch.heads // 2,
        num_key_value_heads_per_layer=[arch.kv_heads(i) for i in range(arch.layers)],
    )
    with torch.device("meta"):
        port = modeling_sapiens2.Sapiens2Model(config)
    port.load_state_dict(to_transformers(ours.state_dict()), strict=True, assign=True)
    with torch.device(case.device):  # its table of periods is in no state dict
        port.rope_embeddings = modeling_sapiens2.Sapiens2RopePositionEmbedding(config)
    assert not any(t.is_meta for t in (*port.parameters(), *port.buffers()))
    return ours, port.eval()


def narrowed(ours: Backbone, port: nn.Module) -> tuple[Backbone, nn.Module]:
    """Both in bfloat16, over the same weights; the port then rotates in it, and ours does as released weights need."""
    ours.to(torch.bfloat16)
    ours.rope = RopeTables(ours.architecture.head_dim, "bfloat16")
    port.load_state_dict(to_transformers(ours.state_dict()), strict=True, assign=True)
    return ours, port.to(torch.bfloat16)


def needed(case: Case) -> int:
    """Bytes of a case: the weights once in fp32, and twice the widest of a block's tensors and of the stream."""
    arch = replace(SIZES[case.size], layers=case.layers)
    with torch.device("meta"):
        weights = 4 * sum(p.numel() for p in Backbone(arch).parameters())
    tokens = case.batch * (9 + case.height * case.width // arch.patch**2)
    return weights + 4 * tokens * 2 * (2 * arch.hidden + 4 * arch.dim)


def relative(ours: Tensor, reference: Tensor) -> float:
    return ((ours.double() - reference.double()).norm() / reference.double().norm()).item()


def milliseconds(run: Callable[[], Any], case: Case) -> float:
    """Time of one call. On a CPU that of the processor over all threads, so that other programs count little."""
    if case.device == "cpu":
        began = time.process_time()
        run()
        return 1e3 * (time.process_time() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def apart(ours: Backbone, port: nn.Module, images: Tensor) -> float:
    """How far the features of the two are apart, relative to the port's."""
    features, reference = ours(images), port(images).last_hidden_state
    return max(relative(features.cls, reference[:, 0]), relative(features.patches.flatten(2).mT, reference[:, 9:]))


@torch.inference_mode()
def measure(case: Case, rounds: int) -> dict[str, Any]:
    ours, port = pair(case)
    images = torch.randn(case.batch, 3, case.height, case.width, device=case.device)
    difference = apart(ours, port, images[:1])
    assert difference <= TOLERANCE, f"{case}: the two differ by {difference:.1e}"
    if case.device != "cpu":
        (ours, port), images = narrowed(ours, port), images.bfloat16()
    ways: dict[str, Any] = {"ours": ours, "port": port}
    if case.compiled:
        ways = {name: torch.compile(model) for name, model in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in sorted(ways, reverse=bool(turn % 2)):  # neither is always the one that finds the caches cold
            taken = milliseconds(lambda name=name: ways[name](images), case)
            if turn:  # the first is a warm-up
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        **asdict(case),
        "ours_ms": round(medians["ours"], 2),
        "port_ms": round(medians["port"], 2),
        "ratio": round(medians["port"] / medians["ours"], 3),
        "difference_fp32": difference,
    }


def cases(options: argparse.Namespace) -> list[Case]:
    height, width = (int(side) for side in options.image.split("x"))
    return [
        Case(size, options.layers or SIZES[size].layers, height, width, int(batch), options.device, options.compiled)
        for size in options.sizes.split(",")
        for batch in options.batches.split(",")
    ]


def row_of(found: dict[str, Any]) -> str:
    whole = "" if found["layers"] == SIZES[found["size"]].layers else f" of {SIZES[found['size']].layers}"
    image, mode = f"{found['height']}x{found['width']}", "compiled" if found["compiled"] else "eager"
    return (
        f"{found['size']:>6}{str(found['layers']) + whole:>10}{image:>11}{found['batch']:>6}{mode:>10}"
        f"{found['ours_ms']:>11.1f}{found['port_ms']:>11.1f}{found['ratio']:>8.3f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="tiny,0.1b,0.4b,0.8b,1b")
    parser.add_argument("--image", default="1024x768", help="height x width, pixels")
    parser.add_argument("--batches", default="1")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--layers", type=int, default=0, help="blocks of both networks; 0: all")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--compiled", action="store_true", help="torch.compile on both sides")
    parser.add_argument("--out", type=Path, help="JSON lines; cases that are there are not run again")
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False  # or the port's convolution is checked at 10 bits
    if options.device == "cpu":
        torch.set_num_threads(1)
    lines = options.out.read_text().splitlines() if options.out and options.out.exists() else []
    results = [json.loads(line) for line in lines]
    print("  size    layers      image batch      mode    ours ms    port ms    ratio")
    for case in cases(options):
        done = next((r for r in results if r.items() >= asdict(case).items()), None)
        room = available_bytes(torch.device(options.device))
        if done is None and room is not None and needed(case) > room:
            left_out = f"needs {needed(case) / 2**30:.1f} GiB, {room / 2**30:.1f} are free"
            print(f"{case.size:>6} at {case.height}x{case.width}, batch {case.batch}: left out, {left_out}", flush=True)
            continue
        if done is None:
            done = measure(case, options.rounds)
            results.append(done)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(done) + "\n")
        print(row_of(done), flush=True)
    here = [r for r in results if r["device"] == options.device and not r["compiled"]]
    machine = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    meets = all(r["ratio"] >= TARGETS[options.device] for r in here) if here else None
    print(json.dumps({"benchmark": "backbone", "cases": results, "meets": meets, "machine": machine}))


if __name__ == "__main__":
    main()
